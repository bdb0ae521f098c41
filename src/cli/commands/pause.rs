//! `pause`: stops the guest's CPUs.

use std::process::ExitCode;

use crate::{
    cli::{
        context::{Context, require_machine},
        error::CommandError,
        interrupt,
    },
    machine::lifecycle::power,
};

/// The arguments of `pause`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm pause\n  \
    k3s-vm resume")]
pub struct Args {}

pub(crate) async fn run(_: &Args, context: Context) -> Result<ExitCode, CommandError> {
    require_machine(&context)?;
    match interrupt::run_on_machine(context, "pause", power::pause).await? {
        true => tracing::info!("paused; to resume: k3s-vm resume"),
        false => tracing::info!("the VM is already paused"),
    }
    Ok(ExitCode::SUCCESS)
}
