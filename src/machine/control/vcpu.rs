//! Virtual CPUs that are stopped until a command continues them: after `pause`, an interrupted suspend, a load of
//! memory, or an interrupted stop that has ended k3s.

use qapi::qmp::{self, RunState};

use crate::{
    machine::MachineError,
    project::{Project, Suspended},
    qemu::{Monitor, MonitorError, migration, monitor_of},
};

/// Continues a paused guest. Returns `true` if it was paused.
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

/// Resumes the guest without a message.
///
/// # Errors
///
/// Those of [`unpause`].
pub async fn release(project: &Project) -> Result<bool, MachineError> {
    let mut monitor = monitor_of(project).await?;
    migration::cancel(&mut monitor).await?;
    // The disk changes with the guest; older memory must never be loaded on it.
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

/// Returns `true` when the guest was paused, by `pause` or by a command that was killed.
///
/// # Errors
///
/// When QEMU does not answer.
pub async fn is_paused(project: &Project) -> Result<bool, MonitorError> {
    let mut monitor = monitor_of(project).await?;
    let status = monitor.execute(qmp::query_status {}).await?.status;
    Ok(matches!(status, RunState::paused | RunState::postmigrate))
}

/// Pauses the guest of a running VM.
///
/// # Errors
///
/// When QEMU refuses, or the guest is stopped for another reason.
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
