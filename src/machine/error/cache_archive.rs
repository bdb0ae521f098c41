//! Errors of an archive of the cache.

use std::{io, path::PathBuf};

use crate::base::{Digest, Size};

/// The reason why an archive cannot be written or imported.
#[derive(Debug, thiserror::Error)]
pub enum CacheArchiveError {
    /// Another format, or an empty file.
    #[error("it is not an archive of `k3s-vm cache export`")]
    NoArchive,
    /// An archive of another version of k3s-vm.
    #[error("the archive has the layout {0}, which this k3s-vm does not know")]
    Schema(u32),
    /// Its list is invalid.
    #[error("the archive's list is damaged: {0}")]
    ArchiveManifest(String),
    /// A file that the archive's list does not have.
    #[error("the archive has {0:?}, which its list does not name")]
    Unlisted(String),
    /// A link, a directory, a device.
    #[error("the archive has {0:?}, which is not a regular file")]
    NotPlain(String),
    /// The archive has a file twice.
    #[error("the archive has {0} twice")]
    Twice(String),
    /// A file with another length than in the list.
    #[error("{name} is of {} bytes in the archive, and of {} in its list", size.as_bytes(), listed.as_bytes())]
    Length {
        /// Which one.
        name: String,
        /// The length in the archive.
        size: Size,
        /// The length in the list.
        listed: Size,
    },
    /// The archive is truncated.
    #[error("the archive is truncated in {0}")]
    Truncated(String),
    /// A file with another checksum than in the list.
    #[error("{name} is damaged in the archive: expected SHA-256 {expected}, got SHA-256 {actual}")]
    Damaged {
        /// Which one.
        name: String,
        /// The digest that it should have.
        expected: Digest,
        /// The digest that it has.
        actual: Digest,
    },
    /// The archive and the cache have different checksums for the same URL.
    #[error(
        "the archive contradicts the cache about {what}: SHA-256 {theirs} in the archive, SHA-256 {ours} in the cache"
    )]
    Conflict {
        /// The image's URL, or the file of the release.
        what: String,
        /// The checksum in the archive.
        theirs: Digest,
        /// The checksum in the cache.
        ours: Digest,
        /// The file of the cache with that checksum.
        path: PathBuf,
    },
    /// A file of the cache that has changed since it was verified.
    #[error("{} has changed since it was verified", .0.display())]
    Changed(PathBuf),
    /// An export of everything, from an empty cache.
    #[error("the cache {} has no image and no release yet", .0.display())]
    Empty(PathBuf),
    /// The archive cannot be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}
