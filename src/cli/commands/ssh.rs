//! `ssh`: a shell or a command in the guest.

use std::{
    io::{IsTerminal, stdin},
    process::ExitCode,
};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::{
    cli::{context::Context, error::CommandError},
    guest::ssh::Terminal,
    machine,
};

/// As root, with the machine's own key. The exit code is the command's.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm ssh\n  \
    k3s-vm ssh journalctl -u k3s -n 50\n  \
    k3s-vm ssh 'df -h /; uptime'\n  \
    tar c src | k3s-vm ssh tar x -C /tmp\n\n\
    When it fails:\n  \
    A guest that does not answer shows why on its console: k3s-vm logs console. Words are joined with\n  \
    spaces and read by the guest's shell, as OpenSSH does.")]
pub struct Args {
    /// The command; a login shell without one
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<String>,
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<ExitCode, CommandError> {
    let command = (!args.command.is_empty()).then(|| args.command.join(" "));
    let interactive = command.is_none() && stdin().is_terminal();
    let terminal = interactive.then(terminal);
    let raw = interactive.then(RawMode::enter).transpose()?;
    let (input, output, errors) = (tokio::io::stdin(), tokio::io::stdout(), tokio::io::stderr());
    let result = machine::shell::run(
        &context.project,
        command.as_deref(),
        terminal,
        input,
        output,
        errors,
    )
    .await;
    drop(raw);
    let status = result?;
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)))
}

/// The kind and the size of our own terminal, for the guest's.
fn terminal() -> Terminal {
    let size = rustix::termios::tcgetwinsize(stdin()).ok();
    Terminal {
        kind: std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned()),
        columns: size.map_or(80, |size| size.ws_col),
        rows: size.map_or(24, |size| size.ws_row),
    }
}

/// Every key goes to the guest; the terminal is as before when this is dropped.
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
