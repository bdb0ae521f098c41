//! SSH into the guest: key only, the host key pinned from the first connection on.

use std::{borrow::Cow, io, sync::Arc, time::Duration};

use russh::{
    ChannelMsg, Disconnect, Preferred,
    client::{self, Handle},
    keys::{Algorithm, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::KeyPair;

/// How long connecting and logging in may take; a guest under emulation needs seconds.
const CONNECT: Duration = Duration::from_secs(30);
/// A guest that is silent for a minute is gone.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Why the guest cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// Nobody answers, or not with SSH, or not in time.
    #[error("no SSH on 127.0.0.1:{port}: {reason}")]
    Unreachable {
        /// The forwarded port.
        port: u16,
        /// What happened instead.
        reason: String,
    },
    /// The one who answers does not have the machine's host key.
    #[error("127.0.0.1:{port} answers with another host key than this machine's")]
    WrongHostKey {
        /// The forwarded port.
        port: u16,
    },
    /// The guest does not take the machine's key.
    #[error("the guest refuses this machine's key")]
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
    /// Our own side of the pipe broke.
    #[error("cannot pass the data on")]
    Pipe(#[source] io::Error),
}

/// A connection, logged in as root.
pub struct Ssh {
    handle: Handle<Pinned>,
}

/// A terminal to be made in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    /// The kind, from `TERM`.
    pub kind: String,
    /// Columns of characters.
    pub columns: u16,
    /// Rows of characters.
    pub rows: u16,
}

/// Takes one host key and no other.
struct Pinned {
    expected: PublicKey,
}

impl client::Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        server: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(match server {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                key.key_data() == self.expected.key_data()
            }
            PublicKeyOrCertificate::Certificate(_) => false,
        })
    }
}

impl Ssh {
    /// Connects to 127.0.0.1:`port` as root with the key `client`, if the other end has the key `host`.
    ///
    /// # Errors
    ///
    /// See [`SshError`].
    pub async fn connect(port: u16, client: &KeyPair, host: &KeyPair) -> Result<Self, SshError> {
        let config = client::Config {
            preferred: Preferred {
                key: Cow::Owned(vec![Algorithm::Ed25519]),
                ..Preferred::default()
            },
            keepalive_interval: Some(KEEPALIVE),
            nodelay: true,
            ..client::Config::default()
        };
        let pinned = Pinned {
            expected: host.public().clone(),
        };
        let unreachable = |reason: String| SshError::Unreachable { port, reason };
        let login = async {
            let mut handle = client::connect(Arc::new(config), ("127.0.0.1", port), pinned)
                .await
                .map_err(|error| match error {
                    russh::Error::UnknownKey => SshError::WrongHostKey { port },
                    other => unreachable(other.to_string()),
                })?;
            let key = PrivateKeyWithHashAlg::new(Arc::new(client.private().clone()), None);
            let answer = handle.authenticate_publickey("root", key).await?;
            if answer.success() {
                Ok(Self { handle })
            } else {
                Err(SshError::Refused)
            }
        };
        let late = |_| unreachable(format!("no login within {} s", CONNECT.as_secs()));
        tokio::time::timeout(CONNECT, login).await.map_err(late)?
    }

    /// Runs a command to its end and gives what it wrote to standard output.
    ///
    /// # Errors
    ///
    /// [`SshError::Failed`] when it ends with another status than 0.
    pub async fn output(&self, command: &str) -> Result<Vec<u8>, SshError> {
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let status = self
            .run(
                Some(command),
                None,
                tokio::io::empty(),
                &mut output,
                &mut errors,
            )
            .await?;
        if status == 0 {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&errors)
            .lines()
            .last()
            .unwrap_or("without a word")
            .to_owned();
        Err(SshError::Failed {
            command: command.to_owned(),
            status,
            said,
        })
    }

    /// Runs a command, or a login shell when there is none, with the given streams, and gives its exit status: 128 and
    /// the signal's number when a signal ended it, 255 when the connection ended first.
    ///
    /// # Errors
    ///
    /// When the connection or one of the streams breaks.
    pub async fn run(
        &self,
        command: Option<&str>,
        terminal: Option<Terminal>,
        mut input: impl AsyncRead + Unpin,
        mut output: impl AsyncWrite + Unpin,
        mut errors: impl AsyncWrite + Unpin,
    ) -> Result<u32, SshError> {
        let mut channel = self.handle.channel_open_session().await?;
        if let Some(Terminal {
            kind,
            columns,
            rows,
        }) = terminal
        {
            channel
                .request_pty(false, &kind, columns.into(), rows.into(), 0, 0, &[])
                .await?;
        }
        match command {
            Some(command) => channel.exec(true, command).await?,
            None => channel.request_shell(true).await?,
        }
        let mut status = 255;
        let mut typed = vec![0; 16 << 10];
        let mut more_input = true;
        loop {
            tokio::select! {
                message = channel.wait() => match message {
                    Some(ChannelMsg::Data { data }) => write(&mut output, &data).await?,
                    Some(ChannelMsg::ExtendedData { data, .. }) => write(&mut errors, &data).await?,
                    Some(ChannelMsg::ExitStatus { exit_status }) => status = exit_status,
                    Some(ChannelMsg::ExitSignal { signal_name, .. }) => status = 128 + signal_number(&signal_name),
                    Some(_) => {}
                    None => return Ok(status),
                },
                read = input.read(&mut typed), if more_input => match read.map_err(SshError::Pipe)? {
                    0 => {
                        more_input = false;
                        channel.eof().await?;
                    }
                    read => channel.data(&typed[..read]).await?,
                },
            }
        }
    }

    /// Ends the connection politely.
    pub async fn close(self) {
        let _ = self
            .handle
            .disconnect(Disconnect::ByApplication, "", "en")
            .await;
    }
}

impl std::fmt::Debug for Ssh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ssh(..)")
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> Result<(), SshError> {
    stream.write_all(data).await.map_err(SshError::Pipe)?;
    stream.flush().await.map_err(SshError::Pipe)
}

/// As shells count them.
fn signal_number(signal: &russh::Sig) -> u32 {
    use russh::Sig;
    match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        _ => 15,
    }
}
