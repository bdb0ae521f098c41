//! The umask of the process, and the user's own one for files of the user.

use std::sync::OnceLock;

use nix::sys::stat::{Mode, umask};

static OF_USER: OnceLock<u32> = OnceLock::new();

/// Makes all files of this process and its children private to the user.
pub fn make_private() {
    let former = umask(Mode::from_bits_truncate(0o077));
    let _ = OF_USER.set(former.bits());
}

/// The umask with which the process was started, if it has another one now.
pub fn of_user() -> u32 {
    OF_USER.get().copied().unwrap_or_default()
}
