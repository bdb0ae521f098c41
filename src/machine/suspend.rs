//! `stop --suspend`: memory and devices go to a file of the project, and QEMU ends.
//!
//! A machine is suspended when, and for as long as, `suspended.json` is there (see [`Suspended`]). It comes when all else
//! is on the disk, and goes before the guest runs again. So a guest beside whose QEMU it lies has not run since, whatever
//! died on the way there, and that QEMU can go; and a guest without it goes on in its QEMU.

use std::time::{Duration, SystemTime};

use qapi::qmp;

use super::{Machine, MachineError, State, memory, resume, rollback, snapshot, state, stop};
use crate::{
    base::{Size, files},
    project::{Project, Record, Suspended, suspended::Stamp},
    qemu::{Monitor, Process},
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
    let origin = memory::origin(&mut monitor, process).await?;
    let needed = memory::needed(&mut monitor, process).await?;
    memory::require_room(&project.directory(), needed, Size::bytes(0))?;

    let path = project.memory();
    files::remove_if_exists(&path)?;
    let file = files::open_in_place(&path, true)?;
    machine.mark_suspending();
    pause(&mut monitor).await?;
    tracing::info!("saving the memory ({} in use)", needed.approximate());
    memory::write(&mut monitor, &origin, &path, &file, needed).await?;
    let memory = memory::sealed(path, origin).await?;
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let suspended = Suspended {
        schema: Suspended::schema(),
        since: now.as_secs(),
        disk: Stamp::of(&project.disk())?,
        memory,
        from: None,
    };
    suspended.save(project)?;
    machine.mark_arrived();
    Ok(())
}

/// Without it, a later boot would find the disk as after a power cut some seconds ago; with it, as after one now.
pub(super) async fn sync(project: &Project) {
    match tokio::time::timeout(SYNC, state::ask(project, "sync")).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the guest was not told to write its caches"),
        Err(_) => tracing::debug!("the guest has not written its caches in time"),
    }
}

/// Has the guest of a running machine stand still.
///
/// # Errors
///
/// When QEMU does not do as it is told, or the guest stands still for another reason.
pub(super) async fn pause(
    monitor: &mut Monitor<tokio::net::UnixStream>,
) -> Result<(), MachineError> {
    monitor.execute(qmp::stop {}).await?;
    match monitor.execute(qmp::query_status {}).await?.status {
        qmp::RunState::paused => Ok(()),
        other => {
            let reason = format!("QEMU has stopped the guest before ({other:?})");
            Err(MachineError::Suspend(reason))
        }
    }
}

/// The machine's state, without what a command about a snapshot has left that died, and without a QEMU of a suspend or
/// resume that died when the memory was already, or still, the saved one: that guest has not run since.
///
/// # Errors
///
/// Those of [`Machine::state`], and when that QEMU cannot be ended.
pub(super) async fn settled(machine: &Machine) -> Result<State, MachineError> {
    rollback::settle(&machine.project)?;
    snapshot::settle(&machine.project).await;
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
