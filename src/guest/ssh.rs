//! SSH into the guest: key only, the host key pinned from the first connection on.

use std::{
    borrow::Cow,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use russh::{
    Channel, ChannelOpenFailure, Disconnect, Preferred,
    client::{self, ChannelOpenHandle, Handle},
    keys::{Algorithm, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate},
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::guest::{
    Answer, KeyPair,
    session::{self, Event, Order, Streams},
    ssh_error::SshError,
};

/// How long connecting and logging in may take; a guest under emulation needs seconds.
const CONNECT: Duration = Duration::from_secs(30);

/// A guest that is silent for a minute is gone.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// A connection, logged in as root.
pub struct Ssh {
    handle: Handle<Pinned>,
    agent: Arc<OnceLock<PathBuf>>,
}

/// Takes one host key and no other.
struct Pinned {
    expected: PublicKey,
    /// The agent's socket, once it is lent to the guest.
    agent: Arc<OnceLock<PathBuf>>,
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

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<client::Msg>,
        reply: ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        let Some(socket) = self.agent.get().cloned() else {
            reply
                .reject(ChannelOpenFailure::AdministrativelyProhibited)
                .await;
            return Ok(());
        };
        reply.accept().await;
        tokio::spawn(async move {
            if let Err(error) = session::forward_agent(socket, channel).await {
                tracing::debug!(%error, "the agent does not answer the guest");
            }
        });
        Ok(())
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
        let agent = Arc::default();
        let pinned = Pinned {
            expected: host.public().clone(),
            agent: Arc::clone(&agent),
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
                Ok(Self { handle, agent })
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
        let (mut output, mut errors) = (Answer::default(), Answer::default());
        let status = self
            .run(command, tokio::io::empty(), &mut output, &mut errors)
            .await?;
        if status == 0 {
            return Ok(output.0);
        }
        let said = String::from_utf8_lossy(&errors.0)
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

    /// Runs a command with the given streams, and gives its exit status: 128 and the signal's number when a signal ended
    /// it, 255 when the connection ended first.
    ///
    /// # Errors
    ///
    /// When the connection or one of the streams breaks.
    pub async fn run(
        &self,
        command: &str,
        input: impl AsyncRead + Unpin,
        output: impl AsyncWrite + Unpin,
        errors: impl AsyncWrite + Unpin,
    ) -> Result<u32, SshError> {
        let order = Order {
            command: Some(command.to_owned()),
            ..Order::default()
        };
        let streams = Streams {
            input,
            output,
            errors,
        };
        self.exec_interactive(&order, streams, async || std::future::pending().await)
            .await
    }

    /// Runs any order; `next` waits for events on this side meanwhile. A command without a terminal that does not end
    /// after a signal is killed. If nothing is heard of its end then, the status is that of the signal.
    ///
    /// # Errors
    ///
    /// When the connection or one of the streams breaks, or the guest refuses what is ordered.
    pub async fn exec_interactive(
        &self,
        order: &Order,
        streams: Streams<impl AsyncRead + Unpin, impl AsyncWrite + Unpin, impl AsyncWrite + Unpin>,
        next: impl AsyncFnMut() -> Event,
    ) -> Result<u32, SshError> {
        if let Some(agent) = &order.agent {
            // The first one that is lent stays.
            let _ = self.agent.set(agent.clone());
        }
        session::run(&self.handle, order, streams, next).await
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
