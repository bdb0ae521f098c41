//! Ctrl-C and its kin: the command's work is dropped, and what it started is ended before the program is.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::CommandError;
use crate::machine::Machine;

/// Runs `work` on the machine; when it fails or is interrupted, a QEMU that it started is ended.
pub(super) async fn guarded<T>(
    machine: &Machine,
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    // Before the work begins: a signal that nobody listens to ends the program at once and leaves QEMU behind.
    let mut signals = Signals::listen()
        .map_err(|error| CommandError::new("cannot listen for signals").because(&error))?;
    let result = tokio::select! {
        result = work => result,
        code = signals.next() => Err(CommandError::interrupted(code)),
    };
    if result.is_err() {
        machine.abandon().await;
    }
    result
}

/// The signals that ask for the end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one and gives the exit code that shells expect: 128 and its number.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
            _ = self.hangup.recv() => 129,
        }
    }
}
