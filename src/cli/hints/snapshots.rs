//! Hints about snapshots.

use crate::{cli::hints::text, machine::MachineError};

use super::mounts;

pub(crate) fn of(error: &MachineError) -> Vec<String> {
    let one = |hint: &str| vec![hint.to_owned()];
    match error {
        MachineError::NothingToSnapshot(_) => one("complete it: k3s-vm setup"),
        MachineError::Snapshot(reason) => mounts::of_memory(
            reason,
            "to snapshot its disk only: k3s-vm stop --power-off && k3s-vm snapshot create",
        ),
        MachineError::SnapshotSpace { path, .. } => vec![
            text::make_room(path),
            "or delete a snapshot: k3s-vm snapshot list; k3s-vm snapshot delete NAME".to_owned(),
        ],
        MachineError::SnapshotExists(name) => vec![format!(
            "use another name, or delete it: k3s-vm snapshot delete {name}"
        )],
        MachineError::NoSnapshot(_) => one("list them: k3s-vm snapshot list"),
        MachineError::DamagedSnapshot { name, .. } | MachineError::ForeignSnapshot(name) => {
            vec![format!(
                "nothing was changed; delete it: k3s-vm snapshot delete {name}"
            )]
        }
        _ => Vec::new(),
    }
}
