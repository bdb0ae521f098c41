//! One file a verb: its arguments and a `run` that calls the machine and tells the terminal.

mod all_logs;
pub mod autostart;
mod bundle;
pub mod cache;
mod carry;
pub mod completions;
pub mod configure;
pub mod cp;
pub mod doctor;
pub mod env;
pub mod idle_watch;
pub mod image;
pub mod kubeconfig;
pub mod list;
pub mod logs;
pub mod man;
pub mod pause;
pub mod port;
pub mod reset;
pub mod restart;
pub mod resume;
pub mod setup;
pub mod snapshot;
pub mod ssh;
pub mod ssh_config;
pub mod start;
pub mod status;
pub mod stop;
pub mod tool;
pub mod trim;
pub mod upgrade;

use std::{io::Write, process::ExitCode};

use super::{
    args::{Cli, Command},
    context::Context,
    error::CommandError,
    output::Output,
};
use crate::{cluster::tools::Tool, project::idle};

/// Runs the verb.
pub(super) async fn run(cli: Cli, output: &Output) -> Result<ExitCode, CommandError> {
    if let Command::Completions(args) = &cli.command {
        return Ok(completions::run(args, output));
    }
    if let Command::Man(args) = &cli.command {
        return man::run(args, output);
    }
    let context = Context::new(&cli.global)?;
    if cli.command.is_use() {
        idle::touch(&context.project);
    }
    match cli.command {
        Command::Setup(args) => setup::run(*args, context, output).await,
        Command::Start(args) => start::run(args, context, output).await,
        Command::Stop(args) => stop::run(&args, context, output).await,
        Command::Configure(args) => configure::run(*args, context, output).await,
        Command::Restart(args) => restart::run(args, context, output).await,
        Command::Pause(args) => pause::run(&args, context).await,
        Command::Resume(args) => resume::run(args, context, output).await,
        Command::Status(args) => status::run(&args, cli.global.verbose, &context, output).await,
        Command::Reset(args) => reset::run(&args, context, output).await,
        Command::Snapshot(args) => snapshot::run(args, context, output).await,
        Command::Trim(args) => trim::run(&args, context).await,
        Command::Upgrade(args) => upgrade::run(args, context, output).await,
        Command::Kubectl(args) => tool::run(Tool::Kubectl, &args, &context).await,
        Command::K9s(args) => tool::run(Tool::K9s, &args, &context).await,
        Command::Doctor(args) => doctor::run(&args, &context, output).await,
        Command::Cache(args) => cache::run(args, &context, output).await,
        Command::Port(args) => port::run(args, context, output).await,
        Command::Image(args) => image::run(&args, &context, output).await,
        Command::Ssh(args) => ssh::run(&args, &context, output).await,
        Command::SshConfig(args) => ssh_config::run(&args, &context, output).await,
        Command::Cp(args) => cp::run(&args, &context, output).await,
        Command::Logs(args) => logs::run(&args, &context, output).await,
        Command::Kubeconfig(args) => kubeconfig::run(&args, &context, output).await,
        Command::Env(args) => env::run(&args, &context, output),
        Command::Autostart(args) => autostart::run(&args, &context, output),
        Command::IdleWatch(args) => idle_watch::run(&args, &context).await,
        Command::List(args) => list::run(&args, &context, output).await,
        Command::Completions(_) | Command::Man(_) => unreachable!("handled above"),
    }
}

/// What the person at the terminal says to that.
fn consent(question: &str) -> Result<bool, CommandError> {
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "{question} [y/N] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| CommandError::new("cannot read the answer").because(&error))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
