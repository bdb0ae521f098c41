//! What fails between this host and the guest's sshd.

use std::io;

/// Why the guest cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// No answer, or not one of SSH, or not in time.
    #[error("no SSH on 127.0.0.1:{port}: {reason}")]
    Unreachable {
        /// The forwarded port.
        port: u16,
        /// The reason.
        reason: String,
    },
    /// The one who answers does not have the VM's host key.
    #[error("127.0.0.1:{port} answers with another host key than this VM's")]
    WrongHostKey {
        /// The forwarded port.
        port: u16,
    },
    /// The guest does not take the VM's key.
    #[error("the guest refuses this VM's key")]
    Refused,
    /// The connection broke, or the guest's sshd does something unheard of.
    #[error("the SSH connection broke")]
    Broken(#[from] russh::Error),
    /// The command ended with another status than 0.
    #[error("{command:?} ended with {status} in the guest: {said}")]
    Failed {
        /// The command.
        command: String,
        /// Its exit status.
        status: u32,
        /// The last line of its standard error.
        said: String,
    },
    /// The guest's sshd does not allow agent forwarding.
    #[error("the guest's sshd does not forward agents")]
    NoAgentForwarding,
    /// Our own side of the pipe broke.
    #[error("cannot pass the data on")]
    Pipe(#[source] io::Error),
}
