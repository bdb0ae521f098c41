//! Errors of images and downloads.

use std::{
    error::Error,
    io::{self, ErrorKind},
    path::PathBuf,
    time::Duration,
};

use crate::base::{FileError, Size};

/// Why an image, a release or an overlay cannot be had.
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
    /// A URL that this program cannot fetch from.
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
    /// No answer came: no such host, connection refused, no trust in its certificate.
    #[error("cannot reach {url}")]
    Unreachable {
        /// The URL.
        url: String,
        /// Why there was no answer.
        source: reqwest::Error,
    },
    /// The server answered that it will not serve this.
    #[error("{url} answered {status}")]
    Status {
        /// The URL.
        url: String,
        /// The answer's code.
        status: u16,
    },
    /// Nothing came for too long.
    #[error("no data from {url} for {} s", after.as_secs_f32())]
    Stalled {
        /// The URL.
        url: String,
        /// How long nothing came.
        after: Duration,
    },
    /// The transfer ended early.
    #[error("the transfer of {url} was interrupted after {got} of {} bytes", total.map_or("unknown".to_owned(), |total| total.to_string()))]
    Cut {
        /// The URL.
        url: String,
        /// How many bytes are here.
        got: u64,
        /// How many there should be, when the server said.
        total: Option<u64>,
        /// The connection's error, if it ended with one.
        source: Option<reqwest::Error>,
    },
    /// The answer is not the expected text.
    #[error("{url} is not a text of at most {limit} bytes")]
    NotText {
        /// The URL.
        url: String,
        /// How much would have been taken.
        limit: usize,
    },
    /// A checksum file without the entry that matters.
    #[error("{url} has no checksum for {file}")]
    NoChecksum {
        /// The checksum file.
        url: String,
        /// The entry that was looked for.
        file: String,
    },
    /// A download without a checksum.
    #[error("cannot verify {url}: it has no checksum")]
    Unverifiable {
        /// The URL.
        url: String,
    },
    /// The answer is packed, where the file itself was asked for.
    #[error("{url} was sent compressed ({encoding}), which was not requested")]
    Packed {
        /// The URL.
        url: String,
        /// The answer's `Content-Encoding`.
        encoding: String,
    },
    /// The bytes are not those that were promised.
    #[error("{origin} has the wrong checksum: expected {expected}, got {actual}")]
    WrongChecksum {
        /// Where the bytes came from.
        origin: String,
        /// The expected checksum.
        expected: String,
        /// The checksum of the file.
        actual: String,
        /// A part of the file was left from an earlier try, which is worth a fresh one.
        resumed: bool,
    },
    /// The file system cannot hold what is coming.
    #[error("not enough space in {}: {} needed, {} free", directory.display(), needed.approximate(), free.approximate())]
    NoSpace {
        /// Where it should have gone.
        directory: PathBuf,
        /// How much is still to be written.
        needed: Size,
        /// How much there is for this user.
        free: Size,
    },
    /// The file is something else than a disk image.
    #[error("{origin} is not a disk image: it is {looks_like}")]
    NotADisk {
        /// Where the file came from.
        origin: String,
        /// The likely kind of the file, with its article.
        looks_like: &'static str,
    },
    /// A disk image that cannot serve as a base.
    #[error("{origin} cannot be a base image: {reason}")]
    UnusableDisk {
        /// Where the file came from.
        origin: String,
        /// The reason.
        reason: &'static str,
    },
    /// A disk that would cut off the end of its base image.
    #[error("a disk of {wanted} is smaller than the base image, which has {minimum}")]
    DiskTooSmall {
        /// The size asked for.
        wanted: Size,
        /// The size of the base image.
        minimum: Size,
    },
    /// An overlay that cannot be made.
    #[error("cannot make a disk on {}: {reason}", backing.display())]
    Overlay {
        /// The base image.
        backing: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A file of the cache or of the user that cannot be worked with.
    #[error(transparent)]
    File(#[from] FileError),
}

impl ImageError {
    /// Returns `true` when the file is absent, as opposed to out of reach: HTTP 404 or 410, or no such file.
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

/// rustls hands its verdicts on as invalid data, and hyper wraps those once more.
fn is_invalid_data(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| {
        let inner = || error.get_ref().is_some_and(|inner| is_invalid_data(inner));
        error.kind() == ErrorKind::InvalidData || inner()
    })
}
