//! The umask of the process, and that of the user for files of the user.

use std::sync::OnceLock;

use nix::sys::stat::{Mode, umask};

static OF_USER: OnceLock<u32> = OnceLock::new();

/// From now on, all that this process and its children create is the user's alone.
pub fn make_private() {
    let former = umask(Mode::from_bits_truncate(0o077));
    let _ = OF_USER.set(former.bits());
}

/// The umask that the process was started with, if it has another one now.
pub fn of_user() -> u32 {
    OF_USER.get().copied().unwrap_or_default()
}
