//! The error of a file operation.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A file operation that failed, with the path that it failed on.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// The action that failed, fitting between "cannot" and the path.
    pub action: &'static str,
    /// The path of the file or directory.
    pub path: PathBuf,
    /// The reason.
    pub source: io::Error,
}

impl FileError {
    /// Gives an [`io::Error`] its path: `.map_err(FileError::on("read", path))`.
    pub fn on(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            action,
            path,
            source,
        }
    }

    /// Returns `true` when the file system is full.
    pub fn is_out_of_space(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }

    /// Returns `true` when the file is missing.
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Returns `true` when this user may not write there.
    pub fn is_forbidden(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
        )
    }
}

/// The action of a [`FileError`] about a path that is not trusted.
pub const TRUST: &str = "trust";

/// The error about a path that is not trusted.
pub(crate) fn refused(path: &Path, reason: &'static str) -> FileError {
    FileError::on(TRUST, path)(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}
