//! Errors of QEMU's process.

use std::{io, path::PathBuf, time::Duration};

use crate::base::FileError;

/// How long QEMU may take from its start to an answering monitor; it takes a tenth of a second when nothing is wrong.
pub(super) const STARTUP_TIMEOUT: Duration = Duration::from_secs(20);

/// The cause of QEMU's end, as far as its messages name one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// The project's file system is full.
    NoSpace,
    /// This QEMU was built without VirtFS.
    NoVirtfs,
    /// This QEMU was built without user networking (libslirp) or without its sandbox (libseccomp).
    LacksFeature,
    /// Anything else.
    Other,
}

impl EndCause {
    pub(super) fn of(said: &str) -> Self {
        match said {
            _ if said.contains("No space left on device") => Self::NoSpace,
            _ if said.contains("fsdev support is disabled")
                || said.contains("'virtio-9p-pci' is not a valid") =>
            {
                Self::NoVirtfs
            }
            _ if said.contains("network backend 'user' is not compiled")
                || said.contains("expects a netdev backend type")
                || said.contains("-sandbox support is not enabled")
                || said.contains("no option group 'sandbox'") =>
            {
                Self::LacksFeature
            }
            _ => Self::Other,
        }
    }
}

/// The reason why QEMU did not start, or could not be found or ended.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program did not run.
    #[error("cannot run {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It ended before its monitor answered.
    #[error("QEMU ended at once ({status}): {said}")]
    Ended {
        /// Its exit status.
        status: String,
        /// The end of what it printed.
        said: String,
        /// The cause, if the output names one.
        cause: EndCause,
    },
    /// A script in QEMU's place runs QEMU beside itself, so that the pidfile is locked by the script.
    #[error("{} is a script that does not start QEMU by exec", program.display())]
    Wrapper {
        /// The script.
        program: PathBuf,
    },
    /// QEMU runs, and its monitor does not answer.
    #[error("QEMU's monitor did not answer within {} s", STARTUP_TIMEOUT.as_secs())]
    Unresponsive,
    /// The kernel refused to examine or signal the process.
    #[error("cannot {action} QEMU's process {pid}")]
    Signal {
        /// The action, fitting between "cannot" and "QEMU's process".
        action: &'static str,
        /// The process id.
        pid: i32,
        /// The reason.
        source: io::Error,
    },
    /// A file of the process cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Messages about a file that cannot be opened: of QEMU, of the dynamic loader, of a wrapper's shell.
const DENIED: [&str; 4] = [
    "Permission denied",
    "Operation not permitted",
    "could not load PC BIOS",
    "cannot open shared object file",
];

impl ProcessError {
    /// Returns `true` when QEMU may have been denied a file.
    pub(super) fn may_be_denied(&self) -> bool {
        match self {
            Self::Spawn { .. } => true,
            Self::Ended { said, .. } => DENIED.iter().any(|it| said.contains(it)),
            _ => false,
        }
    }
}
