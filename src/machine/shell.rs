//! A shell or a command in the guest.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{MachineError, State, state};
use crate::{guest::ssh::Terminal, project::Project};

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
    State::observe(project)?.running(project)?;
    let ssh = state::connect(project).await?;
    let status = ssh.run(command, terminal, input, output, errors).await?;
    ssh.close().await;
    Ok(status)
}
