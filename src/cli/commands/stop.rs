//! `stop`: k3s down, then the machine; or the machine is suspended.

use std::process::ExitCode;

use crate::{
    cli::{
        context::{Context, require_machine},
        error::CommandError,
        interrupt,
        terminal::output::Output,
    },
    machine::lifecycle::stop::{self, Ending, Way},
    project::config::Timeout,
};

/// What `stop` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm stop\n  \
    k3s-vm stop --timeout 20s\n  \
    k3s-vm stop --suspend           # start goes on where the guest was\n  \
    k3s-vm stop --power-off         # where .k3s-vm/config says suspend = true\n  \
    k3s-vm stop --force             # at once, like pulling the plug\n\n\
    When it fails:\n  \
    A machine that cannot be suspended, for want of room on the disk above all, goes on.\n  \
    k3s-vm stop --force ends QEMU over its monitor, and by a kill where the monitor does not answer.")]
pub struct Args {
    /// Do not wait for the guest: end QEMU at once
    #[arg(long)]
    force: bool,
    /// Keep the guest's memory, which takes as much room as the guest has touched of it
    #[arg(long, conflicts_with_all = ["force", "power_off", "timeout"])]
    suspend: bool,
    /// Power the guest off whatever the config says; gives up the memory of a machine that is suspended
    #[arg(long, conflicts_with = "force")]
    power_off: bool,
    /// How long the guest may take to power off, like 30s [default: 2m]
    #[arg(long, value_name = "DUR", conflicts_with = "force")]
    timeout: Option<Timeout>,
}

impl Args {
    fn way(&self) -> Way {
        match (self.force, self.suspend, self.power_off) {
            (true, _, _) => Way::Force,
            (_, true, _) => Way::Suspend,
            (_, _, true) => Way::PowerOff,
            _ => Way::Usual,
        }
    }
}

pub(crate) async fn run(
    args: &Args,
    context: Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    require_machine(&context)?;
    let (machine, signals) = interrupt::opened(context, "stop").await?;
    let within = args.timeout.map(|timeout| timeout.0);
    let work = async { Ok(stop::stop(&machine, args.way(), within).await?) };
    match interrupt::guarded(&machine, signals, work).await? {
        Ending::AlreadyStopped => tracing::info!("the machine is stopped already"),
        Ending::AlreadySuspended => tracing::info!("the machine is suspended already"),
        Ending::MemoryGivenUp => tracing::info!("its memory is given up; the next start boots it"),
        Ending::Suspended => tracing::info!("suspended; `k3s-vm start` has it go on"),
        Ending::Orderly => tracing::info!("stopped"),
        Ending::Pulled if args.force => tracing::info!("stopped by force"),
        Ending::Pulled => {
            output.warning("stopped by force, for the guest did not power itself off")
        }
    }
    Ok(ExitCode::SUCCESS)
}
