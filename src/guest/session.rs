//! One command in the guest, or a login shell, from its beginning to its end: what is typed, what it writes, and what
//! happens on this side meanwhile.

use std::{io, path::PathBuf, time::Duration};

use russh::{
    Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf,
    client::{self, Handle},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::SshError;

/// A command to run, and its surroundings.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// The command, for the guest's shell; a login shell without one.
    pub command: Option<String>,
    /// The terminal that is made for it.
    pub terminal: Option<Terminal>,
    /// The socket of an agent that may be asked from inside the guest, for as long as the command runs.
    pub agent: Option<PathBuf>,
}

/// A terminal to be made in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    /// The kind, from `TERM`.
    pub kind: String,
    /// Its size.
    pub size: TerminalSize,
}

/// In characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// An event on this side while a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Our terminal has another size now.
    Resized(TerminalSize),
    /// We were sent the signal of this number, which asks for the end.
    Signal(u8),
}

/// The streams of a command.
#[derive(Debug)]
pub struct Streams<I, O, E> {
    /// The standard input.
    pub input: I,
    /// Where its standard output goes.
    pub output: O,
    /// Where its standard error goes; a command with a terminal has none.
    pub errors: E,
}

/// How long a command may take to end after a signal.
const GRACE: Duration = Duration::from_secs(10);
/// How long the guest may take to pass a signal on.
const PASSING: Duration = Duration::from_secs(5);
/// Of the signals that cannot be ignored.
const KILL: u8 = 9;

/// Runs the order to its end; `next` waits for what happens on this side.
pub(super) async fn run(
    handle: &Handle<impl client::Handler>,
    order: &Order,
    streams: Streams<impl AsyncRead + Unpin, impl AsyncWrite + Unpin, impl AsyncWrite + Unpin>,
    next: impl AsyncFnMut() -> Event,
) -> Result<u32, SshError> {
    let mut channel = handle.channel_open_session().await?;
    if order.agent.is_some() {
        lend_agent(&mut channel).await?;
    }
    if let Some(Terminal { kind, size }) = &order.terminal {
        let (columns, rows) = (size.columns.into(), size.rows.into());
        channel
            .request_pty(false, kind, columns, rows, 0, 0, &[])
            .await?;
    }
    match &order.command {
        Some(command) => channel.exec(true, command.as_str()).await?,
        None => channel.request_shell(true).await?,
    }
    let (heard, said) = channel.split();
    // Apart from each other: a guest that does not read must still be heard.
    tokio::select! {
        biased;
        status = forward_output(heard, streams.output, streams.errors) => status,
        error = forward_input(&said, streams.input) => Err(error),
        status = exec_interactive(handle, &said, order.terminal.is_some(), next) => status,
    }
}

async fn lend_agent(channel: &mut Channel<client::Msg>) -> Result<(), SshError> {
    channel.agent_forward(true).await?;
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => return Ok(()),
            Some(ChannelMsg::Failure) => return Err(SshError::NoAgentForwarding),
            Some(_) => {}
            None => return Err(russh::Error::Disconnect.into()),
        }
    }
}

/// Passes on what the command writes, until its end.
async fn forward_output(
    mut heard: ChannelReadHalf,
    mut output: impl AsyncWrite + Unpin,
    mut errors: impl AsyncWrite + Unpin,
) -> Result<u32, SshError> {
    let mut status = 255;
    while let Some(message) = heard.wait().await {
        match message {
            ChannelMsg::Data { data } => write(&mut output, &data).await?,
            ChannelMsg::ExtendedData { data, .. } => write(&mut errors, &data).await?,
            ChannelMsg::ExitStatus { exit_status } => status = exit_status,
            ChannelMsg::ExitSignal { signal_name, .. } => {
                status = 128 + signal_number(&signal_name);
            }
            _ => {}
        }
    }
    Ok(status)
}

/// Passes on what is typed. The command continues at the end of the input, so this ends only with an error.
async fn forward_input(
    said: &ChannelWriteHalf<client::Msg>,
    mut input: impl AsyncRead + Unpin,
) -> SshError {
    let mut typed = vec![0; 32 << 10];
    loop {
        let passed_on = match input.read(&mut typed).await {
            Ok(0) => break,
            Ok(read) => said.data(&typed[..read]).await,
            Err(error) => return SshError::Pipe(error),
        };
        if passed_on.is_err() {
            break;
        }
    }
    // An end that comes too late is the command's own, which is heard of.
    let _ = said.eof().await;
    std::future::pending().await
}

/// Has the guest know what happens on this side. Comes back when the command was sent a signal and still did not end.
async fn exec_interactive(
    handle: &Handle<impl client::Handler>,
    said: &ChannelWriteHalf<client::Msg>,
    has_terminal: bool,
    mut next: impl AsyncFnMut() -> Event,
) -> Result<u32, SshError> {
    let signal = loop {
        match next().await {
            Event::Resized(TerminalSize { columns, rows }) => {
                said.window_change(columns.into(), rows.into(), 0, 0)
                    .await?;
            }
            Event::Signal(signal) => break signal,
        }
    };
    // What has a terminal is hung up with it.
    if !has_terminal {
        send_signal(handle, signal).await;
        let again = async { while !matches!(next().await, Event::Signal(_)) {} };
        let _ = tokio::time::timeout(GRACE, again).await;
        send_signal(handle, KILL).await;
        // Its end is heard of, unless the guest hangs.
        tokio::time::sleep(PASSING).await;
    }
    Ok(128 + u32::from(signal))
}

/// To the process groups of all commands of this connection, which are the children of the sshd that serves it. sshd would
/// do that itself when it is asked in its own protocol, but before OpenSSH 9.8 not for root.
async fn send_signal(handle: &Handle<impl client::Handler>, signal: u8) {
    let command = format!(
        "exec sh -c 'for it in $(cat /proc/$PPID/task/$PPID/children); do [ $it = $$ ] || kill -s {signal} -- -$it; done'"
    );
    let passed = async {
        let channel = handle.channel_open_session().await?;
        channel.exec(true, command).await?;
        let (heard, _said) = channel.split();
        forward_output(heard, tokio::io::sink(), tokio::io::sink()).await
    };
    match tokio::time::timeout(PASSING, passed).await {
        Ok(Ok(0)) => {}
        trouble => tracing::debug!(?trouble, "signal {signal} may not have come to the command"),
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
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::Custom(name) if name == "USR2" => 12,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        _ => 15,
    }
}

/// Copies between the agent at `socket` and a channel that the guest has opened to it.
pub(super) async fn forward_agent(
    socket: PathBuf,
    channel: Channel<client::Msg>,
) -> io::Result<()> {
    let mut agent = tokio::net::UnixStream::connect(socket).await?;
    tokio::io::copy_bidirectional(&mut agent, &mut channel.into_stream()).await?;
    Ok(())
}
