//! `snapshot restore`: replaces the VM by its snapshot.
//!
//! The new files are first completed beside the VM's, in a directory. Once that directory has its final name, the VM is
//! the one in the directory: whatever is killed from then on, the next command moves the rest. Before that, the VM is
//! unchanged.

use std::{fs, path::Path};

use crate::{
    base::{
        FileError, SnapshotName,
        files::{self, free_space},
    },
    machine::{
        Machine, MachineError, State,
        control::terminate,
        model::staging_dir::{self, Draft, room_for_copy},
        recover::{interrupted, replacement},
    },
    project::{
        Project, Record, Snapshot, Suspended,
        snapshot::{self, Content},
        suspended::FileStamp,
    },
};

/// The snapshot, if it can replace this VM.
///
/// # Errors
///
/// When the snapshot is missing, damaged or of another VM.
pub fn usable(project: &Project, name: &SnapshotName) -> Result<Snapshot, MachineError> {
    let record = State::observe(project)?.record().cloned();
    let record = record.ok_or_else(|| MachineError::absent(project))?;
    let folder = snapshot::folder(project, name);
    if !folder.exists() {
        return Err(MachineError::NoSnapshot(name.clone()));
    }
    let found = Snapshot::load(&folder).map_err(|reason| damaged(name, reason))?;
    if found.uuid != record.uuid {
        return Err(MachineError::ForeignSnapshot(name.clone()));
    }
    Ok(found)
}

fn damaged(name: &SnapshotName, reason: impl Into<String>) -> MachineError {
    MachineError::DamagedSnapshot {
        name: name.clone(),
        reason: reason.into(),
    }
}

/// Replaces the VM by the snapshot; it is stopped or suspended then. Returns `true` if it ran before. Later changes are
/// lost.
///
/// # Errors
///
/// Those of [`usable`], and when a file cannot be written; the VM is unchanged then.
pub async fn restore(machine: &Machine, name: &SnapshotName) -> Result<bool, MachineError> {
    let project = &machine.project;
    let state = interrupted::recover_interrupted(machine).await?;
    let snapshot = usable(project, name)?;
    let draft = Draft::create(replacement::draft_of(project))?;
    let folder = snapshot::folder(project, name);
    copy_disks(project, name, &snapshot, &folder, &draft).await?;
    prepare_memory(project, &snapshot, &folder, &draft).await?;
    let running = match state {
        State::Absent => return Err(MachineError::absent(project)),
        State::Stopped(record) => {
            note_record(project, record, &snapshot, &draft)?;
            false
        }
        State::Running(record, process) => {
            note_record(project, record, &snapshot, &draft)?;
            tracing::info!("stopping the VM");
            terminate::end(project, &process).await?;
            true
        }
    };
    terminate::clear(project)?;
    // Reports of the former guest do not count against the one that resumes.
    files::open_in_place(&project.stages_log(), true)?;
    draft.finish(&project.restoring())?;
    replacement::put_in_place(project)?;
    Ok(running)
}

/// The copy is verified, since the disk that it replaces is deleted.
async fn copy_disks(
    project: &Project,
    name: &SnapshotName,
    snapshot: &Snapshot,
    folder: &Path,
    draft: &Draft,
) -> Result<(), MachineError> {
    let [disk, uefi, settings] = [
        project.disk(),
        project.uefi_variables(),
        project.config_archive(),
    ]
    .map(|path| {
        (
            staging_dir::name_of(&path),
            folder.join(staging_dir::name_of(&path)),
        )
    });
    if !disk.1.exists() {
        return Err(damaged(name, format!("{} is missing", disk.1.display())));
    }
    let needed = room_for_copy(&disk.1, draft.path())?;
    let free = free_space(draft.path())?.bytes;
    if free < needed {
        return Err(MachineError::SnapshotSpace {
            path: draft.path().to_owned(),
            free,
            needed,
        });
    }
    tracing::info!(
        "copying the disk ({})",
        files::allocated(&disk.1).approximate()
    );
    for (name, path) in [&disk, &uefi, &settings] {
        if path.exists() {
            staging_dir::copy(path.clone(), draft.join(name)).await?;
        }
    }
    let (length, checksum) = staging_dir::flushed(draft.join(&disk.0)).await?;
    if (Content { length, checksum }) != snapshot.disk {
        let reason = format!("{} has changed since", disk.1.display());
        return Err(damaged(name, reason));
    }
    Ok(())
}

/// The memory, if any, belongs to the disk that was just copied.
async fn prepare_memory(
    project: &Project,
    snapshot: &Snapshot,
    folder: &Path,
    draft: &Draft,
) -> Result<(), MachineError> {
    let Some(memory) = snapshot.memory.clone() else {
        return Ok(());
    };
    let name = staging_dir::name_of(&project.memory());
    let path = folder.join(&name);
    if fs::metadata(&path).map(|it| it.len()).ok() != Some(memory.length) {
        tracing::warn!("the next start boots: {} has changed", path.display());
        return Ok(());
    }
    staging_dir::link(path, draft.join(&name)).await?;
    let suspended = Suspended {
        schema: Suspended::schema(),
        since: snapshot.created,
        disk: FileStamp::of(&draft.join(staging_dir::name_of(&project.disk())))?,
        memory,
        from: None,
    };
    let note = draft.join(staging_dir::name_of(&project.suspended()));
    Ok(suspended.save_as(&note)?)
}

/// The record, and the config with it, if the snapshot's disk has another release or size.
fn note_record(
    project: &Project,
    now: Record,
    snapshot: &Snapshot,
    draft: &Draft,
) -> Result<(), FileError> {
    let then = Record {
        disk: snapshot.size,
        image: snapshot.image.clone(),
        release: snapshot.release.clone(),
        ..now.clone()
    };
    if then == now {
        return Ok(());
    }
    replacement::note_config(project, &then, draft)?;
    then.save_as(
        &draft.join(staging_dir::name_of(&project.record())),
        project,
    )
}
