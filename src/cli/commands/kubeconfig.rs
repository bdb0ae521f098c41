//! `kubeconfig`: prints the kubeconfig, merges it into the user's own, and removes it from there.

use std::process::ExitCode;

use crate::{
    base::Name,
    cli::{
        context::{Context, chosen_name},
        error::CommandError,
        interrupt::Signals,
        terminal::output::Output,
    },
    machine::{
        MachineError, State,
        access::{
            kubeconfig,
            kubeconfig_merge::{self, Outcome},
        },
    },
};

/// One of four actions; without a flag, the path is printed.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").multiple(false))]
#[command(after_help = "Examples:\n  \
    export KUBECONFIG=\"$(k3s-vm kubeconfig)\"\n  \
    k3s-vm kubeconfig --print | ssh build 'cat > shop.yaml'\n  \
    k3s-vm kubeconfig --merge       # then: kubectl --context NAME get nodes\n  \
    k3s-vm kubeconfig --unmerge     # also after a reset\n\n\
    When it fails:\n  \
    `k3s-vm start` writes the VM's kubeconfig again. An entry of another program with the same name is never replaced, \
    and a file in flow style is not changed. Backups are called config.k3s-vm-backup-TIME.")]
pub struct Args {
    /// Print the path (default)
    #[arg(long, group = "what")]
    path: bool,
    /// Print the kubeconfig, with its key
    #[arg(long, group = "what")]
    print: bool,
    /// Add the VM to your own kubeconfig
    #[arg(long, group = "what")]
    merge: bool,
    /// Remove the VM from your own kubeconfig
    #[arg(long, group = "what")]
    unmerge: bool,
}

pub(crate) async fn run(
    args: &Args,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let state = State::observe(&context.project)?;
    let Some(record) = state.record() else {
        // Entries of a deleted VM can still be removed.
        if args.unmerge {
            let name = chosen_name()?;
            let name = name.unwrap_or_else(|| context.project.machine_name());
            return unmerge(&name, context, output).await;
        }
        return Err(MachineError::absent(&context.project).into());
    };
    if args.unmerge {
        return unmerge(&record.name, context, output).await;
    }
    let kubeconfig = kubeconfig::of(record)?;
    if args.merge {
        let mut signals = Signals::listen()?;
        let work = async { Ok(kubeconfig_merge::merge(&context.project, record).await?) };
        let outcome = signals.unless_one_comes(work).await?;
        print_outcome(&outcome, output);
        tracing::info!("try: kubectl --context {} get nodes", record.name);
    } else if args.print {
        let yaml = kubeconfig.to_yaml().map_err(|error| {
            CommandError::new("cannot write the kubeconfig as YAML").because(&error)
        })?;
        output.data(&yaml);
    } else {
        output.data(&format!("{}\n", record.kubeconfig.display()));
    }
    Ok(ExitCode::SUCCESS)
}

async fn unmerge(
    name: &Name,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let mut signals = Signals::listen()?;
    let work = async { Ok(kubeconfig_merge::unmerge(&context.project, name).await?) };
    print_outcome(&signals.unless_one_comes(work).await?, output);
    Ok(ExitCode::SUCCESS)
}

/// Prints the result on stderr, and the path of the user's kubeconfig on stdout.
fn print_outcome(outcome: &Outcome, output: &Output) {
    let path = outcome.path.display();
    if !outcome.changed {
        tracing::info!("{path} is up to date");
    } else {
        if let Some(backup) = &outcome.backup {
            tracing::info!("backup: {}", backup.display());
        }
        let names = outcome.names.join(", ");
        match &outcome.current {
            _ if outcome.unset => {
                output.warning(&format!(
                    "{names} was the current context; there is none now: kubectl config use-context NAME"
                ));
            }
            Some(current) => {
                tracing::info!("{path} is written; its current context is still {current}")
            }
            None => tracing::info!("{path} is written; it has no current context, as before"),
        }
    }
    output.data(&format!("{path}\n"));
}
