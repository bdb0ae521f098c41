//! The process beside QEMU that writes its log. QEMU prints to a pipe, and this process limits the log until QEMU ends, also
//! after the command that started it has ended: a guest can make QEMU print endlessly. It also limits the logs that QEMU
//! itself writes (the guest's console and reports), in case the waiting command was killed. And it decides which connections
//! the guest may open, see [`connect_filter`].

use std::{
    ffi::OsString,
    fs::{File, TryLockError},
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

use super::connect_filter;
use crate::base::{HostAccess, files, log_cap};

/// The first argument of this process; the ports of the host that the guest may reach follow, and the logs that QEMU
/// itself writes.
pub const FLAG: &str = "--write-log";

/// How long the last output of QEMU may take to reach the log.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(5);

/// How often the logs that QEMU itself writes are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Copies standard input to the log on standard output, until its end. Limits the logs in `arguments` meanwhile, and
/// answers requests on the socket on standard error.
///
/// # Errors
///
/// When one of them cannot be read or written.
pub fn run(arguments: &[OsString]) -> io::Result<()> {
    let [open, others @ ..] = arguments else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let open: HostAccess = open.to_string_lossy().parse().map_err(io::Error::other)?;
    let socket = UnixStream::from(io::stderr().as_fd().try_clone_to_owned()?);
    // From now on, its errors go to the log. Both threads end with the process.
    rustix::stdio::dup2_stderr(io::stdout())?;
    spawn(move || connect_filter::decide(socket, &open));
    let others = others.to_vec();
    spawn(move || {
        loop {
            sleep(CHECK_INTERVAL);
            for other in &others {
                let _ = log_cap::cut_neglected(Path::new(other));
            }
        }
    });
    let log = io::stdout().as_fd().try_clone_to_owned()?;
    log_cap::append_all(io::stdin().lock(), &File::from(log))
}

/// Waits until the output of a QEMU that has ended is in its log. The process locks the log until then.
pub fn wait(log: &Path) {
    let Ok(file) = files::open_regular(log) else {
        return;
    };
    let began = Instant::now();
    while matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
        && began.elapsed() < OUTPUT_TIMEOUT
    {
        sleep(POLL);
    }
}
