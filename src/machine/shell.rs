//! A shell or a command in the guest.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{MachineError, State, state};
use crate::{
    guest::{Event, Order, Ssh, Streams, Terminal},
    project::Project,
};

/// Runs `command` in the guest, or a login shell without one, and gives its exit status.
///
/// # Errors
///
/// When the machine does not run, the guest does not answer, or a stream breaks.
pub async fn run(
    project: &Project,
    command: Option<&str>,
    terminal: Option<Terminal>,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin,
    errors: impl AsyncWrite + Unpin,
) -> Result<u32, MachineError> {
    let ssh = connect(project).await?;
    let status = ssh.run(command, terminal, input, output, errors).await?;
    ssh.close().await;
    Ok(status)
}

/// A connection to the guest, if the machine runs.
///
/// # Errors
///
/// When the machine does not run or the guest does not answer.
pub async fn connect(project: &Project) -> Result<Ssh, MachineError> {
    State::observe(project)?.running(project)?;
    state::connect(project).await
}

/// Runs `order` in the guest and gives its exit status; `next` waits for what happens on this side meanwhile.
///
/// # Errors
///
/// When the connection or a stream breaks.
pub async fn attend(
    ssh: Ssh,
    order: &Order,
    streams: Streams<impl AsyncRead + Unpin, impl AsyncWrite + Unpin, impl AsyncWrite + Unpin>,
    next: impl AsyncFnMut() -> Event,
) -> Result<u32, MachineError> {
    let status = ssh.attend(order, streams, next).await?;
    ssh.close().await;
    Ok(status)
}
