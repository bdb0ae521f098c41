//! `configure`: saves changes, which take effect at the next start.

use std::{io::IsTerminal, process::ExitCode};

use crate::{
    cli::{
        choices::Choices,
        commands::restart,
        context::{Context, require_machine},
        error::{CommandError, code},
        interrupt,
        terminal::output::Output,
    },
    machine::{Machine, lifecycle},
    project::Config,
};

/// The arguments of `configure`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm configure --cpus 4 --memory 8GiB --restart\n  \
    k3s-vm configure --disk 40GiB          # grows at the next start\n  \
    k3s-vm configure --disable traefik --k3s-arg=--flannel-backend=host-gw\n  \
    k3s-vm configure --mount ./src:/src --restart\n  \
    k3s-vm configure --unset k3s.disable\n\n\
    When it fails:\n  \
    Nothing has changed. Image, firmware and identity are fixed for the life of a VM: k3s-vm reset && k3s-vm setup. \
    If the VM does not start with a new value: k3s-vm configure --unset KEY --restart")]
pub struct Args {
    #[command(flatten)]
    choices: Choices,
    /// Remove a key from the config, e.g. memory or k3s.args (repeatable)
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    unset: Vec<String>,
    /// Restart the VM at once if a change needs it
    #[arg(long)]
    restart: bool,
    /// Do not ask for a restart
    #[arg(long, conflicts_with = "restart")]
    no_restart: bool,
}

pub(crate) async fn run(
    args: Args,
    context: Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    require_machine(&context)?;
    let flags = args.choices.into_config(&context.project)?;
    if flags == Config::default() && args.unset.is_empty() {
        return Err(CommandError::new("there is nothing to change")
            .hint("name a setting, e.g. k3s-vm configure --memory 8GiB; all settings: k3s-vm configure --help")
            .with_code(code::USAGE));
    }
    let work = async |machine: &Machine| {
        lifecycle::configure::configure(machine, flags, &args.unset).await
    };
    let pending = interrupt::run_on_machine(context.clone(), "configure", work).await?;
    let saved = context.project.config();
    if pending.is_empty() {
        tracing::info!("saved to {}", saved.display());
        return Ok(ExitCode::SUCCESS);
    }
    tracing::info!("saved to {}; from the next start on:", saved.display());
    for choice in &pending {
        output.line(&format!("  {choice}"));
    }
    let may_ask = !args.no_restart && std::io::stdin().is_terminal();
    if args.restart
        || (may_ask && interrupt::run_until_signal(answer("Restart the VM now?")).await?)
    {
        return restart::run(restart::Args::default(), context, output).await;
    }
    tracing::info!("to restart it: k3s-vm restart");
    Ok(ExitCode::SUCCESS)
}

/// Reads the answer on the terminal. Signals are still received meanwhile.
async fn answer(question: &'static str) -> Result<bool, CommandError> {
    let (said, heard) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || said.send(crate::cli::terminal::confirm::confirm(question)));
    heard.await.unwrap_or(Ok(false))
}
