//! Errors of images and downloads.

use std::{
    error::Error,
    io::{self, ErrorKind},
    path::PathBuf,
    time::Duration,
};

use crate::base::{FileError, Size};

/// The reason why an image, a release or an overlay is missing.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Neither an alias of the catalogue, nor a file, nor a URL.
    #[error("unknown image {alias:?}: expected one of {known}, a path or a URL")]
    UnknownAlias {
        /// The alias.
        alias: String,
        /// The aliases of the catalogue, as a list.
        known: String,
    },
    /// A URL that cannot be used.
    #[error("cannot use the URL {url}: {reason}")]
    BadUrl {
        /// The URL as given.
        url: String,
        /// The reason.
        reason: String,
    },
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// The server does not answer: no such host, connection refused, an untrusted certificate.
    #[error("cannot reach {url}")]
    Unreachable {
        /// The URL.
        url: String,
        /// The reason.
        source: reqwest::Error,
    },
    /// The server refuses.
    #[error("{url} answered {status}")]
    Status {
        /// The URL.
        url: String,
        /// The status code.
        status: u16,
    },
    /// No bytes for too long.
    #[error("no data from {url} for {} s", after.as_secs_f32())]
    Stalled {
        /// The URL.
        url: String,
        /// The time without bytes.
        after: Duration,
    },
    /// The transfer ended early.
    #[error("the transfer of {url} was interrupted after {got} of {} bytes", total.map_or("unknown".to_owned(), |total| total.to_string()))]
    Cut {
        /// The URL.
        url: String,
        /// The received bytes.
        got: u64,
        /// The expected bytes, if the server has sent the length.
        total: Option<u64>,
        /// The connection's error, if it ended with one.
        source: Option<reqwest::Error>,
    },
    /// The answer is not the expected text.
    #[error("{url} is not a text of at most {limit} bytes")]
    NotText {
        /// The URL.
        url: String,
        /// The limit.
        limit: usize,
    },
    /// A checksum file without the entry that matters.
    #[error("{url} has no checksum for {file}")]
    NoChecksum {
        /// The checksum file.
        url: String,
        /// The missing entry.
        file: String,
    },
    /// A download without a checksum.
    #[error("cannot verify {url}: it has no checksum")]
    Unverifiable {
        /// The URL.
        url: String,
    },
    /// The response is compressed, although the file itself was requested.
    #[error("{url} was sent compressed ({encoding}), which was not requested")]
    Packed {
        /// The URL.
        url: String,
        /// The response's `Content-Encoding`.
        encoding: String,
    },
    /// The checksum differs.
    #[error("{origin} has the wrong checksum: expected {expected}, got {actual}")]
    WrongChecksum {
        /// The source.
        origin: String,
        /// The expected checksum.
        expected: String,
        /// The checksum of the file.
        actual: String,
        /// A part of the file was from an earlier try, so a new try is worth it.
        resumed: bool,
    },
    /// The file system has too little space.
    #[error("not enough space in {}: {} needed, {} free", directory.display(), needed.approximate(), free.approximate())]
    NoSpace {
        /// The target.
        directory: PathBuf,
        /// The bytes that are missing.
        needed: Size,
        /// The free space.
        free: Size,
    },
    /// The file is not a disk image.
    #[error("{origin} is not a disk image: it is {looks_like}")]
    NotADisk {
        /// The source.
        origin: String,
        /// The likely kind of the file, with its article.
        looks_like: &'static str,
    },
    /// A disk image that cannot be a base image.
    #[error("{origin} cannot be a base image: {reason}")]
    UnusableDisk {
        /// The source.
        origin: String,
        /// The reason.
        reason: &'static str,
    },
    /// A disk that is smaller than its base image.
    #[error("a disk of {wanted} is smaller than the base image, which has {minimum}")]
    DiskTooSmall {
        /// The size asked for.
        wanted: Size,
        /// The size of the base image.
        minimum: Size,
    },
    /// An overlay that cannot be created.
    #[error("cannot create a disk on {}: {reason}", backing.display())]
    Overlay {
        /// The base image.
        backing: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A file of the cache or of the user that cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

impl ImageError {
    /// Returns `true` when the file does not exist, as opposed to being unreachable: HTTP 404 or 410, or no such file.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 404 | 410),
            Self::File(error) => error.source.kind() == ErrorKind::NotFound,
            _ => false,
        }
    }

    /// Returns `true` when the server has no checksum.
    pub(super) fn lacks_checksum(&self) -> bool {
        matches!(self, Self::NoChecksum { .. } | Self::Unverifiable { .. }) || self.is_not_found()
    }

    /// Returns `true` when another try may help.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => {
                !source.is_redirect() && !source.is_builder() && !self.is_distrust()
            }
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 425 | 429),
            Self::Stalled { .. } | Self::Cut { .. } => true,
            Self::WrongChecksum { resumed, .. } => *resumed,
            _ => false,
        }
    }

    /// Returns `true` when a server answers with a certificate that is not trusted, or without TLS.
    pub fn is_distrust(&self) -> bool {
        let Self::Unreachable { source, .. } = self else {
            return false;
        };
        std::iter::successors(Error::source(source), |cause| Error::source(*cause))
            .any(is_invalid_data)
    }

    /// Returns `true` when a server answered at all.
    pub(super) fn server_answered(&self) -> bool {
        matches!(
            self,
            Self::Status { .. } | Self::Cut { .. } | Self::WrongChecksum { .. }
        )
    }
}

/// rustls reports verdicts as invalid data, and hyper wraps them once more.
fn is_invalid_data(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| {
        let inner = || error.get_ref().is_some_and(|inner| is_invalid_data(inner));
        error.kind() == ErrorKind::InvalidData || inner()
    })
}
