//! `stop`: shuts k3s and the guest down, or suspends the VM.

use std::process::ExitCode;

use crate::{
    cli::{
        context::{Context, require_machine},
        error::CommandError,
        interrupt,
        terminal::output::Output,
    },
    machine::{
        Machine,
        lifecycle::stop::{self, StopMode, StopOutcome},
    },
    project::config_values::Timeout,
};

/// The arguments of `stop`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm stop\n  \
    k3s-vm stop --timeout 20s\n  \
    k3s-vm stop --suspend           # the next start resumes the guest\n  \
    k3s-vm stop --power-off         # if the config has suspend = true\n  \
    k3s-vm stop --force             # end QEMU at once\n\n\
    When it fails:\n  \
    A VM that cannot be suspended, e.g. for lack of disk space, keeps running. `k3s-vm stop --force` ends QEMU over \
    its monitor, or kills it if the monitor does not answer.")]
pub struct Args {
    /// End QEMU at once, without a clean shutdown
    #[arg(long)]
    force: bool,
    /// Save the guest's memory, so that the next start resumes it
    #[arg(long, conflicts_with_all = ["force", "power_off", "timeout"])]
    suspend: bool,
    /// Shut down even if the config has suspend = true; discard the memory of a suspended VM
    #[arg(long, conflicts_with = "force")]
    power_off: bool,
    /// Limit of the clean shutdown, e.g. 30s [default: 2m]
    #[arg(long, value_name = "DURATION", conflicts_with = "force")]
    timeout: Option<Timeout>,
}

impl Args {
    fn mode(&self) -> StopMode {
        match (self.force, self.suspend, self.power_off) {
            (true, _, _) => StopMode::Force,
            (_, true, _) => StopMode::Suspend,
            (_, _, true) => StopMode::PowerOff,
            _ => StopMode::Usual,
        }
    }
}

pub(crate) async fn run(
    args: &Args,
    context: Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    require_machine(&context)?;
    let within = args.timeout.map(|timeout| timeout.0);
    let work = async |machine: &Machine| stop::stop(machine, args.mode(), within).await;
    match interrupt::run_on_machine(context, "stop", work).await? {
        StopOutcome::AlreadyStopped => tracing::info!("the VM is already stopped"),
        StopOutcome::AlreadySuspended => tracing::info!("the VM is already suspended"),
        StopOutcome::MemoryDiscarded => {
            tracing::info!("discarded the saved memory; the next start boots")
        }
        StopOutcome::Suspended => tracing::info!("suspended; to resume: k3s-vm start"),
        StopOutcome::CleanShutdown => tracing::info!("stopped"),
        StopOutcome::Forced if args.force => tracing::info!("stopped by force"),
        StopOutcome::Forced => output.warning("stopped by force: the guest did not shut down"),
    }
    Ok(ExitCode::SUCCESS)
}
