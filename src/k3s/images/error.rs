//! Errors of an archive of images.

use std::io;

use crate::base::Size;

/// Why an archive is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    /// Nothing is in it.
    #[error("it is empty")]
    Empty,
    /// Something else is in it.
    #[error("it is not a tar archive, plain or compressed with gzip or zstd")]
    NoTar,
    /// An archive of other things.
    #[error("the archive contains no image that index.json or manifest.json names")]
    NoImages,
    /// Its end is missing.
    #[error("the archive is truncated")]
    Truncated,
    /// A part is missing.
    #[error("the archive lacks {0}, a part of its image")]
    Incomplete(String),
    /// A part has another content than it should.
    #[error("the archive is damaged: its {0} does not match its digest")]
    Damaged(String),
    /// A part is no JSON, or says something else than it should.
    #[error("the archive is damaged: cannot parse its {what}")]
    Document {
        /// The part.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Its images are for other computers.
    #[error("the image is for {found}, and the node needs linux/amd64")]
    Platform {
        /// What it is for.
        found: String,
    },
    /// Its image could not be asked for.
    #[error("its image has no name")]
    Nameless,
    /// One name was given.
    #[error("the archive has {0} images, and one name was given")]
    Several(usize),
    /// It has more of something than an archive of images has.
    #[error("the archive has more than {0}")]
    Excessive(String),
    /// The node's disk has no room for it.
    #[error("the guest's disk has {} free, and its next layer takes {}", room.approximate(), needed.approximate())]
    NoRoom {
        /// What is free.
        room: Size,
        /// What is needed.
        needed: Size,
    },
    /// The other end does not take it.
    #[error("the guest accepts no more data")]
    Refused(#[source] io::Error),
}

impl ArchiveError {
    /// Of a source that cannot be read, or not to its end.
    pub(crate) fn reading(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Truncated
        } else {
            Self::Unreadable(error)
        }
    }
}
