//! All output: stdout is for data, stderr for messages. Colors and progress bars only on a terminal.

use std::{
    io::{self, ErrorKind, IsTerminal, Write},
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::{
    base::{Progress, Size},
    cli::{
        error::CommandError,
        global::Global,
        terminal::{
            events::{self, Event},
            machine_flag::CommandHints,
            sanitize::{plain, readable, sanitize},
            stdout::{stdout, unwritable},
        },
    },
};

const ERROR: Style = AnsiColor::Red.on_default().bold();

const WARNING: Style = AnsiColor::Yellow.on_default().bold();

const HINT: Style = AnsiColor::Cyan.on_default().bold();

const DIM: Style = Style::new().dimmed();

/// The terminal, or pipes.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    choice: anstream::ColorChoice,
    bars: MultiProgress,
    moving: bool,
    quiet: bool,
    events: bool,
    named: CommandHints,
    began: Instant,
    /// The error of the first write to stdout that failed.
    closed: Arc<OnceLock<io::Error>>,
}

impl Output {
    /// With `events`, stdout receives JSON events.
    pub(crate) fn new(
        global: &Global,
        events: bool,
        commands: Vec<String>,
        program: String,
    ) -> Self {
        let choice = match global.color {
            clap::ColorChoice::Auto => anstream::ColorChoice::Auto,
            clap::ColorChoice::Always => anstream::ColorChoice::Always,
            clap::ColorChoice::Never => anstream::ColorChoice::Never,
        };
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let moving = std::io::stderr().is_terminal() && !dumb && !global.quiet;
        let target = if moving {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bars = MultiProgress::with_draw_target(target);
        Self {
            choice,
            bars,
            moving,
            quiet: global.quiet,
            events,
            named: CommandHints::new(
                global.machine.clone().and_then(|which| which.0),
                commands,
                program,
            ),
            began: Instant::now(),
            closed: Arc::default(),
        }
    }

    /// Prints data on stdout; see [`Output::end`] for errors.
    pub(crate) fn data(&self, text: &str) {
        self.written(
            stdout()
                .and_then(|stdout| AutoStream::new(stdout, self.choice).write_all(text.as_bytes())),
        );
    }

    /// Prints the guest's or QEMU's own text: unchanged to a pipe, and without control sequences to a terminal.
    pub(crate) fn foreign(&self, text: &str) {
        if io::stdout().is_terminal() {
            self.data(&plain(text));
        } else {
            self.data(text);
        }
    }

    fn written(&self, result: io::Result<()>) {
        if let Err(error) = result {
            let _ = self.closed.set(error);
        }
    }

    /// Returns `true` when stdout takes no more data.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get().is_some()
    }

    /// The exit code of a command that succeeded: a failure if its data could not be written. A reader that has gone is
    /// no failure.
    pub(crate) fn end(&self, code: ExitCode) -> ExitCode {
        match self.closed.get() {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => self.fail(&unwritable(error)),
            _ => code,
        }
    }

    /// A JSON document for a pipe.
    pub(crate) fn document(&self, document: &impl Serialize) -> Result<(), CommandError> {
        let json = serde_json::to_string_pretty(document).map_err(|error| {
            CommandError::new("cannot write the answer as JSON").because(&error)
        })?;
        self.data(&readable(&format!("{json}\n")));
        Ok(())
    }

    /// Prints a document on one line.
    pub(crate) fn document_line(&self, document: &impl Serialize) {
        let line = serde_json::to_string(document).map_err(io::Error::from);
        self.written(line.and_then(|json| events::put(&readable(&format!("{json}\n")))));
    }

    /// Returns `true` when events are printed for a program.
    pub(crate) const fn prints_events(&self) -> bool {
        self.events
    }

    /// Prints an event, if events are requested.
    pub(crate) fn event(&self, event: &Event<'_>) {
        if self.events {
            self.written(events::write(event, self.began));
        }
    }

    /// Prints a line on stderr.
    pub(crate) fn line(&self, text: &str) {
        self.bars.suspend(|| self.print(text));
    }

    /// Prints a step that is done, with the time since the command began.
    pub(crate) fn step(&self, text: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        let text = self.named.commands_in(text);
        self.line(&format!("{DIM}{seconds:6.1}s{DIM:#}  {}", sanitize(&text)));
    }

    pub(crate) fn warning(&self, text: &str) {
        let text = self.named.commands_in(text);
        self.line(&format!("{WARNING}warning:{WARNING:#} {}", sanitize(&text)));
    }

    pub(crate) fn detail(&self, text: &str) {
        self.line(&format!("{DIM}{}{DIM:#}", sanitize(text)));
    }

    /// Prints the error that ends the command.
    pub(crate) fn fail(&self, error: &CommandError) -> ExitCode {
        let hints = error.hints.iter().map(|it| self.named.commands_in(it));
        let hints: Vec<String> = hints.collect();
        let message = &error.message;
        self.event(&Event::Error {
            message,
            excerpt: error.excerpt.as_deref(),
            hints: &hints,
            code: error.code,
        });
        if !message.is_empty() {
            self.line(&format!("{ERROR}error:{ERROR:#} {}", sanitize(message)));
        }
        if let Some(excerpt) = &error.excerpt {
            self.line("");
            excerpt
                .lines()
                .for_each(|line| self.line(&format!("{DIM}  | {}{DIM:#}", sanitize(line))));
        }
        if !hints.is_empty() {
            self.line("");
        }
        for hint in &hints {
            self.line(&format!("{HINT}hint:{HINT:#} {}", sanitize(hint)));
        }
        ExitCode::from(error.code)
    }

    fn print(&self, text: &str) {
        let mut stderr = AutoStream::new(std::io::stderr().lock(), self.choice);
        let _ = writeln!(stderr, "{text}");
    }

    /// Downloads: bars on a terminal, lines elsewhere.
    pub(crate) fn progress(&self) -> Transfers {
        self.transfers(Some(["fetching", "fetched"]))
    }

    /// The progress of copies.
    pub(crate) fn copying(&self) -> Transfers {
        self.transfers(Some(["copying", "copied"]))
    }

    fn transfers(&self, words: Option<[&'static str; 2]>) -> Transfers {
        Transfers {
            output: self.clone(),
            words,
            transfers: Mutex::default(),
        }
    }

    /// Transfers: bars on a terminal, nothing elsewhere.
    pub(crate) fn bars(&self) -> Transfers {
        self.transfers(None)
    }
}

/// The transfers of one command.
#[derive(Debug)]
pub(crate) struct Transfers {
    output: Output,
    /// The verbs of a running and of a finished transfer, if lines are printed.
    words: Option<[&'static str; 2]>,
    transfers: Mutex<Vec<Transfer>>,
}

#[derive(Debug)]
struct Transfer {
    what: String,
    bar: ProgressBar,
    began: Instant,
    told: Instant,
    /// The time of its last event.
    reported: Instant,
}

impl Transfer {
    fn report(&mut self, output: &Output) {
        self.reported = Instant::now();
        output.event(&Event::Progress {
            what: &self.what,
            done: self.bar.position(),
            total: self.bar.length(),
        });
    }
}

impl Transfers {
    fn lock(&self) -> MutexGuard<'_, Vec<Transfer>> {
        self.transfers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often a transfer prints a line where bars cannot move.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// How often a transfer is an event.
const EVENT_EVERY: Duration = Duration::from_secs(1);

impl Progress for Transfers {
    fn begin(&self, what: &str, done: u64, total: Option<u64>) -> usize {
        let bar = self.output.bars.add(ProgressBar::no_length());
        bar.set_message(what.to_owned());
        let style = match total {
            // For 80 columns.
            Some(total) => {
                bar.set_length(total);
                "{spinner} {msg:25!} {bar:12} {decimal_bytes:>9}/{decimal_total_bytes:9} {decimal_bytes_per_sec:>11} {eta:>4}"
            }
            None => "{spinner} {msg:28!} {decimal_bytes:>9} {decimal_bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_position(done);
        if let Some([doing, _]) = self.words
            && !self.output.quiet
            && !self.output.moving
        {
            let size = total.map_or_else(String::new, |total| {
                format!(" ({})", Size::bytes(total).approximate())
            });
            let resumed = if done > 0 {
                format!(", {} at hand", Size::bytes(done).approximate())
            } else {
                String::new()
            };
            self.output.step(&format!("{doing} {what}{size}{resumed}"));
        }
        let now = Instant::now();
        let mut transfers = self.lock();
        let mut transfer = Transfer {
            what: what.to_owned(),
            bar,
            began: now,
            told: now,
            reported: now,
        };
        transfer.report(&self.output);
        transfers.push(transfer);
        transfers.len() - 1
    }

    fn advance(&self, transfer: usize, bytes: u64) {
        let mut transfers = self.lock();
        let Some(transfer) = transfers.get_mut(transfer) else {
            return;
        };
        transfer.bar.inc(bytes);
        if transfer.reported.elapsed() >= EVENT_EVERY {
            transfer.report(&self.output);
        }
        if let Some([doing, _]) = self.words
            && !self.output.quiet
            && !self.output.moving
            && transfer.told.elapsed() >= PLAIN_EVERY
        {
            transfer.told = Instant::now();
            let done = Size::bytes(transfer.bar.position()).approximate();
            self.output
                .step(&format!("{doing} {}: {done}", transfer.what));
        }
    }

    fn end(&self, transfer: usize) {
        let mut transfers = self.lock();
        let Some(transfer) = transfers.get_mut(transfer) else {
            return;
        };
        transfer.report(&self.output);
        let done = transfer.bar.position();
        let whole = transfer.bar.length().is_none_or(|total| done >= total);
        // Moves the bar to its end, however far it came.
        transfer.bar.finish_and_clear();
        if let Some([_, done_with]) = self.words
            && whole
            && !self.output.quiet
        {
            let size = Size::bytes(done).approximate();
            let seconds = transfer.began.elapsed().as_secs_f64();
            self.output.step(&format!(
                "{done_with} {} ({size} in {seconds:.1} s)",
                transfer.what
            ));
        }
    }
}
