//! `snapshot create`: disk and memory of the VM.
//!
//! A running guest is paused while its memory is saved and its disk is copied, and continues before either is flushed.
//! A command that is killed meanwhile leaves an unfinished directory, and perhaps a paused guest: the next command removes
//! the one and lets the other continue.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use qapi::qmp;

use crate::{
    base::{
        FileError, Size, SnapshotName,
        files::{self, free_space},
        trust,
    },
    machine::{
        Machine, MachineError, State,
        control::{
            guest,
            terminate::{self, END_TIMEOUT},
            vcpu, wake,
        },
        memory::save,
        model::staging_dir::{self, Draft, name_of},
        recover::{interrupted, unfinished_snapshot::NEW},
    },
    project::{
        Project, Record, Snapshot, Suspended,
        snapshot::{self, Content},
        suspended::{FileStamp, MachineAbi, Memory},
    },
    qemu::{Process, migration, monitor_of},
};

/// The space that is kept free for the running VM.
const RESERVE: Size = Size::mib(256);

/// Creates a snapshot with this name, or named by the time. Returns the name.
///
/// # Errors
///
/// The first step that fails; no snapshot is left then, and [`Machine::cleanup_on_failure`] lets the guest continue.
pub async fn create(
    machine: &Machine,
    name: Option<SnapshotName>,
) -> Result<SnapshotName, MachineError> {
    let project = &machine.project;
    let state = interrupted::recover_interrupted(machine).await?;
    let record = match state.record() {
        None => return Err(MachineError::absent(project)),
        Some(record) if !record.provisioned => {
            return Err(MachineError::NothingToSnapshot(record.name.clone()));
        }
        Some(record) => record.clone(),
    };
    let now = SystemTime::now();
    let name = match name {
        Some(name) if snapshot::folder(project, &name).exists() => {
            return Err(MachineError::SnapshotExists(name));
        }
        Some(name) => name,
        None => unused(project, now),
    };
    trust::own_private_dir(&project.snapshots())?;
    let draft = Draft::create(project.snapshots().join(NEW))?;
    let saved = match state {
        State::Running(_, process) => save_running(machine, &record, &process, &draft).await,
        _ => copy_stopped(project, &draft).await,
    };
    let memory = saved.map_err(as_snapshot_error)?;
    let path = draft.join(name_of(&project.disk()));
    let (length, checksum) = staging_dir::flushed(path).await?;
    let created = now.duration_since(SystemTime::UNIX_EPOCH);
    let created = created.unwrap_or_default().as_secs();
    let disk = Content { length, checksum };
    Snapshot::new(&record, created, disk, memory).save(draft.path())?;
    draft.finish(&snapshot::folder(project, &name))?;
    Ok(name)
}

/// The errors of a suspend, as those of a snapshot.
fn as_snapshot_error(error: MachineError) -> MachineError {
    match error {
        MachineError::Suspend(reason) => MachineError::Snapshot(reason),
        MachineError::MemorySpace { path, free, needed }
        | MachineError::SnapshotSpace { path, free, needed } => MachineError::SnapshotSpace {
            // The removed directory has no name by then.
            path: path.parent().unwrap_or(&path).to_owned(),
            free,
            needed,
        },
        other => other,
    }
}

/// A name with the time, and a number if that exists.
fn unused(project: &Project, now: SystemTime) -> SnapshotName {
    let time = humantime::format_rfc3339_seconds(now).to_string();
    let time = time.replace(':', "-");
    let names = (1..).map(|number| match number {
        1 => time.clone(),
        _ => format!("{time}-{number}"),
    });
    names
        .filter_map(|name| name.parse().ok())
        .find(|name| !snapshot::folder(project, name).exists())
        .expect("there is always a larger number")
}

/// Requires the space for a snapshot, and for the running VM.
fn require_room(folder: &Path, needed: Size) -> Result<(), MachineError> {
    let free = free_space(folder)?.bytes;
    let needed = Size::bytes(needed.as_bytes() + RESERVE.as_bytes());
    if free < needed {
        return Err(MachineError::SnapshotSpace {
            path: folder.to_owned(),
            free,
            needed,
        });
    }
    Ok(())
}

/// Copies the VM's disk, UEFI variables and settings.
async fn copy_disks(project: &Project, draft: &Draft) -> Result<(), FileError> {
    let size = files::allocated(&project.disk()).approximate();
    tracing::info!("copying the disk ({size})");
    for path in [
        project.disk(),
        project.uefi_variables(),
        project.config_archive(),
    ] {
        if path.exists() {
            let copy = draft.join(name_of(&path));
            staging_dir::copy(path, copy.clone()).await?;
        }
    }
    Ok(())
}

/// The disk, and the memory of a suspended VM, which no longer change.
async fn copy_stopped(project: &Project, draft: &Draft) -> Result<Option<Memory>, MachineError> {
    require_room(
        draft.path(),
        staging_dir::room_for_copy(&project.disk(), draft.path())?,
    )?;
    copy_disks(project, draft).await?;
    let suspended = match Suspended::load(project)? {
        None => return Ok(None),
        Some(Ok(suspended)) if suspended.disk == FileStamp::of(&project.disk())? => suspended,
        Some(_) => {
            tracing::warn!("the snapshot has no memory: the saved memory is outdated");
            return Ok(None);
        }
    };
    let copy = draft.join(name_of(&project.memory()));
    staging_dir::link(suspended.path(project), copy.clone()).await?;
    let (length, checksum) = staging_dir::flushed(copy.clone()).await?;
    if (length, checksum) != (suspended.memory.length, suspended.memory.checksum) {
        tracing::warn!("the snapshot has no memory: the saved memory is damaged");
        files::remove_if_exists(&copy)?;
        return Ok(None);
    }
    Ok(Some(suspended.memory))
}

/// The disk and memory of one moment.
async fn save_running(
    machine: &Machine,
    record: &Record,
    process: &Process,
    draft: &Draft,
) -> Result<Option<Memory>, MachineError> {
    let project = &machine.project;
    let paused = is_paused_by_user(project).await?;
    tracing::info!("creating a snapshot of {}", record.name);
    let path = draft.join(name_of(&project.memory()));
    match save(machine, process, draft, &path, paused).await {
        Ok(origin) => {
            resume_guest(machine, paused).await?;
            Ok(Some(save::sealed(path, origin).await?))
        }
        Err(MachineError::Monitor(_)) if process.ended_within(END_TIMEOUT).await => {
            // The guest is gone, and cannot continue.
            machine.keep_qemu();
            terminate::clear(project)?;
            Err(MachineError::QemuEnded {
                during: "the saving of its memory".to_owned(),
            })
        }
        Err(error) => {
            if let Err(also) = resume_guest(machine, paused).await {
                tracing::debug!(error = %also, "the guest does not go on yet");
            }
            Err(error)
        }
    }
}

/// Saves the memory and copies the disk of a paused guest.
async fn save(
    machine: &Machine,
    process: &Process,
    draft: &Draft,
    path: &Path,
    paused: bool,
) -> Result<MachineAbi, MachineError> {
    let project = &machine.project;
    if !paused {
        guest::sync(project).await;
    }
    let mut monitor = monitor_of(project).await?;
    let origin = save::origin(&mut monitor, process).await?;
    let needed = save::needed(&mut monitor, process).await?;
    let of_disk = staging_dir::room_for_copy(&project.disk(), draft.path())?;
    let both = Size::bytes(needed.as_bytes() + of_disk.as_bytes());
    require_room(draft.path(), both)?;

    let file = files::open_in_place(path, true)?;
    machine.mark_paused();
    if !paused {
        vcpu::pause(&mut monitor).await?;
    }
    tracing::info!("saving the memory ({} in use)", needed.approximate());
    save::write(&mut monitor, &origin, path, &file, needed).await?;
    // Other commands may query QEMU meanwhile.
    drop(monitor);
    copy_disks(project, draft).await?;
    Ok(origin)
}

/// Continues the guest, and pauses it again if the user had paused it: QEMU reopens the disks, which it closed for the
/// copy, only when the guest runs.
async fn resume_guest(machine: &Machine, paused: bool) -> Result<(), MachineError> {
    let project = &machine.project;
    if vcpu::release(project).await? && !paused {
        wake::wake(project, Duration::MAX).await;
    }
    if paused {
        let mut monitor = monitor_of(project).await?;
        vcpu::pause(&mut monitor).await?;
        tracing::info!("the VM is paused as before; to resume: k3s-vm resume");
    }
    machine.keep_qemu();
    Ok(())
}

/// Returns `true` when the user has paused the guest. A guest that an interrupted save left paused continues.
async fn is_paused_by_user(project: &Project) -> Result<bool, MachineError> {
    let mut monitor = monitor_of(project).await?;
    migration::cancel(&mut monitor).await?;
    let status = monitor.execute(qmp::query_status {}).await?.status;
    drop(monitor);
    if status == qmp::RunState::paused {
        return Ok(true);
    }
    vcpu::unpause(project).await?;
    Ok(false)
}
