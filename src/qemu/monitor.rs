//! The monitor: QMP over its unix socket, one short connection for each conversation.
//!
//! QEMU serves one client of a monitor socket at a time and lets others wait, so connections are short. The types
//! of commands and replies are qapi's. The transport is our own: it skips events and replies that it does not know
//! instead of failing on them, and a timeout leaves nothing half done, for the connection goes with it.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use qapi::{Execute, qmp};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tokio::{
    io::{
        AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Interest,
    },
    net::{UnixStream, unix::UCred},
    time::{sleep, timeout},
};

use crate::base::{FileError, trust};

/// How long QEMU may take for one answer; its main loop answers within milliseconds unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(5);

const RETRY: Duration = Duration::from_millis(20);

/// The longest line of QMP that is accepted.
const LONGEST_LINE: u64 = 16 << 20;

/// The reason why a conversation with QEMU failed.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// Nothing listens on the socket.
    #[error("no QEMU answers on {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The socket's directory is not private to this user.
    #[error(transparent)]
    Directory(#[from] FileError),
    /// Another process than the VM's QEMU listens.
    #[error("process {pid} of user {uid} listens on {} in place of QEMU", path.display())]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// The listener; 0 if it is not visible.
        pid: i32,
        /// Its user.
        uid: u32,
    },
    /// The connection broke.
    #[error("the monitor's connection broke during {command}")]
    Broken {
        /// The running command.
        command: String,
        /// The reason.
        source: io::Error,
    },
    /// QEMU exceeded the time limit.
    #[error("QEMU did not answer {command} within {} s", within.as_secs())]
    Silent {
        /// The running command.
        command: String,
        /// The limit.
        within: Duration,
    },
    /// QEMU refused the command.
    #[error("QEMU refused {command}: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's message.
        reason: String,
    },
    /// The answer has an unknown form.
    #[error("QEMU's answer to {command} is not understood: {reason}")]
    Malformed {
        /// The command.
        command: String,
        /// The reason.
        reason: String,
    },
}

impl MonitorError {
    /// Returns `true` when the monitor is unreachable, and QEMU may run.
    pub fn is_lost(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. } | Self::Directory(_) | Self::Foreign { .. }
        )
    }
}

/// One conversation.
#[derive(Debug)]
pub struct Monitor<S> {
    stream: BufReader<S>,
    last_id: u64,
    patience: Duration,
}

impl Monitor<UnixStream> {
    /// Connects to the socket in a private directory and negotiates with the process `pid`, where that is known, or any
    /// process of this user.
    ///
    /// # Errors
    ///
    /// [`MonitorError::Connect`] when nothing listens, [`MonitorError::Directory`] and [`MonitorError::Foreign`] when
    /// another process may or does listen, the others when the listener is no QEMU.
    pub async fn connect_to(path: &Path, pid: Option<i32>) -> Result<Self, MonitorError> {
        let connect = |source| MonitorError::Connect {
            path: path.to_owned(),
            source,
        };
        if let Some(directory) = path.parent().filter(|it| it.exists()) {
            trust::require_private_dir(directory)?;
        }
        // QEMU lets few clients wait, and refuses the next one at once: it has to retry.
        let connected = async {
            loop {
                match UnixStream::connect(path).await {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(RETRY).await,
                    other => return other,
                }
            }
        };
        let late = |_| MonitorError::Silent {
            command: "greeting".into(),
            within: PATIENCE,
        };
        let stream = timeout(PATIENCE, connected).await.map_err(late)?;
        let stream = stream.map_err(connect)?;
        require_peer(path, stream.peer_cred().map_err(connect)?, pid)?;
        Self::greet(stream).await
    }

    /// Passes an open file to QEMU, which knows it as `name` from then on.
    ///
    /// # Errors
    ///
    /// Those of [`Monitor::execute`].
    pub async fn pass(&mut self, name: &str, file: impl AsFd) -> Result<(), MonitorError> {
        let command = "getfd";
        let request = self.numbered(json!({ "execute": command, "arguments": { "fdname": name } }));
        let line = format!("{request}\n");
        let stream = self.stream.get_ref();
        let descriptors = [file.as_fd()];
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut with = SendAncillaryBuffer::new(&mut space);
            with.push(SendAncillaryMessage::ScmRights(&descriptors));
            let bytes = [IoSlice::new(line.as_bytes())];
            let sent = sendmsg(stream, &bytes, &mut with, SendFlags::NOSIGNAL)?;
            // An empty socket accepts a whole line.
            if sent == line.len() {
                Ok(())
            } else {
                Err(io::ErrorKind::WriteZero.into())
            }
        };
        let sent = stream.async_io(Interest::WRITABLE, send).await;
        sent.map_err(|source| MonitorError::Broken {
            command: command.to_owned(),
            source,
        })?;
        self.answer(command, &request).await.map(drop)
    }
}

/// Refuses a listener of another user, or another process than `expected`.
fn require_peer(path: &Path, peer: UCred, expected: Option<i32>) -> Result<(), MonitorError> {
    let is_ours = peer.uid() == nix::unistd::getuid().as_raw();
    // A process in another PID namespace has no number here.
    let pid = peer.pid().filter(|&pid| pid > 0);
    if is_ours && (pid.is_none() || expected.is_none() || pid == expected) {
        return Ok(());
    }
    Err(MonitorError::Foreign {
        path: path.to_owned(),
        pid: pid.unwrap_or_default(),
        uid: peer.uid(),
    })
}

impl<S: AsyncRead + AsyncWrite + Unpin> Monitor<S> {
    /// Reads the greeting and leaves negotiation mode.
    ///
    /// # Errors
    ///
    /// When the other end is no QEMU or stays silent.
    pub async fn greet(stream: S) -> Result<Self, MonitorError> {
        let mut monitor = Self {
            stream: BufReader::new(stream),
            last_id: 0,
            patience: PATIENCE,
        };
        let greeting = async {
            while monitor.message("greeting").await?.get("QMP").is_none() {}
            Ok::<(), MonitorError>(())
        };
        timeout(PATIENCE, greeting)
            .await
            .map_err(|_| MonitorError::Silent {
                command: "greeting".into(),
                within: PATIENCE,
            })??;
        monitor
            .execute(qmp::qmp_capabilities { enable: None })
            .await?;
        Ok(monitor)
    }

    /// Executes a command and waits for its reply.
    ///
    /// # Errors
    ///
    /// [`MonitorError::Refused`] with QEMU's words, or what the connection suffers.
    pub async fn execute<C: qapi::Command>(&mut self, command: C) -> Result<C::Ok, MonitorError> {
        let request = serde_json::to_value(Execute::<_, ()>::from(command));
        let malformed = |reason: String| MonitorError::Malformed {
            command: C::NAME.to_owned(),
            reason,
        };
        let reply = self
            .exchange(
                C::NAME,
                request.map_err(|error| malformed(error.to_string()))?,
            )
            .await?;
        serde_json::from_value(reply).map_err(|error| malformed(error.to_string()))
    }

    /// Sets the limit of answers from now on.
    pub fn wait_for_answers(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Executes a command whose reply differs between versions of QEMU, or is unknown to qapi.
    ///
    /// # Errors
    ///
    /// Those of [`Monitor::execute`].
    pub async fn raw(&mut self, name: &str, arguments: Value) -> Result<Value, MonitorError> {
        self.exchange(name, json!({ "execute": name, "arguments": arguments }))
            .await
    }

    /// Executes a human monitor command, for the few things that QMP does not offer.
    ///
    /// # Errors
    ///
    /// Those of [`Monitor::execute`]; what the command itself says against it is in the text.
    pub async fn human(&mut self, line: &str) -> Result<String, MonitorError> {
        self.execute(qmp::human_monitor_command {
            command_line: line.to_owned(),
            cpu_index: None,
        })
        .await
    }

    async fn exchange(&mut self, name: &str, request: Value) -> Result<Value, MonitorError> {
        let request = self.numbered(request);
        let line = format!("{request}\n");
        let write = self.stream.get_mut().write_all(line.as_bytes());
        let silent = |_| MonitorError::Silent {
            command: name.to_owned(),
            within: self.patience,
        };
        timeout(self.patience, write)
            .await
            .map_err(silent)?
            .map_err(|source| MonitorError::Broken {
                command: name.to_owned(),
                source,
            })?;
        self.answer(name, &request).await
    }

    /// The request with a number, by which its answer is recognised.
    fn numbered(&mut self, mut request: Value) -> Value {
        self.last_id += 1;
        request["id"] = self.last_id.into();
        request
    }

    async fn answer(&mut self, name: &str, request: &Value) -> Result<Value, MonitorError> {
        let patience = self.patience;
        let answer = async {
            loop {
                let mut message = self.message(name).await?;
                if message.get("id") != Some(&request["id"]) {
                    continue;
                }
                if let Some(error) = message.get("error") {
                    let reason = error
                        .get("desc")
                        .and_then(Value::as_str)
                        .unwrap_or("without a word")
                        .to_owned();
                    return Err(MonitorError::Refused {
                        command: name.to_owned(),
                        reason,
                    });
                }
                return Ok(message
                    .get_mut("return")
                    .map(Value::take)
                    .unwrap_or_default());
            }
        };
        timeout(patience, answer).await.unwrap_or_else(|_| {
            Err(MonitorError::Silent {
                command: name.to_owned(),
                within: patience,
            })
        })
    }

    /// The next line that is JSON; a truncated reply to a former client may come before the greeting.
    async fn message(&mut self, during: &str) -> Result<Value, MonitorError> {
        let broken = |source| MonitorError::Broken {
            command: during.to_owned(),
            source,
        };
        loop {
            let mut line = Vec::new();
            let read = (&mut self.stream)
                .take(LONGEST_LINE)
                .read_until(b'\n', &mut line)
                .await
                .map_err(broken)?;
            if read == 0 {
                return Err(broken(io::ErrorKind::UnexpectedEof.into()));
            }
            if let Ok(message) = serde_json::from_slice(&line) {
                return Ok(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = "{\"QMP\":{\"version\":{},\"capabilities\":[]}}\n";

    /// A QEMU that answers each request with the next of `answers`, `ID` replaced by the request's id.
    async fn scripted(answers: &[&str]) -> Monitor<tokio::io::DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
        tokio::spawn(async move {
            let mut theirs = BufReader::new(theirs);
            theirs
                .write_all(format!("\"rest of an old reply\"}}\n{GREETING}").as_bytes())
                .await
                .expect("greets");
            for answer in std::iter::once("{\"return\":{},\"id\":ID}".to_owned()).chain(answers) {
                let mut request = String::new();
                theirs.read_line(&mut request).await.expect("asked");
                let request: Value = serde_json::from_str(&request).expect("JSON");
                let answer = answer.replace("ID", &request["id"].to_string());
                theirs
                    .write_all(format!("{answer}\n").as_bytes())
                    .await
                    .expect("answered");
            }
        });
        Monitor::greet(ours).await.expect("greeted")
    }

    #[tokio::test]
    async fn unknown_events_and_stale_replies_are_skipped() {
        let mut monitor = scripted(&[
            "{\"event\":\"INVENTED_IN_2031\",\"data\":{\"x\":1}}\n{\"return\":1,\"id\":77}\n{\"return\":\"yes\",\"id\":ID}",
        ])
        .await;
        assert_eq!(
            monitor.human("info usernet").await.expect("answered"),
            "yes"
        );
    }

    #[tokio::test]
    async fn a_refusal_has_qemus_message() {
        let mut monitor = scripted(&[
            "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no such thing\"},\"id\":ID}",
        ])
        .await;
        let error = monitor.execute(qmp::quit {}).await.expect_err("refused");
        assert_eq!(error.to_string(), "QEMU refused quit: no such thing");
    }

    #[tokio::test]
    async fn the_end_of_qemu_is_an_error() {
        let mut monitor = scripted(&[]).await;
        assert!(matches!(
            monitor.execute(qmp::quit {}).await,
            Err(MonitorError::Broken { .. })
        ));
    }
}
