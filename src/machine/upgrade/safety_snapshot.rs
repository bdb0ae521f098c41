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

/// A snapshot that goes with its upgrade, until there is something to go back from.
#[derive(Debug)]
pub(crate) struct SafetySnapshot<'a> {
    project: &'a Project,
    pub(crate) name: SnapshotName,
    stays: bool,
}

impl<'a> SafetySnapshot<'a> {
    /// Of the VM as it is before it gets `version`.
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
            stays: false,
        })
    }

    /// From now on the VM is another one than that.
    pub(crate) fn stays(&mut self) {
        self.stays = true;
    }

    /// The VM is again what it was.
    pub(crate) fn goes(&mut self) {
        self.stays = false;
    }
}

impl Drop for SafetySnapshot<'_> {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        if let Err(error) = delete::remove(self.project, std::slice::from_ref(&self.name)) {
            tracing::debug!(%error, "the snapshot {} stays", self.name);
        }
    }
}

/// The latest snapshot of before an upgrade to `version`.
pub(crate) fn latest(project: &Project, version: &Version) -> Option<SnapshotName> {
    names(version)
        .take_while(|it| snapshot::folder(project, it).exists())
        .last()
}

/// `before-v1.34.1-k3s1`, and with a number where that is taken.
fn names(version: &Version) -> impl Iterator<Item = SnapshotName> {
    let first = format!("before-{}", version.as_str().replace('+', "-"));
    let names = (1..).map(move |number| match number {
        1 => first.clone(),
        _ => format!("{first}-{number}"),
    });
    names.filter_map(|name: String| name.parse().ok())
}
