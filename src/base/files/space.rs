//! The free space of a file system.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use super::error::FileError;
use crate::base::Size;

/// The free space of a file system for this user.
#[derive(Debug, Clone, Copy)]
pub struct Space {
    /// Bytes that can be written.
    pub bytes: Size,
    /// The file system can hold no more files, however small; some limit their number.
    pub no_more_files: bool,
}

/// Requires free space for `needed` bytes at `path`.
///
/// # Errors
///
/// The error of a full file system, when less is free.
pub fn require_space(path: &Path, needed: u64) -> Result<(), FileError> {
    if needed <= free_space(path)?.bytes.as_bytes() {
        return Ok(());
    }
    let full = io::Error::from_raw_os_error(nix::libc::ENOSPC);
    let needed = usize::try_from(needed).unwrap_or(usize::MAX);
    Err(FileError::on("write", path)(full).needing(needed))
}

/// The free space of the file system of `path`, or of its nearest existing parent.
///
/// # Errors
///
/// When the file system cannot be queried.
pub fn free_space(path: &Path) -> Result<Space, FileError> {
    let mut directories = path.ancestors().filter(|it| it.is_dir());
    let space = rustix::fs::statvfs(directories.next().unwrap_or(Path::new(".")))
        .map_err(|error| FileError::on("ask for the free space of", path)(error.into()))?;
    Ok(Space {
        bytes: Size::bytes(space.f_bavail.saturating_mul(space.f_frsize)),
        no_more_files: space.f_files > 0 && space.f_favail == 0,
    })
}

/// The space of a file on the disk. That of a file with holes is less than its length.
pub fn allocated(path: &Path) -> Size {
    // st_blocks counts 512 bytes, whatever the file system's own blocks are (stat(2)).
    Size::bytes(fs::metadata(path).map_or(0, |it| it.blocks() * 512))
}

impl FileError {
    /// The same error; for a full file system with the bytes to write and the free space.
    pub(super) fn needing(mut self, needed: usize) -> Self {
        if self.is_out_of_space() {
            let mut text = format!(
                "{}, {} needed",
                self.source,
                Size::bytes(needed as u64).approximate()
            );
            if let Ok(space) = free_space(&self.path) {
                text = format!("{text}, {} free", space.bytes.approximate());
                if space.no_more_files {
                    text += " but for no more files";
                }
            }
            self.source = io::Error::new(self.source.kind(), text);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oversized_writes_are_rejected_first() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("disk");
        require_space(&path, 1).expect("a byte fits");
        let error = require_space(&path, 8 << 60).expect_err("refused");
        assert!(error.is_out_of_space());
        assert!(error.source.to_string().contains(" needed, "), "{error:?}");
    }
}
