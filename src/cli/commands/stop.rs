//! `stop`: k3s down, then the machine.

use std::process::ExitCode;

use super::start::require_machine;
use crate::{
    cli::{context::Context, error::CommandError, interrupt, output::Output},
    machine::stop::{self, Ending},
    project::config::Timeout,
};

/// k3s is stopped, the guest powers itself off; after the deadline QEMU is told to quit.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm stop\n  \
    k3s-vm stop --timeout 20s\n  \
    k3s-vm stop --force             # at once, like pulling the plug\n\n\
    When it fails:\n  \
    k3s-vm stop --force ends QEMU over its monitor, and by a kill where the monitor does not answer.")]
pub struct Args {
    /// Do not wait for the guest: end QEMU at once
    #[arg(long)]
    force: bool,
    /// How long the guest may take to power off, like 30s [default: 2m]
    #[arg(long, value_name = "DUR", conflicts_with = "force")]
    timeout: Option<Timeout>,
}

pub(super) async fn run(
    args: &Args,
    context: Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    require_machine(&context)?;
    let (machine, signals) = interrupt::opened(context, "stop").await?;
    let within = args.timeout.map(|timeout| timeout.0);
    let work = async { Ok(stop::stop(&machine, args.force, within).await?) };
    match interrupt::guarded(&machine, signals, work).await? {
        Ending::AlreadyStopped => tracing::info!("the machine is stopped already"),
        Ending::Orderly => tracing::info!("stopped"),
        Ending::Pulled if args.force => tracing::info!("stopped by force"),
        Ending::Pulled => {
            output.warning("stopped by force, for the guest did not power itself off")
        }
    }
    Ok(ExitCode::SUCCESS)
}
