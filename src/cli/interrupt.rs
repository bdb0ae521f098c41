//! Ctrl-C and its kin: the command's work is dropped, and what it started is ended before the program is.

use tokio::signal::unix::{SignalKind, signal};

use super::error::CommandError;
use crate::machine::Machine;

/// Runs `work` on the machine; when it fails or is interrupted, a QEMU that it started is ended.
pub(super) async fn guarded<T>(
    machine: &Machine,
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    let result = tokio::select! {
        result = work => result,
        code = interrupted() => Err(CommandError::interrupted(code)),
    };
    if result.is_err() {
        machine.abandon().await;
    }
    result
}

/// Waits for a signal that asks for the end, and gives the exit code that shells expect: 128 and its number.
async fn interrupted() -> u8 {
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut stream) => stream.recv().await.map_or_else(|| (), drop),
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => 130,
        () = wait(SignalKind::terminate()) => 143,
        () = wait(SignalKind::hangup()) => 129,
    }
}
