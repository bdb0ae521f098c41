//! `resume`: continues a paused or suspended VM.

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

/// The arguments of `resume`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm pause; k3s-vm resume\n  \
    k3s-vm stop --suspend; k3s-vm resume\n\n\
    When it fails:\n  \
    A stopped VM cannot be resumed: run `k3s-vm start`. `k3s-vm logs k3s` shows why a node is not Ready.")]
pub struct Args {
    /// Limit until the node is Ready, e.g. 5m [default: 5m with KVM, 30m without]
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Timeout>,
}

pub(crate) async fn run(
    args: Args,
    context: Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let config = Config {
        timeout: args.timeout,
        ..Config::default()
    };
    require_machine(&context)?;
    let work = async |machine: &Machine| power::resume(machine, config).await;
    let summary = interrupt::run_on_machine(context, "resume", work).await?;
    setup::print_summary(&summary, false, output);
    Ok(ExitCode::SUCCESS)
}
