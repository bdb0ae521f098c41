//! `logs`: the places where a failed start is explained.

use std::{
    fs::File,
    io::{ErrorKind, Read, Seek},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::ValueEnum;

use super::{all_logs, start::require_machine};
use crate::{
    cli::{
        context::Context,
        error::{CommandError, code},
        interrupt::Signals,
        output::Output,
    },
    guest::{Event, Order, SshError, Streams},
    machine::{
        self, MachineError,
        journal::{Journal, Since},
        shell,
    },
    project::Project,
    qemu::Process,
};

/// What `logs` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm logs                     # the guest's console\n  \
    k3s-vm logs k3s --follow\n  \
    k3s-vm logs k3s --since 10m\n  \
    k3s-vm logs cloud-init          # the first boot: cloud-init, and what makes a node of the guest\n  \
    k3s-vm logs all | less\n\n\
    In `all`, the console comes first, for its lines have no time of day; the others are sorted by theirs, in\n  \
    UTC, from the last boot on. With --since, only what has a time is shown.\n\n\
    When it fails:\n  \
    k3s's journal lies in the guest; when that does not answer, the console tells why: k3s-vm logs console")]
pub struct Args {
    /// Go on as the log grows, until Ctrl-C or the machine's end
    #[arg(long, short)]
    follow: bool,
    /// Only what was said in the last DUR, like 10m
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Which log
    #[arg(value_enum, default_value = "console")]
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Source {
    /// What the guest's serial console printed since the last start
    Console,
    /// k3s's journal in the guest
    K3s,
    /// What the guest did at its first boot: cloud-init's logs, and the journal of the units that make a node of it
    CloudInit,
    /// What QEMU itself printed since the last start
    Qemu,
    /// All of them
    All,
}

const POLL: Duration = Duration::from_millis(100);

pub(super) async fn run(
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
    let streams = Streams {
        input: tokio::io::empty(),
        output: tokio::io::stdout(),
        errors: tokio::io::stderr(),
    };
    let mut signals = Signals::listen()?;
    let next = async || Event::Signal(signals.next().await - 128);
    match shell::attend(ssh, &order, streams, next).await {
        // Whoever reads has read enough.
        Err(MachineError::Ssh(SshError::Pipe(error))) if error.kind() == ErrorKind::BrokenPipe => {
            Ok(ExitCode::SUCCESS)
        }
        status => Ok(ExitCode::from(u8::try_from(status?).unwrap_or(u8::MAX))),
    }
}

fn timeless(source: Source) -> CommandError {
    let name = if source == Source::Qemu {
        "QEMU's log"
    } else {
        "the console"
    };
    CommandError::new(format!(
        "{name} is of the last start only, and --since does not apply to it"
    ))
    .hint("leave --since away; it is for k3s, cloud-init and all")
    .with_code(code::USAGE)
}

async fn show(
    source: Source,
    follow: bool,
    project: &Project,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let mut log = Log::open(source, project)?.ok_or_else(|| {
        CommandError::new("the machine has not been started yet, so there is no log")
            .hint("k3s-vm start")
    })?;
    loop {
        let text = log.more(project).await?;
        output.data(&text);
        if text.is_empty() && (!follow || !runs(project)?) {
            return Ok(ExitCode::SUCCESS);
        }
        if follow {
            tokio::time::sleep(POLL).await;
        }
    }
}

pub(super) fn runs(project: &Project) -> Result<bool, CommandError> {
    let holder = Process::holder(&project.pidfile()).map_err(machine::MachineError::from)?;
    Ok(holder.is_some())
}

/// A log that is a file of the host, read as it grows.
pub(super) struct Log {
    source: Source,
    path: PathBuf,
    file: File,
}

impl Log {
    /// `None` when there is none yet.
    pub(super) fn open(source: Source, project: &Project) -> Result<Option<Self>, CommandError> {
        let path = match source {
            Source::Qemu => project.qemu_log(),
            _ => project.console_log(),
        };
        match File::open(&path) {
            Ok(file) => Ok(Some(Self { source, path, file })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&path, &error)),
        }
    }

    /// What has come since it was last asked; nothing when nothing has.
    pub(super) async fn more(&mut self, project: &Project) -> Result<String, CommandError> {
        if self.source == Source::Console {
            machine::logs::collect(project).await;
        }
        let mut bytes = Vec::new();
        self.read(&mut bytes)
            .map_err(|error| unreadable(&self.path, &error))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn read(&mut self, bytes: &mut Vec<u8>) -> std::io::Result<()> {
        // A new start begins the file anew.
        if self.file.metadata()?.len() < self.file.stream_position()? {
            self.file.rewind()?;
        }
        self.file.read_to_end(bytes)?;
        Ok(())
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> CommandError {
    CommandError::new(format!("cannot read {}", path.display())).because(error)
}
