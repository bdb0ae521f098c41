//! `start`: boot the machine that is there, or have a suspended one go on.

use std::process::ExitCode;

use crate::{
    cli::{
        commands::setup,
        context::{self, Context},
        error::CommandError,
        interrupt,
        terminal::output::Output,
    },
    machine::lifecycle,
    project::{Config, config::Timeout, idle::Idle},
};

/// What `start` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm start\n  \
    k3s-vm start --timings\n  \
    k3s-vm start --restore-datastore\n\n\
    When it fails:\n  \
    Nothing is lost: run it again. `k3s-vm logs console` shows the boot, `k3s-vm logs qemu` what\n  \
    QEMU itself said. When a port is taken, k3s-vm takes another one unless api_port is set.")]
pub struct Args {
    /// How long the start may take, like 5m [default: 5m with KVM, 30m without]
    #[arg(long, value_name = "DUR")]
    timeout: Option<Timeout>,
    /// Put the copy of k3s's datastore back that was kept at the last orderly stop, when the datastore is damaged; what
    /// the cluster was told since then is lost
    #[arg(long)]
    restore_datastore: bool,
    /// Suspend the machine when nobody has talked to it for so long, like 30m, from now on; off undoes it
    #[arg(long, value_name = "DUR")]
    idle_suspend: Option<Idle>,
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
    let config = Config {
        timeout: args.timeout,
        idle_suspend: args.idle_suspend,
        ..Config::default()
    };
    context::require_machine(&context)?;
    let (machine, signals) = interrupt::opened(context, "start").await?;
    let work =
        async { Ok(lifecycle::setup::start(&machine, config, args.restore_datastore).await?) };
    let summary = interrupt::guarded(&machine, signals, work).await?;
    setup::tell(&summary, args.timings, output);
    Ok(ExitCode::SUCCESS)
}
