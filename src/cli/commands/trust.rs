//! `trust`: approves a project of another user or host, or a config that was edited by hand.

use std::{io::IsTerminal, process::ExitCode};

use crate::{
    cli::{
        context::Context,
        error::{CommandError, code},
        interrupt,
        terminal::{
            confirm::{confirm, confirm_change, require_terminal},
            output::Output,
        },
    },
    machine::{Machine, MachineError},
    project::foreign,
};

/// The arguments of `trust`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm trust\n  \
    k3s-vm trust --yes              # for scripts\n\n\
    K3S_VM_TRUSTED_PATHS=/builds:/srv k3s-vm ... trusts all projects in these directories.")]
pub struct Args {
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
}

const QUESTION: &str = "Trust this project?";

pub(crate) async fn run(
    args: &Args,
    context: Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let findings = foreign::findings(&context.project).map_err(MachineError::from)?;
    if findings.is_empty() {
        tracing::info!("this project is trusted; nothing to do");
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes {
        require_terminal("whether to trust the project", "k3s-vm trust --yes")?;
    }
    print_findings(&context, &findings, output);
    if !args.yes && !confirm_change(QUESTION, output)? {
        return Ok(ExitCode::from(code::FAILURE));
    }
    let work =
        async |machine: &Machine| foreign::adopt(&machine.project).map_err(MachineError::from);
    interrupt::run_on_machine(context, "trust", work).await?;
    Ok(ExitCode::SUCCESS)
}

/// Asks once, on a terminal, about a project that is not trusted. After a no, the command gives its error.
pub(crate) fn ask_to_trust(context: &Context, output: &Output) -> Result<(), CommandError> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(());
    }
    // The command itself reports an unreadable file.
    let findings = foreign::findings(&context.project).unwrap_or_default();
    if findings.is_empty() {
        return Ok(());
    }
    print_findings(context, &findings, output);
    if confirm(QUESTION)? {
        foreign::adopt(&context.project).map_err(MachineError::from)?;
    }
    Ok(())
}

fn print_findings(context: &Context, findings: &[String], output: &Output) {
    let root = context.project.root().display();
    output.warning(&format!("the project {root} is not trusted yet. It"));
    for finding in findings {
        output.line(&format!("  - {finding}"));
    }
}
