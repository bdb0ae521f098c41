//! `logs`: the logs of the console, k3s, cloud-init and QEMU.

use std::{
    io::{self, ErrorKind, IsTerminal},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use tokio::io::AsyncWrite;

use crate::{
    cli::{
        commands::{
            all_logs,
            log_file::{self, Log, Source},
        },
        context::{Context, require_machine},
        error::{CommandError, code},
        interrupt::Signals,
        terminal::{lines::Lines, output::Output, sanitize::plain, stdout},
    },
    guest::{Event, Order, SshError, Streams},
    machine::{
        MachineError,
        access::{
            journal::{Journal, Since},
            shell,
        },
    },
    project::Project,
};

/// The arguments of `logs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm logs                     # the guest's console\n  \
    k3s-vm logs k3s --follow\n  \
    k3s-vm logs k3s --since 10m\n  \
    k3s-vm logs cloud-init          # the first boot\n  \
    k3s-vm logs all | less\n\n\
    When it fails:\n  \
    The guest must answer for k3s and cloud-init. If it does not: k3s-vm logs console")]
pub struct Args {
    /// Follow the log, until Ctrl-C or the end of the VM
    #[arg(long, short)]
    follow: bool,
    /// Only lines of this last time, e.g. 10m
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Log to show
    #[arg(value_enum, default_value = "console")]
    source: Source,
}

const POLL: Duration = Duration::from_millis(100);

pub(crate) async fn run(
    args: &Args,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    require_machine(context)?;
    let project = &context.project;
    let since = args.since.and_then(|it| SystemTime::now().checked_sub(it));
    let journal = match args.source {
        Source::All => return all_logs::run(args.follow, since, project, output).await,
        Source::K3s => Journal::K3s,
        Source::CloudInit => Journal::FirstBoot,
        file if since.is_some() => return Err(timeless(file)),
        file => return show(file, args.follow, project, output).await,
    };
    let since = since.map_or(Since::Ever, Since::Time);
    let ssh = shell::connect(project).await?;
    let order = Order {
        command: Some(journal.command(since, args.follow)),
        ..Order::default()
    };
    let stdout = stdout::stdout().map_err(|error| stdout::unwritable(&error))?;
    let stdout = tokio::fs::File::from_std(stdout);
    let streams = Streams {
        input: tokio::io::empty(),
        output: shown(io::stdout().is_terminal(), stdout, |line| {
            output.foreign(&format!("{line}\n"));
        }),
        errors: shown(io::stderr().is_terminal(), tokio::io::stderr(), |line| {
            output.line(&plain(line));
        }),
    };
    let mut signals = Signals::listen()?;
    let next = async || Event::Signal(signals.next().await - 128);
    match shell::exec_interactive(ssh, &order, streams, next).await {
        // The reader has closed the pipe.
        Err(MachineError::Ssh(SshError::Pipe(error))) if error.kind() == ErrorKind::BrokenPipe => {
            Ok(ExitCode::SUCCESS)
        }
        status => Ok(ExitCode::from(u8::try_from(status?).unwrap_or(u8::MAX))),
    }
}

/// The sink of the guest's output: to a terminal line by line through `show`, without control characters; else
/// unchanged.
fn shown<'a>(
    is_terminal: bool,
    stream: impl AsyncWrite + Unpin + 'a,
    show: impl FnMut(&str) + Unpin + 'a,
) -> Box<dyn AsyncWrite + Unpin + 'a> {
    if is_terminal {
        Box::new(Lines::to(show))
    } else {
        Box::new(stream)
    }
}

fn timeless(source: Source) -> CommandError {
    let name = if source == Source::Qemu {
        "QEMU's log"
    } else {
        "the console"
    };
    CommandError::new(format!(
        "cannot use --since with {name}: its lines have no time of day"
    ))
    .hint("remove --since, or use it with k3s, cloud-init or all")
    .with_code(code::USAGE)
}

async fn show(
    source: Source,
    follow: bool,
    project: &Project,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let mut log = Log::open(source, project)?.ok_or_else(|| {
        CommandError::new("no log yet: the VM has not been started").hint("k3s-vm start")
    })?;
    loop {
        let text = log.more(project).await?;
        output.foreign(&text);
        if output.is_closed() || text.is_empty() && (!follow || !log_file::runs(project)?) {
            return Ok(ExitCode::SUCCESS);
        }
        if follow {
            tokio::time::sleep(POLL).await;
        }
    }
}
