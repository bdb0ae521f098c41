//! What to do about snapshots.

use crate::{cli::hints::text, machine::MachineError};

use super::mounts;

pub(crate) fn of(error: &MachineError) -> Vec<String> {
    let one = |hint: &str| vec![hint.to_owned()];
    match error {
        MachineError::NothingToKeep(_) => one("finish it: k3s-vm setup"),
        MachineError::Snapshot(reason) => mounts::of_memory(reason, "the machine goes on; to keep its disk alone: k3s-vm stop --power-off && k3s-vm snapshot create"),
        MachineError::SnapshotSpace { path, .. } => vec![
            text::make_room(path),
            "or remove a snapshot that is not needed any more: k3s-vm snapshot list; k3s-vm snapshot delete NAME".to_owned(),
        ],
        MachineError::SnapshotExists(name) => vec![format!("take another name, or remove that one: k3s-vm snapshot delete {name}")],
        MachineError::NoSnapshot(_) => one("see which there are: k3s-vm snapshot list"),
        MachineError::DamagedSnapshot { name, .. } | MachineError::ForeignSnapshot(name) => {
            vec![format!("nothing was changed; remove it, for it is of no use: k3s-vm snapshot delete {name}")]
        }
        _ => Vec::new(),
    }
}
