//! `restart`: stop, then start.

use std::process::ExitCode;

use crate::{
    cli::{
        commands::setup,
        context::{Context, require_machine},
        error::CommandError,
        interrupt,
        terminal::output::Output,
    },
    machine::lifecycle::power,
    project::{Config, config::Timeout},
};

/// What `restart` takes.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm restart\n  \
    k3s-vm restart --force          # a guest that hangs: pull the plug, and boot\n\n\
    When it fails:\n  \
    Nothing is lost: `k3s-vm start` goes on where it ended. `k3s-vm logs console` shows the boot.\n  \
    A suspended machine is not restarted, for its memory would be lost: `k3s-vm resume` has it go on,\n  \
    and `k3s-vm stop --power-off && k3s-vm start` boots it.")]
pub struct Args {
    /// Do not wait for the guest to power off: end QEMU at once
    #[arg(long)]
    force: bool,
    /// How long the guest may take to power off, and then the node to be Ready, like 5m [default: 2m, and 5m with KVM or
    /// 30m without]
    #[arg(long, value_name = "DUR")]
    timeout: Option<Timeout>,
    /// Show where the time of the start went
    #[arg(long)]
    timings: bool,
}

pub(crate) async fn run(
    args: Args,
    context: Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    require_machine(&context)?;
    let (machine, signals) = interrupt::opened(context, "restart").await?;
    let within = args.timeout.map(|timeout| timeout.0);
    let config = Config {
        timeout: args.timeout,
        ..Config::default()
    };
    let work = async { Ok(power::restart(&machine, args.force, within, config).await?) };
    let summary = interrupt::guarded(&machine, signals, work).await?;
    setup::tell(&summary, args.timings, output);
    Ok(ExitCode::SUCCESS)
}
