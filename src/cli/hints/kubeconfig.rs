//! Hints about kubeconfigs.

use std::path::Path;

use crate::{cli::hints::text, k3s::MergeError, machine::MachineError, project::Project};

pub(crate) fn of(error: &MachineError) -> Vec<String> {
    let one = |hint: &str| vec![hint.to_owned()];
    match error {
        MachineError::ForeignKubeconfig { path, .. } => vec![
            format!("move it: {}", text::move_away(path)),
            "or write the kubeconfig elsewhere: --kubeconfig PATH".to_owned(),
        ],
        MachineError::KubeconfigOfAnother { .. } => {
            one("use another path: k3s-vm setup --kubeconfig PATH")
        }
        MachineError::OwnKubeconfig(_) => {
            one("work in a project directory, or name another file: --kubeconfig PATH")
        }
        MachineError::Kubeconfig { .. } | MachineError::Api(_) => {
            one("write a new kubeconfig: k3s-vm setup")
        }
        MachineError::KubeconfigLocked { path, .. } => vec![
            "wait until it ends, then run the same command again".to_owned(),
            format!(
                "if no program is using it, remove the lock: rm -f {}",
                text::word(&path.display())
            ),
        ],
        MachineError::Merge {
            source: MergeError::NotOurs { what, name },
            ..
        } => {
            vec![format!(
                "rename it, or remove it: kubectl config delete-{what} {name}"
            )]
        }
        MachineError::Merge { path, .. } | MachineError::DanglingLink(path) => vec![format!(
            "use both files instead: export KUBECONFIG={}:\"$(k3s-vm kubeconfig)\"",
            text::word(&path.display())
        )],
        MachineError::MergedByAnother { project, .. } => {
            vec![format!(
                "remove them first: k3s-vm {} kubeconfig --unmerge",
                of_machine(project)
            )]
        }
        _ => Vec::new(),
    }
}

/// The arguments that select the VM of that place.
fn of_machine(place: &Path) -> String {
    let project = Project::at_place(place);
    let alias = project.alias();
    let name = alias.map_or_else(String::new, |it| format!(" --name {it}"));
    format!("-C {}{name}", text::word(&project.root().display()))
}
