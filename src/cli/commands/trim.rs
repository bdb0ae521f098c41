//! `trim`: returns disk space that the guest has freed.

use std::process::ExitCode;

use crate::{
    base::Size,
    cli::{
        context::{Context, require_machine},
        error::CommandError,
        interrupt,
    },
    machine::lifecycle::trim,
};

/// The arguments of `trim`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm trim\n  \
    k3s-vm ssh k3s crictl rmi --prune && k3s-vm trim   # unused images first\n\n\
    When it fails:\n  \
    The VM must be running. A snapshot keeps the blocks that are in it: k3s-vm snapshot list")]
pub struct Args {}

pub(crate) async fn run(_: &Args, context: Context) -> Result<ExitCode, CommandError> {
    require_machine(&context)?;
    let trimmed = interrupt::run_on_machine(context, "trim", trim::trim).await?;
    let (before, after) = (trimmed.before, trimmed.after);
    if after < before {
        let less = Size::bytes(before.as_bytes() - after.as_bytes());
        tracing::info!(
            "reclaimed {}: the disk uses {} instead of {}",
            less.approximate(),
            after.approximate(),
            before.approximate()
        );
    } else {
        tracing::info!("nothing to reclaim: the disk uses {}", after.approximate());
    }
    Ok(ExitCode::SUCCESS)
}
