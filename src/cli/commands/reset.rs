//! `reset`: everything of the machine goes, with consent.

use std::{io::IsTerminal, process::ExitCode};

use crate::{
    cli::{
        context::Context,
        error::{CommandError, code},
        interrupt,
        output::Output,
    },
    machine,
    project::snapshot,
};

/// Stops the machine and deletes its disk, snapshots, keys, seed and kubeconfig. The config and the shared cache stay.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm reset\n  \
    k3s-vm reset --yes              # without asking, for scripts\n\n\
    When it fails:\n  \
    Run it again; what is deleted already does not matter. It works on a damaged machine, too.")]
pub struct Args {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn run(
    args: &Args,
    context: Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let directory = context.project.directory();
    if !directory.exists() {
        tracing::info!(
            "there is no machine in {}; nothing to do",
            context.project.root().display()
        );
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes && !ask(&context)? {
        output.line("nothing was changed");
        return Ok(ExitCode::from(code::FAILURE));
    }
    let (machine, signals) = interrupt::opened(context, "reset").await?;
    let work = async { Ok(machine::reset::reset(&machine).await?) };
    interrupt::guarded(&machine, signals, work).await?;
    let name = machine.new_name();
    if let Some(path) = machine::merge::where_merged(&machine.project, &name) {
        output.warning(&format!(
            "{} still has the machine's context; to take it out: k3s-vm kubeconfig --unmerge",
            path.display()
        ));
    }
    tracing::info!(
        "the machine is gone; {} and the shared cache are kept",
        machine.project.config().display()
    );
    Ok(ExitCode::SUCCESS)
}

fn ask(context: &Context) -> Result<bool, CommandError> {
    if !std::io::stdin().is_terminal() {
        return Err(CommandError::new(
            "reset deletes the machine with all that is in it, and there is no terminal to ask on",
        )
        .hint("to go ahead without asking: k3s-vm reset --yes")
        .with_code(code::USAGE));
    }
    let snapshots = match snapshot::list(&context.project).map_or(0, |all| all.len()) {
        0 => String::new(),
        1 => " and its snapshot".to_owned(),
        several => format!(" and its {several} snapshots"),
    };
    super::consent(&format!(
        "Delete the machine of {} with all that is in it{snapshots}?",
        context.project.root().display()
    ))
}
