//! `reset`: deletes the VM, after a confirmation.

use std::{io::IsTerminal, process::ExitCode};

use crate::{
    cli::{
        context::Context,
        error::{CommandError, code},
        interrupt,
        terminal::output::Output,
    },
    machine::{MachineError, access, lifecycle},
    project::{Project, snapshot},
};

/// The arguments of `reset`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm reset\n  \
    k3s-vm reset --yes              # for scripts\n\n\
    When it fails:\n  \
    Run it again. It works on a damaged VM and on one that is half deleted.")]
pub struct Args {
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
}

pub(crate) async fn run(
    args: &Args,
    context: Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let directory = context.project.directory();
    if !directory.exists() {
        let none = MachineError::absent(&context.project);
        tracing::info!("{none}; nothing to do");
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes && !confirm_reset(&context)? {
        output.line("nothing was changed");
        return Ok(ExitCode::from(code::FAILURE));
    }
    let (machine, signals) = interrupt::open_machine(context, "reset").await?;
    let work = async { Ok(lifecycle::reset::reset(&machine).await?) };
    interrupt::run_on_machine(&machine, signals, work).await?;
    let name = machine.new_name();
    if let Some(path) = access::kubeconfig_merge::where_merged(&machine.project, &name) {
        output.warning(&format!(
            "{} still has the VM's context; to remove it: k3s-vm kubeconfig --unmerge",
            path.display()
        ));
    }
    tracing::info!(
        "deleted the VM; {} and the shared cache are kept",
        machine.project.config().display()
    );
    print_other_vms(&machine.project);
    Ok(ExitCode::SUCCESS)
}

/// Says which additional VMs are kept.
fn print_other_vms(project: &Project) {
    if project.alias().is_some() {
        return;
    }
    for other in project.further_machines() {
        if let Some(name) = other.alias() {
            tracing::info!("the VM {name} is kept; to delete it: k3s-vm --name {name} reset");
        }
    }
}

fn confirm_reset(context: &Context) -> Result<bool, CommandError> {
    if !std::io::stdin().is_terminal() {
        return Err(CommandError::new(
            "cannot ask before deleting the VM: stdin is not a terminal",
        )
        .hint("to go ahead without asking: k3s-vm reset --yes")
        .with_code(code::USAGE));
    }
    let snapshots = match snapshot::list(&context.project).map_or(0, |all| all.len()) {
        0 => String::new(),
        1 => " and its snapshot".to_owned(),
        several => format!(" and its {several} snapshots"),
    };
    let which = context.project.alias();
    let which = which.map_or_else(|| "the VM".to_owned(), |it| format!("the VM {it}"));
    crate::cli::terminal::confirm::confirm(&format!(
        "Delete {which} of {} with all that is in it{snapshots}?",
        context.project.root().display()
    ))
}
