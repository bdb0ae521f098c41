//! `ssh`: a shell or a command in the guest.

use std::{
    env,
    io::{self, ErrorKind, IsTerminal, stdin},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::ExitCode,
};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::{
        context::Context,
        error::CommandError,
        interrupt::Signals,
        terminal::{output::Output, stdout},
    },
    guest::{Event, Order, SshError, Streams, Terminal, TerminalSize},
    machine::{MachineError, access::shell},
};

/// The arguments of `ssh`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm ssh\n  \
    k3s-vm ssh journalctl -u k3s -n 50\n  \
    k3s-vm ssh 'df -h /; uptime'\n  \
    k3s-vm ssh --tty top\n  \
    k3s-vm ssh --forward-agent git clone git@example.org:shop.git\n  \
    tar c src | k3s-vm ssh tar x -C /tmp\n\n\
    When it fails:\n  \
    The console shows why a guest does not answer: k3s-vm logs console. Arguments are joined with spaces and read by \
    the guest's shell, as in OpenSSH. A signal that ends k3s-vm is passed to the command, which is killed if it still \
    runs 10 s later.")]
pub struct Args {
    /// Allocate a terminal for the command
    #[arg(long, short)]
    tty: bool,
    /// Forward your SSH agent while the command runs
    #[arg(long, short = 'A')]
    forward_agent: bool,
    /// Command to run [default: a login shell]
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<String>,
}

/// The exit code that shells report for SIGPIPE, for a command whose output is no longer read.
const BROKEN_PIPE: u8 = 141;

pub(crate) async fn run(
    args: &Args,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let interactive = (args.command.is_empty() || args.tty) && stdin().is_terminal();
    if args.tty && !interactive {
        output.warning("no terminal for the command: stdin is not a terminal");
    }
    let agent = args.forward_agent.then(agent).transpose()?;
    // Before the command runs, signals end this program as usual.
    let ssh = shell::connect(&context.project).await?;
    let mut signals = Signals::listen()?;
    let mut resized = signal(SignalKind::window_change())
        .map_err(|error| CommandError::new("cannot listen for signals").because(&error))?;
    let order = Order {
        command: (!args.command.is_empty()).then(|| args.command.join(" ")),
        terminal: interactive.then(terminal),
        agent,
    };
    let next = async || loop {
        tokio::select! {
            code = signals.next() => return Event::Signal(code - 128),
            _ = resized.recv(), if interactive => if let Some(size) = size() {
                return Event::Resized(size);
            },
        }
    };
    let streams = Streams {
        input: tokio::io::stdin(),
        output: stdout::stream().map_err(|error| stdout::unwritable(&error))?,
        errors: tokio::io::stderr(),
    };
    let raw = interactive.then(RawMode::enter).transpose()?;
    let result = shell::exec_interactive(ssh, &order, streams, next).await;
    drop(raw);
    match result {
        Err(MachineError::Ssh(SshError::Pipe(error))) if error.kind() == ErrorKind::BrokenPipe => {
            Ok(ExitCode::from(BROKEN_PIPE))
        }
        result => Ok(ExitCode::from(u8::try_from(result?).unwrap_or(u8::MAX))),
    }
}

/// The socket of the user's agent, which must answer.
fn agent() -> Result<PathBuf, CommandError> {
    let socket = env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
    let Some(socket) = socket.map(PathBuf::from) else {
        return Err(CommandError::new(
            "there is no SSH agent to forward: SSH_AUTH_SOCK is not set",
        )
        .hint("start one: eval \"$(ssh-agent)\" && ssh-add"));
    };
    match UnixStream::connect(&socket) {
        Ok(_) => Ok(socket),
        Err(error) => Err(CommandError::new(format!(
            "the SSH agent at {} (SSH_AUTH_SOCK) does not answer",
            socket.display()
        ))
        .because(&error)
        .hint("start another one: eval \"$(ssh-agent)\" && ssh-add")),
    }
}

/// The kind and the size of this terminal, for the guest's.
fn terminal() -> Terminal {
    Terminal {
        kind: env::var("TERM").unwrap_or_else(|_| "xterm".to_owned()),
        size: size().unwrap_or(TerminalSize {
            columns: 80,
            rows: 24,
        }),
    }
}

fn size() -> Option<TerminalSize> {
    let size = rustix::termios::tcgetwinsize(io::stdin()).ok()?;
    Some(TerminalSize {
        columns: size.ws_col,
        rows: size.ws_row,
    })
}

/// Passes every key to the guest. The terminal is restored when this is dropped.
struct RawMode {
    before: Termios,
}

impl RawMode {
    fn enter() -> Result<Self, CommandError> {
        let trouble = |error: nix::Error| {
            CommandError::new("cannot switch the terminal to raw mode").because(&error)
        };
        let before = tcgetattr(stdin()).map_err(trouble)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSADRAIN, &raw).map_err(trouble)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), SetArg::TCSADRAIN, &self.before);
    }
}
