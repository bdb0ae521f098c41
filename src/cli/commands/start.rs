//! `start`: boots a stopped VM, or resumes a suspended one.

use std::process::ExitCode;

use crate::{
    cli::{
        commands::setup,
        context::{self, Context},
        error::CommandError,
        interrupt,
        terminal::output::Output,
    },
    machine::{Machine, lifecycle},
    project::{Config, config_values::Timeout, idle::Idle},
};

/// The arguments of `start`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm start\n  \
    k3s-vm start --timings\n  \
    k3s-vm start --restore-datastore\n\n\
    When it fails:\n  \
    Run it again: nothing is lost. `k3s-vm logs console` shows the boot, `k3s-vm logs qemu` the messages of QEMU.")]
pub struct Args {
    /// Limit until the node is Ready, e.g. 5m [default: 5m with KVM, 30m without]
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Timeout>,
    /// Restore the copy of k3s's datastore from the last clean stop; later changes are lost
    #[arg(long)]
    restore_datastore: bool,
    /// Suspend the VM after this time without use, e.g. 30m, or off
    #[arg(long, value_name = "DURATION")]
    idle_suspend: Option<Idle>,
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
    let config = Config {
        timeout: args.timeout,
        idle_suspend: args.idle_suspend,
        ..Config::default()
    };
    context::require_machine(&context)?;
    let work = async |machine: &Machine| {
        lifecycle::setup::start(machine, config, args.restore_datastore).await
    };
    let summary = interrupt::run_on_machine(context, "start", work).await?;
    setup::print_summary(&summary, args.timings, output);
    Ok(ExitCode::SUCCESS)
}
