//! `restart`: stops and starts the VM.

use std::process::ExitCode;

use crate::{
    cli::{
        commands::setup,
        context::{Context, require_machine},
        error::CommandError,
        interrupt,
        terminal::output::Output,
    },
    machine::{Machine, lifecycle::power},
    project::{Config, config_values::Timeout},
};

/// The arguments of `restart`.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm restart\n  \
    k3s-vm restart --force          # for a guest that hangs\n\n\
    When it fails:\n  \
    Nothing is lost: run `k3s-vm start`. `k3s-vm logs console` shows the boot. A suspended VM is not restarted, for \
    its memory would be lost: `k3s-vm resume` resumes it, `k3s-vm stop --power-off && k3s-vm start` boots it.")]
pub struct Args {
    /// End QEMU at once, without a clean shutdown
    #[arg(long)]
    force: bool,
    /// Limit of the shutdown, and then of the start, e.g. 5m [default: 2m, and 5m with KVM or 30m without]
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Timeout>,
    /// Print where the time of the start went
    #[arg(long)]
    timings: bool,
}

pub(crate) async fn run(
    args: Args,
    context: Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    require_machine(&context)?;
    let within = args.timeout.map(|timeout| timeout.0);
    let config = Config {
        timeout: args.timeout,
        ..Config::default()
    };
    let work = async |machine: &Machine| power::restart(machine, args.force, within, config).await;
    let summary = interrupt::run_on_machine(context, "restart", work).await?;
    setup::print_summary(&summary, args.timings, output);
    Ok(ExitCode::SUCCESS)
}
