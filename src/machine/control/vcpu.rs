//! A VM that runs and does not work, until somebody has it go on: QEMU was paused, a suspend did not come to its
//! end, its memory was just loaded, or an interrupted stop has taken k3s down.

use qapi::qmp::{self, RunState};

use crate::{
    machine::MachineError,
    project::{Project, Suspended},
    qemu::{Monitor, MonitorError, migration, monitor_of},
};

/// Lets a paused guest go on; whether it was paused.
///
/// # Errors
///
/// When QEMU does not answer, or its saved memory cannot be removed.
pub async fn unpause(project: &Project) -> Result<bool, MachineError> {
    let paused = release(project).await?;
    if paused {
        tracing::info!("resumed the paused VM");
    }
    Ok(paused)
}

/// The same without a word.
///
/// # Errors
///
/// Those of [`unpause`].
pub async fn release(project: &Project) -> Result<bool, MachineError> {
    let mut monitor = monitor_of(project).await?;
    migration::cancel(&mut monitor).await?;
    // The disk goes on with the guest; memory of before must never be loaded on it.
    if Suspended::exists(project) || project.memory().exists() {
        Suspended::discard(project)?;
    }
    let status = monitor.execute(qmp::query_status {}).await?.status;
    let paused = matches!(status, RunState::paused | RunState::postmigrate);
    if paused {
        monitor.execute(qmp::cont {}).await?;
    }
    Ok(paused)
}

/// Whether the guest was told to stand still, by `pause` or by a command that died.
///
/// # Errors
///
/// When QEMU does not answer.
pub async fn is_paused(project: &Project) -> Result<bool, MonitorError> {
    let mut monitor = monitor_of(project).await?;
    let status = monitor.execute(qmp::query_status {}).await?.status;
    Ok(matches!(status, RunState::paused | RunState::postmigrate))
}

/// Has the guest of a running VM stand still.
///
/// # Errors
///
/// When QEMU does not do as it is told, or the guest stands still for another reason.
pub(crate) async fn pause(
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
