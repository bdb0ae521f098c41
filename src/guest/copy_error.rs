//! What fails when files are copied to or from the guest.

use std::io;

use crate::{base::FileError, guest::SshError};

/// Why something is not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Nothing has that name in the guest.
    #[error("{0} does not exist in the guest")]
    NotInGuest(String),
    /// Nothing has that name on the host.
    #[error("{0} does not exist on this host")]
    NotOnHost(String),
    /// Devices and sockets.
    #[error("{0} is neither a file nor a directory")]
    Special(String),
    /// Files of /proc.
    #[error("{0} is made up while it is read, and has no size to copy: k3s-vm ssh cat {0}")]
    NoSize(String),
    /// A directory has the name of the copy of a file.
    #[error("cannot replace the directory {0} by a file")]
    Folder(String),
    /// A directory, or several sources, cannot replace a file.
    #[error("{0} is not a directory")]
    NoFolder(String),
    /// The guest has no space for it.
    #[error("the guest's disk is full: {0}")]
    GuestFull(String),
    /// The guest's tar, or what is around it.
    #[error("the guest cannot copy it: {0}")]
    Guest(String),
    /// The guest's archive would put something elsewhere.
    #[error("the guest sent {0:?}, which is outside of the copied directory")]
    Hostile(String),
    /// The archive is truncated, or is not an archive.
    #[error("the copy was interrupted")]
    Archive(#[source] io::Error),
    /// A file of the host.
    #[error(transparent)]
    File(#[from] FileError),
    /// The connection.
    #[error(transparent)]
    Ssh(#[from] SshError),
}
