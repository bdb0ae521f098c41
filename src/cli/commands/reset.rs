//! `reset`: deletes the VM, after a confirmation.

use std::process::ExitCode;

use crate::{
    base::Name,
    cli::{
        context::Context,
        error::{CommandError, code},
        interrupt,
        terminal::{
            confirm::{confirm_change, require_terminal},
            output::Output,
        },
    },
    machine::{Machine, MachineError, access, lifecycle},
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
    if !args.yes && !confirm_reset(&context, output)? {
        return Ok(ExitCode::from(code::FAILURE));
    }
    let project = context.project.clone();
    let work = async |machine: &Machine| {
        lifecycle::reset::reset(machine).await?;
        Ok::<Name, MachineError>(machine.new_name())
    };
    let name = interrupt::run_on_machine(context, "reset", work).await?;
    if let Some(path) = access::kubeconfig_merge::where_merged(&project, &name) {
        output.warning(&format!(
            "{} still has the VM's context; to remove it: k3s-vm kubeconfig --unmerge",
            path.display()
        ));
    }
    tracing::info!(
        "deleted the VM; {} and the shared cache are kept",
        project.config().display()
    );
    print_other_vms(&project);
    Ok(ExitCode::SUCCESS)
}

/// Says which additional VMs are kept.
fn print_other_vms(project: &Project) {
    if project.alias().is_some() {
        return;
    }
    for other in project.additional_machines() {
        if let Some(name) = other.alias() {
            tracing::info!("the VM {name} is kept; to delete it: k3s-vm --name {name} reset");
        }
    }
}

fn confirm_reset(context: &Context, output: &Output) -> Result<bool, CommandError> {
    require_terminal("before deleting the VM", "k3s-vm reset --yes")?;
    let snapshots = match snapshot::list(&context.project).map_or(0, |all| all.len()) {
        0 => String::new(),
        1 => " and its snapshot".to_owned(),
        several => format!(" and its {several} snapshots"),
    };
    let which = context.project.alias();
    let which = which.map_or_else(|| "the VM".to_owned(), |it| format!("the VM {it}"));
    let root = context.project.root().display();
    confirm_change(&format!("Delete {which} of {root}{snapshots}?"), output)
}
