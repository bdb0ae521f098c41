//! `upgrade`: a newer k3s, with a rollback on failure.

use std::{process::ExitCode, sync::Arc};

use crate::{
    base::Progress,
    cli::{
        commands::setup,
        context::{Context, require_machine},
        error::CommandError,
        interrupt,
        terminal::output::Output,
    },
    k3s::release::{STABLE, Version},
    machine::{
        Machine,
        upgrade::{self, Target, Upgraded},
    },
    project::{Config, config_values::Timeout},
};

/// The arguments of `upgrade`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm upgrade                           # the stable channel\n  \
    k3s-vm upgrade --channel v1.34\n  \
    k3s-vm upgrade --k3s-version v1.34.1+k3s1\n  \
    k3s-vm snapshot list                     # has the VM before the upgrade\n\n\
    When it fails:\n  \
    The VM runs with the k3s that it had. Changes in the cluster during the upgrade are lost. After an interruption, \
    run it again: it continues. It needs space for a snapshot on the host and for the release in the guest.")]
pub struct Args {
    /// k3s release, e.g. v1.34.1+k3s1
    #[arg(long, value_name = "VERSION", conflicts_with = "channel")]
    k3s_version: Option<Version>,
    /// k3s channel: stable, latest, or a minor version, e.g. v1.34
    #[arg(long, value_name = "CHANNEL", default_value = STABLE)]
    channel: String,
    /// Source of k3s releases for this run: http, https or file [default: the VM's]
    #[arg(
        long,
        value_name = "URL",
        env = "K3S_VM_K3S_MIRROR",
        hide_env_values = true
    )]
    k3s_mirror: Option<String>,
    /// Download a release without a checksum
    #[arg(long)]
    insecure_no_checksum: bool,
    /// Limit until the node is Ready, e.g. 5m [default: 5m with KVM, 30m without]
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Timeout>,
    /// Print where the time went
    #[arg(long)]
    timings: bool,
    /// Print events on stdout, one JSON document a line
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) const fn prints_events(&self) -> bool {
        self.json
    }
}

pub(crate) async fn run(
    args: Args,
    context: Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    require_machine(&context)?;
    let target = match args.k3s_version {
        Some(version) => Target::Version(version),
        None => Target::Channel(args.channel),
    };
    let config = Config {
        k3s_mirror: args.k3s_mirror,
        insecure_no_checksum: args.insecure_no_checksum,
        timeout: args.timeout,
        ..Config::default()
    };
    let (fetching, copying) = (output.progress(), output.copying());
    let copying: Arc<dyn Progress> = Arc::new(copying);
    let work = async |machine: &Machine| {
        upgrade::upgrade(machine, &target, config, &fetching, &copying).await
    };
    let upgraded = interrupt::run_on_machine(context, "upgrade", work).await?;
    print_upgrade(&upgraded);
    setup::print_summary(&upgraded.summary, args.timings, output);
    Ok(ExitCode::SUCCESS)
}

fn print_upgrade(upgraded: &Upgraded) {
    let Upgraded { from, to, .. } = upgraded;
    if *from == to.as_str() {
        tracing::info!("k3s is already {to}");
    } else {
        tracing::info!("upgraded k3s from {from} to {to}");
    }
    if let Some(name) = &upgraded.snapshot {
        tracing::info!(
            "the VM before the upgrade is snapshot {name}; to reclaim its space: k3s-vm snapshot delete {name}"
        );
    }
}
