//! `upgrade`: a newer k3s, or the machine as it was.

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
    machine::upgrade::{self, Target, Upgraded},
    project::{Config, config::Timeout},
};

/// What `upgrade` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm upgrade                           # to what the stable channel names\n  \
    k3s-vm upgrade --channel v1.34\n  \
    k3s-vm upgrade --k3s-version v1.34.1+k3s1\n  \
    k3s-vm snapshot list                     # the machine as it was before, until you delete it\n\n\
    When it fails:\n  \
    The machine is what it was before, and runs. Interrupted, or killed: run it again, and it goes on\n  \
    where it ended; `k3s-vm snapshot restore before-...` brings back what was. What the cluster was\n  \
    told while the new k3s was waited for is lost when that does not come up. It takes room for a\n  \
    snapshot on the host, and for the release on the guest's disk.")]
pub struct Args {
    /// The k3s release, like v1.34.1+k3s1
    #[arg(long, value_name = "V", conflicts_with = "channel")]
    k3s_version: Option<Version>,
    /// The channel of k3s that names the release: stable, latest, or a minor version like v1.34
    #[arg(long, value_name = "C", default_value = STABLE)]
    channel: String,
    /// Where k3s releases come from, this time (http, https or file) [default: where the machine's came from]
    #[arg(
        long,
        value_name = "URL",
        env = "K3S_VM_K3S_MIRROR",
        hide_env_values = true
    )]
    k3s_mirror: Option<String>,
    /// Take also a release that has no checksum
    #[arg(long)]
    insecure_no_checksum: bool,
    /// How long the node may take to be Ready with it, like 5m [default: 5m with KVM, 30m without]
    #[arg(long, value_name = "DUR")]
    timeout: Option<Timeout>,
    /// Show where the time went
    #[arg(long)]
    timings: bool,
    /// Print what happens on stdout, one JSON document a line; their layout is numbered by "schema"
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
    let (machine, signals) = interrupt::opened(context, "upgrade").await?;
    let (fetching, copying) = (output.progress(), output.copying());
    let copying: Arc<dyn Progress> = Arc::new(copying);
    let work =
        async { Ok(upgrade::upgrade(&machine, &target, config, &fetching, &copying).await?) };
    let upgraded = interrupt::guarded(&machine, signals, work).await?;
    tell(&upgraded);
    setup::tell(&upgraded.summary, args.timings, output);
    Ok(ExitCode::SUCCESS)
}

fn tell(upgraded: &Upgraded) {
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
