//! `stop --suspend`: memory and devices go to a file of the project, and QEMU ends.
//!
//! A machine is suspended when, and for as long as, `suspended.json` is there (see [`Suspended`]). It comes when all else
//! is on the disk, and goes before the guest runs again. So a guest beside whose QEMU it lies has not run since, whatever
//! died on the way there, and that QEMU can go; and a guest without it goes on in its QEMU.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use qapi::qmp;
use tokio::task::spawn_blocking;

use super::{Machine, MachineError, State, host, resume, state, stop};
use crate::{
    base::{FileError, Size, files, sparse},
    project::{Project, Record, Suspended, suspended::Stamp},
    qemu::{
        Accelerator, Layout, MigrationError, Monitor, Process, Version, migration, version, visible,
    },
};

/// A guest that is well writes its caches within that; one that is not is suspended without.
const SYNC: Duration = Duration::from_secs(5);
/// How long a QEMU whose connection broke may take to end.
pub(super) const ENDING: Duration = Duration::from_secs(2);

/// Suspends a running machine. QEMU stays, and has nothing more to do.
///
/// # Errors
///
/// The first step that fails; [`Machine::abandon`] then has the guest go on.
pub(super) async fn suspend(
    machine: &Machine,
    record: &Record,
    process: &Process,
) -> Result<(), MachineError> {
    if !record.provisioned {
        return Err(MachineError::Unfinished(record.name.clone()));
    }
    match save(machine, record, process).await {
        Err(MachineError::Monitor(_)) if process.ended_within(ENDING).await => {
            // There is no guest any more that could go on.
            machine.mark_arrived();
            stop::clear(&machine.project)?;
            files::remove_if_exists(&machine.project.memory())?;
            Err(MachineError::Died {
                during: "the saving of its memory".to_owned(),
            })
        }
        result => result,
    }
}

async fn save(machine: &Machine, record: &Record, process: &Process) -> Result<(), MachineError> {
    let project = &machine.project;
    resume::unpause(project).await?;
    tracing::info!("suspending {}", record.name);
    sync(project).await;
    let mut monitor = Monitor::connect(&project.monitor_socket()).await?;
    let arguments = visible::visible(process.arguments());
    let qemu = version::full_of(&monitor.execute(qmp::query_version {}).await?);
    let layout = Version::of_full(&qemu).map(Layout::of);
    let (Some(layout), false) = (layout, arguments.is_empty()) else {
        let reason = format!("QEMU {qemu} does not tell what it runs with");
        return Err(MachineError::Suspend(reason));
    };
    let needed = needed(&mut monitor, process).await?;
    require_room(project, needed, Size::bytes(0))?;

    let path = project.memory();
    files::remove_if_exists(&path)?;
    let file = files::open_in_place(&path, true)?;
    machine.mark_suspending();
    pause(&mut monitor).await?;
    tracing::info!("saving the memory ({} in use)", needed.approximate());
    if let Err(error) = migration::save(&mut monitor, layout, &path, &file).await {
        return Err(not_saved(project, needed, error));
    }
    let (length, checksum) = flushed(path).await?;
    let kvm = monitor.execute(qmp::query_kvm {}).await?.enabled;
    let accelerator = if kvm {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    };
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let suspended = Suspended {
        schema: Suspended::schema(),
        since: now.as_secs(),
        qemu,
        arguments,
        processor: host::processor(accelerator),
        disk: Stamp::of(&project.disk())?,
        length,
        checksum,
    };
    suspended.save(project)?;
    machine.mark_arrived();
    Ok(())
}

/// Without it, a later boot would find the disk as after a power cut some seconds ago; with it, as after one now.
async fn sync(project: &Project) {
    let sync = async {
        let ssh = state::connect(project).await?;
        ssh.output("sync").await?;
        ssh.close().await;
        Ok::<(), MachineError>(())
    };
    match tokio::time::timeout(SYNC, sync).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the guest was not told to write its caches"),
        Err(_) => tracing::debug!("the guest has not written its caches in time"),
    }
}

async fn pause(monitor: &mut Monitor<tokio::net::UnixStream>) -> Result<(), MachineError> {
    monitor.execute(qmp::stop {}).await?;
    match monitor.execute(qmp::query_status {}).await?.status {
        qmp::RunState::paused => Ok(()),
        other => {
            let reason = format!("QEMU has stopped the guest before ({other:?})");
            Err(MachineError::Suspend(reason))
        }
    }
}

/// What the guest has touched of its memory; nothing where the host does not tell.
async fn needed(
    monitor: &mut Monitor<tokio::net::UnixStream>,
    process: &Process,
) -> Result<Size, MachineError> {
    let memory = monitor.execute(qmp::query_memory_size_summary {}).await?;
    let memory = Size::bytes(memory.base_memory);
    Ok(process.resident(memory).unwrap_or(Size::bytes(0)))
}

/// Whether there is room for so much beside `ours`, which goes.
fn require_room(project: &Project, needed: Size, ours: Size) -> Result<(), MachineError> {
    let path = project.directory();
    let free = files::free_space(&path)?.bytes;
    let free = Size::bytes(free.as_bytes() + ours.as_bytes());
    if free < needed {
        return Err(MachineError::MemorySpace { path, free, needed });
    }
    Ok(())
}

/// QEMU says only that it cannot write, if that.
fn not_saved(project: &Project, needed: Size, error: MigrationError) -> MachineError {
    match error {
        MigrationError::Monitor(error) => error.into(),
        MigrationError::Failed(reason) => {
            let written = files::allocated(&project.memory());
            match require_room(project, needed, written) {
                Err(full @ MachineError::MemorySpace { .. }) => full,
                _ => MachineError::Suspend(reason),
            }
        }
    }
}

/// Puts the file on the disk; its length and checksum.
async fn flushed(path: PathBuf) -> Result<(u64, u32), MachineError> {
    let reader = path.clone();
    let checksum = spawn_blocking(move || {
        let file = open(&reader)?;
        let checksum = sparse::checksum(&file).map_err(FileError::on("read", &reader))?;
        Ok::<_, FileError>(checksum)
    });
    let flush = spawn_blocking(move || {
        let file = open(&path)?;
        file.sync_all().map_err(FileError::on("flush", &path))?;
        let metadata = file.metadata().map_err(FileError::on("look at", &path))?;
        Ok::<_, FileError>(metadata.len())
    });
    let finished = "neither panics nor is cancelled";
    let (checksum, length) = (checksum.await, flush.await);
    Ok((length.expect(finished)?, checksum.expect(finished)?))
}

fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(FileError::on("open", path))
}

/// The machine's state, without a QEMU of a suspend or resume that died when the memory was already, or still, the saved
/// one: that guest has not run since.
///
/// # Errors
///
/// Those of [`Machine::state`], and when that QEMU cannot be ended.
pub(super) async fn settled(machine: &Machine) -> Result<State, MachineError> {
    match machine.state()? {
        State::Running(record, process) if Suspended::exists(&machine.project) => {
            tracing::info!(
                "ending a QEMU (process {}) whose guest is suspended",
                process.pid()
            );
            process.kill().await?;
            stop::clear(&machine.project)?;
            Ok(State::Stopped(record))
        }
        state => Ok(state),
    }
}
