//! The snapshot for the rollback of an upgrade.

use crate::{
    base::SnapshotName,
    k3s::release::Version,
    machine::{
        Machine, MachineError,
        snapshots::{create, delete},
    },
    project::{Project, snapshot},
};

/// A snapshot that is deleted with the value, unless it is kept.
#[derive(Debug)]
pub(crate) struct SafetySnapshot<'a> {
    project: &'a Project,
    pub(crate) name: SnapshotName,
    is_kept: bool,
}

impl<'a> SafetySnapshot<'a> {
    /// Creates the snapshot of the VM before its upgrade to `version`.
    ///
    /// # Errors
    ///
    /// Those of [`create::create`].
    pub(crate) async fn create(
        machine: &'a Machine,
        version: &Version,
    ) -> Result<Self, MachineError> {
        let project = &machine.project;
        let is_free = |it: &SnapshotName| !snapshot::folder(project, it).exists();
        let name = names(version).find(is_free);
        let name = name.expect("there is always a larger number");
        Ok(Self {
            project,
            name: create::create(machine, Some(name)).await?,
            is_kept: false,
        })
    }

    /// Keeps the snapshot, since the VM changes from now on.
    pub(crate) fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Deletes the snapshot with the value, since the VM was rolled back to it.
    pub(crate) fn discard(&mut self) {
        self.is_kept = false;
    }
}

impl Drop for SafetySnapshot<'_> {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = delete::remove(self.project, std::slice::from_ref(&self.name)) {
            tracing::debug!(%error, "the snapshot {} is left", self.name);
        }
    }
}

/// The latest snapshot made before an upgrade to `version`.
pub(crate) fn latest(project: &Project, version: &Version) -> Option<SnapshotName> {
    names(version)
        .take_while(|it| snapshot::folder(project, it).exists())
        .last()
}

/// `before-v1.34.1-k3s1`, with a number where that name is in use.
fn names(version: &Version) -> impl Iterator<Item = SnapshotName> {
    let first = format!("before-{}", version.as_str().replace('+', "-"));
    let names = (1..).map(move |number| match number {
        1 => first.clone(),
        _ => format!("{first}-{number}"),
    });
    names.filter_map(|name: String| name.parse().ok())
}
