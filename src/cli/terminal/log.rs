//! Log events become lines on stderr, and with `LOG_FILE` lines with times in a file.

use std::{
    env,
    fmt::{self, Write},
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

use crate::{
    base::files::{PRIVATE, expand_home},
    cli::{
        error::CommandError,
        global::Global,
        terminal::{events, output::Output, sanitize::PlainFile},
    },
};

/// Log events of the VM as stages and warnings.
pub(crate) struct EventLayer {
    pub(crate) output: Output,
}

impl<S: Subscriber> Layer<S> for EventLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let message = text.0.as_str();
        self.output.event(&match *event.metadata().level() {
            Level::ERROR | Level::WARN => events::Event::Warning { message },
            _ => events::Event::Stage { message },
        });
    }
}

/// The level of messages on stderr.
fn level_of(global: &Global) -> LevelFilter {
    match (global.is_debug() || global.verbose, global.quiet) {
        (true, _) => LevelFilter::DEBUG,
        (_, true) => LevelFilter::WARN,
        _ => LevelFilter::INFO,
    }
}

/// Sends log events to stderr, to the events on stdout and to the log file.
pub(crate) fn init(global: &Global, output: &Output) -> Result<(), CommandError> {
    let others = if global.is_debug() {
        LevelFilter::INFO
    } else {
        LevelFilter::OFF
    };
    let ours = |level| {
        Targets::new()
            .with_default(others)
            .with_target("k3s_vm", level)
    };
    let stderr = StderrLayer {
        output: output.clone(),
    };
    let log_file = open_log_file(global)?;
    let file = log_file.as_ref().and_then(|opened| opened.as_ref().ok());
    let file = file.map(|file| {
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(Arc::clone(file));
        layer.with_filter(ours(LevelFilter::DEBUG))
    });
    let events = output.prints_events().then(|| {
        let layer = EventLayer {
            output: output.clone(),
        };
        // The terminal's own messages about the end are an event of their own.
        let machines = Targets::new()
            .with_target("k3s_vm", LevelFilter::INFO)
            .with_target("k3s_vm::cli", LevelFilter::WARN);
        layer.with_filter(machines)
    });
    let _ = tracing_subscriber::registry()
        .with(stderr.with_filter(ours(level_of(global))))
        .with(events)
        .with(file)
        .try_init();
    if let Some(Err(reason)) = log_file {
        tracing::warn!("no log is kept, for LOG_FILE cannot be used: {reason}");
    }
    Ok(())
}

/// Opens the log file, if one is set. The inner error is about a file that may be meant for another program.
fn open_log_file(global: &Global) -> Result<Option<Result<Arc<PlainFile>, String>>, CommandError> {
    let Some((path, is_ours)) = log_file(global) else {
        return Ok(None);
    };
    let error = match open(&path) {
        Ok(file) => return Ok(Some(Ok(Arc::new(PlainFile(file))))),
        Err(error) => error,
    };
    let what = format!("cannot write the log file {}", path.display());
    let error = CommandError::new(what).because(&error);
    if is_ours {
        let hint = "K3S_VM_LOG_FILE names a file that you may write; unset it to go without";
        return Err(error.hint(hint));
    }
    Ok(Some(Err(error.message)))
}

/// The path of the log file, and `true` if it is surely meant for this program.
fn log_file(global: &Global) -> Option<(PathBuf, bool)> {
    if let Some(path) = &global.log_file {
        return (!path.as_os_str().is_empty()).then(|| (expand_home(path), true));
    }
    let path = env::var_os("LOG_FILE").filter(|it| !it.is_empty())?;
    Some((expand_home(Path::new(&path)), false))
}

/// A FIFO without a reader is an error, and so is stdout, as `/dev/stdout` or by another name: it is for data, which a shell
/// may run.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(PRIVATE)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)?;
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?).metadata()?;
    let log = file.metadata()?;
    let null = fs::metadata("/dev/null")?;
    let is_same =
        |one: &Metadata, other: &Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
    if is_same(&log, &stdout) && !is_same(&log, &null) {
        return Err(io::Error::other("it is stdout, which is for data"));
    }
    Ok(file)
}

struct StderrLayer {
    output: Output,
}

impl<S: Subscriber> Layer<S> for StderrLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let text = text.0;
        match *event.metadata().level() {
            Level::ERROR | Level::WARN => self.output.warning(&text),
            Level::INFO => self.output.step(&text),
            _ => self.output.detail(&text),
        }
    }
}

/// The message, with the other fields after it.
#[derive(Default)]
pub(crate) struct Text(pub(crate) String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = if field.name() == "message" {
            let rest = std::mem::take(&mut self.0);
            write!(self.0, "{value:?}{rest}")
        } else {
            write!(self.0, " {}={value:?}", field.name())
        };
    }
}
