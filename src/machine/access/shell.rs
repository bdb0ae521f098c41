//! A shell or a command in the guest.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    guest::{Event, Order, Ssh, SshError, Streams},
    machine::{MachineError, State, control::guest},
    project::Project,
};

/// The age of a QEMU up to which sshd may not have started: an emulated boot on a busy host takes minutes.
const SSHD_START_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// How long a command waits for sshd.
const SSHD_RETRY_TIMEOUT: Duration = Duration::from_secs(30);

const SSHD_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// A connection to the guest of a running VM. A slow guest may start sshd after k3s, so a guest that has just booted is
/// tried again for a while.
///
/// # Errors
///
/// When the VM does not run or the guest does not answer.
pub async fn connect(project: &Project) -> Result<Ssh, MachineError> {
    let (_, process) = State::observe(project)?.running(project)?;
    let has_just_booted = process.uptime().is_some_and(|it| it < SSHD_START_TIMEOUT);
    let began = Instant::now();
    loop {
        match guest::connect(project).await {
            Err(MachineError::Ssh(SshError::Unreachable { .. }))
                if has_just_booted
                    && began.elapsed() < SSHD_RETRY_TIMEOUT
                    && process.is_alive() =>
            {
                tokio::time::sleep(SSHD_RETRY_INTERVAL).await;
            }
            result => return result,
        }
    }
}

/// Runs `order` in the guest and returns its exit code. `next` waits for events on this side.
///
/// # Errors
///
/// When the connection or a stream breaks.
pub async fn exec_interactive(
    ssh: Ssh,
    order: &Order,
    streams: Streams<impl AsyncRead + Unpin, impl AsyncWrite + Unpin, impl AsyncWrite + Unpin>,
    next: impl AsyncFnMut() -> Event,
) -> Result<u32, MachineError> {
    let status = ssh.exec_interactive(order, streams, next).await?;
    ssh.close().await;
    Ok(status)
}
