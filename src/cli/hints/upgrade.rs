//! Hints about a failed upgrade.

use crate::{
    base::SnapshotName, k3s::version_skew::VersionSkewError, machine::error::UpgradeError,
};

use super::downloads;

pub(crate) fn of_upgrade(error: &UpgradeError) -> Vec<String> {
    const LOG: &str = "see k3s's log: k3s-vm logs k3s";
    let back =
        |name: &SnapshotName| format!("roll back: k3s-vm snapshot restore {name} --yes --start");
    match error {
        UpgradeError::Step(VersionSkewError::Older { .. }) => vec![
            "restore a snapshot with the older k3s: k3s-vm snapshot list".to_owned(),
            "or recreate the VM, which deletes everything in it: k3s-vm reset && k3s-vm setup --k3s-version ...".to_owned(),
        ],
        UpgradeError::Step(VersionSkewError::TooFar { next, .. }) => {
            vec![format!("upgrade to the next minor version first: k3s-vm upgrade --channel {next}")]
        }
        UpgradeError::Step(VersionSkewError::Major { .. }) | UpgradeError::Unknown(_) => vec![
            "recreate the VM, which deletes everything in it: k3s-vm reset && k3s-vm setup --k3s-version ...".to_owned(),
        ],
        UpgradeError::Release(_) => vec!["they are on https://update.k3s.io/v1-release/channels; or name the release: k3s-vm upgrade --k3s-version ...".to_owned()],
        UpgradeError::Channel { source, .. } => {
            let mut hints = vec!["name the release: k3s-vm upgrade --k3s-version ...".to_owned()];
            hints.extend(downloads::of_image(source).into_iter().next());
            hints
        }
        UpgradeError::NotTaken { .. } => vec!["nothing was changed; use another mirror or another release".to_owned()],
        UpgradeError::AnotherAnswers(_) => vec![LOG.to_owned()],
        UpgradeError::Unwell(_) => vec!["wait until it is Ready, or see why not: k3s-vm start; k3s-vm logs k3s".to_owned()],
        UpgradeError::Undone { fell, .. } => {
            let lost = "changes made to the cluster since the upgrade began are lost";
            let more = fell.late.then_some("more time: k3s-vm upgrade --timeout 20m");
            [Some(lost), more].into_iter().flatten().map(str::to_owned).collect()
        }
        UpgradeError::NotUndone { snapshot, .. } => vec![back(snapshot), LOG.to_owned()],
        UpgradeError::Stuck { snapshot, .. } => {
            let mut hints = vec![LOG.to_owned()];
            hints.extend(snapshot.as_ref().map(back));
            hints
        }
    }
}
