//! What to do about an upgrade that failed.

use crate::{base::Label, k3s::step::StepError, machine::error::UpgradeError};

use super::downloads;

pub(crate) fn of_upgrade(error: &UpgradeError) -> Vec<String> {
    const LOG: &str = "what k3s says: k3s-vm logs k3s";
    let back = |name: &Label| {
        format!("bring it back as it was: k3s-vm snapshot restore {name} --yes --start")
    };
    match error {
        UpgradeError::Step(StepError::Older { .. }) => vec![
            "a snapshot of before brings an older one back, with the cluster of then: k3s-vm snapshot list".to_owned(),
            "or make the machine anew with it, which deletes all that is in it: k3s-vm reset && k3s-vm setup --k3s-version ...".to_owned(),
        ],
        UpgradeError::Step(StepError::TooFar { next, .. }) => {
            vec![format!("take the next one first: k3s-vm upgrade --channel {next}")]
        }
        UpgradeError::Step(StepError::Major { .. }) | UpgradeError::Unknown(_) => vec![
            "make a machine with it, which deletes all that is in this one: k3s-vm reset && k3s-vm setup --k3s-version ...".to_owned(),
        ],
        UpgradeError::Release(_) => vec!["they are on https://update.k3s.io/v1-release/channels; or name the release: k3s-vm upgrade --k3s-version ...".to_owned()],
        UpgradeError::Channel { source, .. } => {
            let mut hints = vec!["name the release: k3s-vm upgrade --k3s-version ...".to_owned()];
            hints.extend(downloads::of_image(source).into_iter().next());
            hints
        }
        UpgradeError::NotTaken { .. } => vec!["nothing was changed; take another mirror, or another release".to_owned()],
        UpgradeError::Unwell(_) => vec!["wait until it is, or see why not: k3s-vm start; k3s-vm logs k3s".to_owned()],
        UpgradeError::Undone { fell, .. } => {
            let lost = "nothing was lost but what the cluster was told meanwhile";
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
