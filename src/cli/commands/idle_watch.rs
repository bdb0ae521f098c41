//! `idle-watch`: the background process that suspends an idle VM. Not for users.

use std::{process::ExitCode, time::Duration};

use crate::{
    cli::{context::Context, error::CommandError, interrupt},
    machine::{Machine, lifecycle::idle::Watch},
};

/// Started by setup, start and resume; it ends with QEMU.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm start --idle-suspend 30m   # runs it in the background")]
pub struct Args {}

pub(crate) async fn run(_: &Args, context: &Context) -> Result<ExitCode, CommandError> {
    let Some(mut watch) = Watch::start(&context.project).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    while let Some(after) = watch.until_idle().await {
        match suspend(&mut watch, context.clone(), after).await {
            Ok(()) => {}
            // A signal ends the watch.
            Err(error) if error.is_interruption() => return Err(error),
            Err(error) => tracing::warn!("{}", error.message),
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn suspend(watch: &mut Watch, context: Context, after: Duration) -> Result<(), CommandError> {
    let work = async |machine: &Machine| watch.suspend(machine, after).await;
    interrupt::run_on_machine(context, "idle-watch", work).await
}
