//! Commands in the guest of a running VM, by the exec channel or by SSH.

use std::time::Duration;

use qapi::qmp;

use crate::{
    guest::{Ssh, exec_channel},
    machine::{MachineError, control::keys},
    project::{Project, Record},
    qemu::{MonitorError, command_line::EXEC_CHARDEV, monitor_of, usernet::forwarded_port},
};

/// How long the guest may take to answer. It runs one command after the other.
const EXEC_TIMEOUT: Duration = Duration::from_secs(5);

/// The host port that forwards to the guest's SSH: from QEMU, or without the monitor from the record. Another program
/// on that port does not have the guest's host key.
///
/// # Errors
///
/// When QEMU does not answer, and the port is not known.
pub async fn ssh_port(project: &Project) -> Result<u16, MachineError> {
    let noted = || Record::load(project).ok().flatten()?.ssh_port;
    match host_port(project, 22).await {
        Err(MachineError::Monitor(error)) if error.is_lost() => {
            noted().ok_or(MachineError::Monitor(error))
        }
        told => told,
    }
}

/// The host port that forwards to the guest's `port`, from QEMU.
///
/// # Errors
///
/// When QEMU does not answer or does not forward the port.
pub async fn host_port(project: &Project, port: u16) -> Result<u16, MachineError> {
    let usernet = monitor_of(project).await?.human("info usernet").await?;
    forwarded_port(&usernet, port).ok_or_else(|| {
        MachineError::Choice(format!(
            "QEMU forwards no host port to the guest's port {port}"
        ))
    })
}

/// A connection to the guest of a running VM.
///
/// # Errors
///
/// When the keys are not usable, the VM is paused, or the guest does not answer.
pub async fn connect(project: &Project) -> Result<Ssh, MachineError> {
    let (client, host) = (
        keys::load_key(project.client_key())?,
        keys::load_key(project.host_key())?,
    );
    match crate::machine::control::vcpu::is_paused(project).await {
        Ok(true) => return Err(MachineError::Paused),
        Err(error) if !error.is_lost() => return Err(error.into()),
        Ok(false) | Err(_) => {}
    }
    Ok(Ssh::connect(ssh_port(project).await?, &client, &host).await?)
}

/// Runs a short idempotent command in the guest of a running VM, and returns its output. Uses the exec channel, or SSH
/// if that does not answer.
///
/// # Errors
///
/// Those of [`connect`], and when the command fails.
pub async fn exec(project: &Project, command: &str) -> Result<Vec<u8>, MachineError> {
    if listens(project).await? {
        let port = project.exec_socket();
        let asked = exec_channel::exec(&port, command);
        match tokio::time::timeout(EXEC_TIMEOUT, asked).await {
            Ok(Ok(said)) => return Ok(said),
            Ok(Err(error)) => tracing::debug!(%error, "the guest's listener does not do it"),
            Err(_) => tracing::debug!("the guest's listener does not answer"),
        }
    }
    let ssh = connect(project).await?;
    let said = ssh.output(command).await?;
    ssh.close().await;
    Ok(said)
}

/// Returns `true` when the guest runs and has opened the exec channel's port.
async fn listens(project: &Project) -> Result<bool, MonitorError> {
    let mut monitor = match monitor_of(project).await {
        Err(error) if error.is_lost() => return Ok(false),
        connected => connected?,
    };
    if monitor.execute(qmp::query_status {}).await?.status != qmp::RunState::running {
        return Ok(false);
    }
    let ends = monitor.execute(qmp::query_chardev {}).await?;
    Ok(ends
        .iter()
        .any(|end| end.label == EXEC_CHARDEV && end.frontend_open))
}

/// A healthy guest writes its caches within this time; another one is suspended without it.
const SYNC_TIMEOUT: Duration = Duration::from_secs(5);

/// Flushed now, so that a later boot loses no writes of the last seconds.
pub(crate) async fn sync(project: &Project) {
    match tokio::time::timeout(SYNC_TIMEOUT, exec(project, "sync")).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the guest was not told to write its caches"),
        Err(_) => tracing::debug!("the guest has not written its caches in time"),
    }
}
