//! Stdout, with all its errors. The standard library reports success when stdout was closed at the start or is open only
//! for reading.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::cli::error::CommandError;

/// Stdout was closed when the program started. The standard library has opened `/dev/null` in its place since.
static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Records whether stdout is closed, before the standard library opens `/dev/null` in its place.
pub extern "C" fn note_closed_stdout() {
    if rustix::io::fcntl_getfd(rustix::stdio::stdout()).is_err() {
        IS_CLOSED.store(true, Ordering::Relaxed);
    }
}

/// Stdout without a buffer.
///
/// # Errors
///
/// When it is closed.
pub(crate) fn stdout() -> io::Result<File> {
    if IS_CLOSED.load(Ordering::Relaxed) {
        return Err(io::Error::from_raw_os_error(nix::libc::EBADF));
    }
    duplicate()
}

/// Stdout for the output of a command in the guest. A closed one is not an error, as in OpenSSH.
pub(crate) fn stream() -> io::Result<tokio::fs::File> {
    duplicate().map(tokio::fs::File::from_std)
}

fn duplicate() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// The error of a command whose data cannot be written.
pub(crate) fn unwritable(error: &io::Error) -> CommandError {
    CommandError::new("cannot write to stdout").because(error)
}
