//! `snapshot restore`: the machine is again what it was. And what an upgrade makes of its record and its config, which are to
//! agree at any time.
//!
//! What is to be put in its place is first made whole beside it, in a folder. When that folder has its name, the machine is
//! the one that is in it: whatever dies from then on, the next command moves the rest of it. Before that, the machine is the
//! one that it was.

use std::{
    ffi::OsString,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{
    Machine, MachineError, State,
    draft::{self, Draft},
    snapshot::room_for_copy,
    stop, suspend,
};
use crate::{
    base::{
        FileError, Label,
        files::{self, PRIVATE, free_space},
    },
    cluster::release::Version,
    project::{
        Config, Project, Record, Snapshot, Suspended,
        snapshot::{self, Content},
        suspended::Stamp,
    },
};

/// The name that a file of the machine has in another folder as well.
pub(super) fn name_of(path: &Path) -> OsString {
    path.file_name().unwrap_or_default().to_owned()
}

/// The snapshot, if it can be put in the place of this machine.
///
/// # Errors
///
/// When there is none, or it is damaged or of another machine.
pub fn usable(project: &Project, name: &Label) -> Result<Snapshot, MachineError> {
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

fn damaged(name: &Label, reason: impl Into<String>) -> MachineError {
    MachineError::DamagedSnapshot {
        name: name.clone(),
        reason: reason.into(),
    }
}

/// Puts the snapshot in the machine's place, which is stopped or suspended then; whether it ran before. What it was is lost.
///
/// # Errors
///
/// Those of [`usable`], and when something cannot be written; it is what it was then.
pub async fn restore(machine: &Machine, name: &Label) -> Result<bool, MachineError> {
    let project = &machine.project;
    let state = suspend::settled(machine).await?;
    let snapshot = usable(project, name)?;
    let draft = Draft::begin(draft_of(project))?;
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
            tracing::info!("ending the machine as it was");
            stop::end(project, &process).await?;
            true
        }
    };
    stop::clear(project)?;
    // What the guest of before has reported does not speak against the one that goes on.
    files::open_in_place(&project.stages_log(), true)?;
    draft.finish(&project.restoring())?;
    put_in_place(project)?;
    Ok(running)
}

fn draft_of(project: &Project) -> PathBuf {
    project.restoring().with_extension("new")
}

/// The disk as it was is verified on its way, for what it replaces is lost.
async fn copy_disks(
    project: &Project,
    name: &Label,
    snapshot: &Snapshot,
    folder: &Path,
    draft: &Draft,
) -> Result<(), MachineError> {
    let [disk, uefi, settings] = [project.disk(), project.uefi_variables(), project.settings()]
        .map(|path| (name_of(&path), folder.join(name_of(&path))));
    if !disk.1.exists() {
        return Err(damaged(name, format!("{} is gone", disk.1.display())));
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
            draft::copy(path.clone(), draft.join(name)).await?;
        }
    }
    let (length, checksum) = draft::flushed(draft.join(&disk.0)).await?;
    if (Content { length, checksum }) != snapshot.disk {
        let reason = format!("{} is not what it was", disk.1.display());
        return Err(damaged(name, reason));
    }
    Ok(())
}

/// The memory, if there is one, belongs to the disk that was copied just now.
async fn prepare_memory(
    project: &Project,
    snapshot: &Snapshot,
    folder: &Path,
    draft: &Draft,
) -> Result<(), MachineError> {
    let Some(memory) = snapshot.memory.clone() else {
        return Ok(());
    };
    let name = name_of(&project.memory());
    let path = folder.join(&name);
    if fs::metadata(&path).map(|it| it.len()).ok() != Some(memory.length) {
        tracing::warn!(
            "the next start boots: {} is not what it was",
            path.display()
        );
        return Ok(());
    }
    draft::link(path, draft.join(&name)).await?;
    let suspended = Suspended {
        schema: Suspended::schema(),
        since: snapshot.created,
        disk: Stamp::of(&draft.join(name_of(&project.disk())))?,
        memory,
        from: None,
    };
    let note = draft.join(name_of(&project.suspended()));
    Ok(files::write(
        &note,
        suspended.to_json().as_bytes(),
        PRIVATE,
    )?)
}

/// The record, where the disk that comes has something else on it than the one that goes, and the config with it.
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
    note_config(project, &then, draft)?;
    then.save_as(&draft.join(name_of(&project.record())), project)
}

/// The config, if it names another release or size than the record, with which no start would agree.
fn note_config(project: &Project, record: &Record, draft: &Draft) -> Result<(), FileError> {
    let path = project.config();
    // One that cannot be read speaks for itself at the next start.
    let Some(text) = files::read_if_exists(&path)? else {
        return Ok(());
    };
    let Ok(config) = Config::parse(&text) else {
        return Ok(());
    };
    let version = &record.release.version;
    let names_one = |it: &String| it.parse::<Version>().is_ok();
    let agreeing = Config {
        k3s_version: config.k3s_version.as_ref().map(|it| match names_one(it) {
            true => version.clone(),
            false => it.clone(),
        }),
        disk: config.disk.map(|_| record.disk),
        ..config.clone()
    };
    match agreeing.merged_into(&text) {
        Ok(text) if agreeing != config => {
            files::write(&draft.join(name_of(&path)), text.as_bytes(), PRIVATE)
        }
        _ => Ok(()),
    }
}

/// Writes the record, and the config that agrees with it: both, or none.
///
/// # Errors
///
/// When they cannot be written.
pub(super) fn note(project: &Project, record: &Record) -> Result<(), FileError> {
    let draft = Draft::begin(draft_of(project))?;
    note_config(project, record, &draft)?;
    record.save_as(&draft.join(name_of(&project.record())), project)?;
    draft.finish(&project.restoring())?;
    put_in_place(project)
}

/// Finishes what died when it was to be finished, and clears what was not.
///
/// # Errors
///
/// When a file cannot be moved.
pub(super) fn settle(project: &Project) -> Result<(), FileError> {
    draft::remove(&draft_of(project))?;
    if project.restoring().exists() {
        tracing::info!("finishing what a command that died had begun");
        put_in_place(project)?;
    }
    Ok(())
}

fn put_in_place(project: &Project) -> Result<(), FileError> {
    let (folder, directory) = (project.restoring(), project.directory());
    if folder.join(name_of(&project.disk())).exists() {
        // Memory of before is never to lie beside another disk.
        Suspended::discard(project)?;
    }
    // Last what says that there is memory.
    for place in [
        project.disk(),
        project.uefi_variables(),
        project.settings(),
        project.config(),
        project.record(),
        project.memory(),
        project.suspended(),
    ] {
        match fs::rename(folder.join(name_of(&place)), &place) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            renamed => renamed.map_err(FileError::on("rename a file to", &place))?,
        }
        files::sync_directory(&directory)?;
    }
    fs::remove_dir(&folder).map_err(FileError::on("remove", &folder))?;
    files::sync_directory(&directory)
}
