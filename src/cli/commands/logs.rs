//! `logs`: the places where a failed start is explained.

use std::{
    io::{ErrorKind, Read, Seek},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use clap::ValueEnum;

use super::start::require_machine;
use crate::{
    cli::{context::Context, error::CommandError, output::Output},
    machine,
    qemu::Process,
};

/// The console and QEMU's own log also of a stopped machine; k3s's journal of a running one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm logs                     # the guest's console\n  \
    k3s-vm logs k3s --follow\n  \
    k3s-vm logs qemu\n\n\
    When it fails:\n  \
    k3s's journal lies in the guest; when that does not answer, the console tells why: k3s-vm logs console")]
pub struct Args {
    /// Go on as the log grows, until Ctrl-C or the machine's end
    #[arg(long, short)]
    follow: bool,
    /// Which log
    #[arg(value_enum, default_value = "console")]
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Source {
    /// What the guest's serial console printed since the last start
    Console,
    /// k3s's journal in the guest
    K3s,
    /// What QEMU itself printed since the last start
    Qemu,
}

const POLL: Duration = Duration::from_millis(100);

pub(super) async fn run(
    args: &Args,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    require_machine(context)?;
    let project = &context.project;
    let path = match args.source {
        Source::Console => project.console_log(),
        Source::Qemu => project.qemu_log(),
        Source::K3s => return journal(args.follow, context).await,
    };
    show(&path, args, context, output).await
}

async fn journal(follow: bool, context: &Context) -> Result<ExitCode, CommandError> {
    let command = format!(
        "journalctl --no-pager --output=short-iso --unit=k3s{}",
        if follow { " --follow" } else { "" }
    );
    let (input, output, errors) = (tokio::io::empty(), tokio::io::stdout(), tokio::io::stderr());
    let status = machine::shell::run(
        &context.project,
        Some(&command),
        None,
        input,
        output,
        errors,
    )
    .await?;
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)))
}

async fn show(
    path: &Path,
    args: &Args,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let unreadable = |error: &dyn std::fmt::Display| {
        CommandError::new(format!("cannot read {}", path.display())).because(error)
    };
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(CommandError::new(
                "the machine has not been started yet, so there is no log",
            )
            .hint("k3s-vm start"));
        }
        Err(error) => return Err(unreadable(&error)),
    };
    loop {
        if args.source == Source::Console {
            machine::logs::collect(&context.project).await;
        }
        let mut bytes = Vec::new();
        let read = file
            .read_to_end(&mut bytes)
            .map_err(|error| unreadable(&error))?;
        output.data(&String::from_utf8_lossy(&bytes));
        if read == 0 {
            let runs = Process::holder(&context.project.pidfile())
                .map_err(machine::MachineError::from)?
                .is_some();
            if !args.follow || !runs {
                return Ok(ExitCode::SUCCESS);
            }
            // A new start begins the file anew.
            let length = file.metadata().map_err(|error| unreadable(&error))?.len();
            if length < file.stream_position().map_err(|error| unreadable(&error))? {
                file.rewind().map_err(|error| unreadable(&error))?;
            }
        }
        if args.follow {
            tokio::time::sleep(POLL).await;
        }
    }
}
