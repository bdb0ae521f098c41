//! Runs the module of each command.

use std::process::ExitCode;

use crate::{
    cli::{
        args::{self, Cli, Command},
        commands::{
            autostart, cache, completions, configure, cp, doctor, env, help, idle_watch, image,
            kubeconfig, list, logs, man, pause, port, reset, restart, resume, setup, snapshot, ssh,
            ssh_config, start, status, stop, tool, trim, trust, upgrade,
        },
        context::Context,
        error::CommandError,
        terminal::output::Output,
    },
    k3s::tools::Tool,
    project::idle,
};

/// Runs the command.
pub(crate) async fn run(cli: Cli, output: &Output) -> Result<ExitCode, CommandError> {
    if let Command::Completions(args) = &cli.command {
        return Ok(completions::run(args, output));
    }
    if let Command::Man(man) = &cli.command {
        return man::run(man, args::command(), output);
    }
    if let Command::Help(help) = &cli.command {
        return help::run(help, args::command(), output);
    }
    let context = Context::new(&cli.global)?;
    if cli.command.is_use() {
        idle::touch(&context.project);
    }
    if cli.command.needs_trust() {
        trust::ask_to_trust(&context, output)?;
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
        Command::Trust(args) => trust::run(&args, context, output).await,
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
        Command::Completions(_) | Command::Man(_) | Command::Help(_) => {
            unreachable!("handled above")
        }
    }
}
