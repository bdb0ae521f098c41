//! Ends QEMU: `quit` over the monitor, else a kill through the pidfd, and removes its sockets.

use std::time::Duration;

use qapi::qmp;

use crate::{
    base::files,
    guest::exec_channel,
    machine::{MachineError, control::guest_logs},
    project::Project,
    qemu::{Process, monitor_of},
};

/// How long QEMU may take to end after `quit`, while it flushes its disks.
const QUIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long QEMU may take to hand over the last lines of the guest.
const LOGS_TIMEOUT: Duration = Duration::from_secs(1);

/// Ends QEMU: `quit` over the monitor, else a kill through the pidfd. Removes its files.
///
/// # Errors
///
/// When the process cannot be ended.
pub async fn end(project: &Project, process: &Process) -> Result<(), MachineError> {
    if process.is_alive() {
        let _ = tokio::time::timeout(LOGS_TIMEOUT, guest_logs::collect(project)).await;
        let quit = async { monitor_of(project).await?.execute(qmp::quit {}).await };
        // A broken connection after `quit` is QEMU's end, not a failure.
        if let Err(error) = quit.await {
            tracing::debug!(%error, "after quit");
        }
        if !process.ended_within(QUIT_TIMEOUT).await {
            tracing::warn!("QEMU does not answer; killing process {}", process.pid());
            process.kill().await?;
        }
    }
    clear(project)
}

/// Removes the files of a QEMU that has ended: the socket always, the pidfile if it was killed.
///
/// # Errors
///
/// When one of them cannot be removed.
pub fn clear(project: &Project) -> Result<(), MachineError> {
    files::remove_if_exists(&project.monitor_socket())?;
    exec_channel::remove(&project.exec_socket())?;
    let _ = std::fs::remove_dir(project.runtime());
    if Process::holder(&project.pidfile())?.is_none() {
        files::remove_if_exists(&project.pidfile())?;
    }
    Ok(())
}

/// How long QEMU may take to end after its connection broke.
pub(crate) const END_TIMEOUT: Duration = Duration::from_secs(2);
