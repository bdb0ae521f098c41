//! `snapshot delete`: a partly deleted snapshot is never visible under its name.

use std::{fs, path::PathBuf};

use crate::{
    base::{FileError, SnapshotName, files},
    machine::{
        Machine, MachineError,
        model::staging_dir::{self},
        recover::{interrupted, unfinished_snapshot::GONE},
    },
    project::{
        Project,
        snapshot::{self},
    },
};

/// Deletes the snapshots; none, if one of them does not exist.
///
/// # Errors
///
/// [`MachineError::NoSnapshot`], or when one cannot be removed.
pub async fn delete(machine: &Machine, names: &[SnapshotName]) -> Result<(), MachineError> {
    interrupted::recover_interrupted(machine).await?;
    remove(&machine.project, names)
}

/// Deletes the snapshots and all remains.
///
/// # Errors
///
/// Those of [`delete`].
pub(crate) fn remove(project: &Project, names: &[SnapshotName]) -> Result<(), MachineError> {
    let folders: Vec<PathBuf> = names
        .iter()
        .map(|name| snapshot::folder(project, name))
        .collect();
    if let Some(missing) = folders.iter().position(|it| !it.exists()) {
        return Err(MachineError::NoSnapshot(names[missing].clone()));
    }
    let gone = project.snapshots().join(GONE);
    for folder in folders {
        staging_dir::remove(&gone)?;
        // Renamed first: a partly deleted snapshot must not have a name.
        match fs::rename(&folder, &gone) {
            // Named twice.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            renamed => renamed.map_err(FileError::on("remove", &folder))?,
        }
        files::sync_directory(&project.snapshots())?;
        staging_dir::remove(&gone)?;
    }
    Ok(())
}
