//! Ctrl-C and other signals: the work of the command is dropped, and a QEMU that it started is ended.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{context::Context, error::CommandError};
use crate::machine::Machine;

/// How long a signal may take to reach the runtime after a child's death.
const SIGNAL_TIMEOUT: Duration = Duration::from_millis(5);

/// Locks the VM for `verb` and runs `work` on it. When `work` fails or is interrupted, a QEMU that it started is ended.
///
/// Signals are handled from before anything is written: an unhandled one ends the program in the middle of its work.
pub(crate) async fn run_on_machine<T, E: Into<CommandError>>(
    context: Context,
    verb: &str,
    work: impl AsyncFnOnce(&Machine) -> Result<T, E>,
) -> Result<T, CommandError> {
    let mut signals = Signals::listen()?;
    let machine = signals.unless_one_comes(context.open(verb)).await?;
    let work = async { work(&machine).await.map_err(Into::into) };
    let mut result = signals.unless_one_comes(work).await;
    // The terminal interrupts the children as well: the end of one of them is not the cause.
    if result.is_err()
        && let Ok(code) = tokio::time::timeout(SIGNAL_TIMEOUT, signals.next()).await
    {
        result = Err(CommandError::interrupted(code));
    }
    if result.is_err() {
        machine.cleanup_on_failure().await;
    }
    result
}

/// Runs `work` that does not change the VM, until a signal.
pub(crate) async fn run_until_signal<T>(
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    let mut signals = Signals::listen()?;
    tokio::select! {
        result = work => result,
        code = signals.next() => Err(CommandError {
            hints: Vec::new(),
            ..CommandError::interrupted(code)
        }),
    }
}

/// The signals that end the program.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Ignored under nohup.
    hangup: Option<Signal>,
}

impl Signals {
    /// Handles the signals from now on.
    pub(crate) fn listen() -> Result<Self, CommandError> {
        Self::try_to_listen()
            .map_err(|error| CommandError::new("cannot listen for signals").because(&error))
    }

    fn try_to_listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: if is_ignored(1) {
                None
            } else {
                Some(signal(SignalKind::hangup())?)
            },
        })
    }

    /// Does `work`, or drops it at a signal.
    pub(crate) async fn unless_one_comes<T>(
        &mut self,
        work: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        tokio::select! {
            result = work => result,
            code = self.next() => Err(CommandError::interrupted(code)),
        }
    }

    /// Waits for a signal and returns the exit code of shells: 128 and its number.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
            () = received(self.hangup.as_mut()) => 129,
        }
    }
}

async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => signal.recv().await.map_or((), drop),
        None => std::future::pending().await,
    }
}

/// Returns `true` when the parent process ignores the signal: `SigIgn` of proc_pid_status(5).
fn is_ignored(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}
