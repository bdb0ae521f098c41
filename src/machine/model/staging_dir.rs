//! A directory that is being written: it gets its name when it is complete on disk, and is removed if it is never
//! completed.

use std::{
    ffi::OsString,
    fs,
    io::{self},
    path::{Path, PathBuf},
};

use tokio::task::spawn_blocking;

use crate::base::{
    FileError, Size,
    files::{self, open_in_place, open_plain},
    sparse,
};

/// Removed with its maker, unless it is finished.
#[derive(Debug)]
pub(crate) struct Draft(PathBuf);

impl Draft {
    /// An empty directory, private to the user, at `path`.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub(crate) fn create(path: PathBuf) -> Result<Self, FileError> {
        remove(&path)?;
        files::create_private_dir(&path)?;
        Ok(Self(path))
    }

    /// A place in it.
    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Puts all of the directory on the disk and gives it its name.
    ///
    /// # Errors
    ///
    /// When it cannot be flushed or renamed.
    pub(crate) fn finish(self, name: &Path) -> Result<(), FileError> {
        let entries = fs::read_dir(&self.0).map_err(FileError::on("list", &self.0))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            open_plain(&path)?
                .sync_all()
                .map_err(FileError::on("flush", &path))?;
        }
        files::sync_directory(&self.0)?;
        fs::rename(&self.0, name).map_err(FileError::on("rename a directory to", name))?;
        files::sync_directory(name.parent().unwrap_or(name))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            tracing::debug!(%error, "an unfinished directory is left until the next command");
        }
    }
}

/// Removes a directory with all in it; whether it was there.
///
/// # Errors
///
/// When it is there and cannot be removed.
pub(crate) fn remove(folder: &Path) -> Result<bool, FileError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed
            .map(|()| true)
            .map_err(FileError::on("remove", folder)),
    }
}

/// Copies a file, which need not be on the disk afterwards.
///
/// # Errors
///
/// When one of them cannot be read or written.
pub(crate) async fn copy(from: PathBuf, to: PathBuf) -> Result<(), FileError> {
    let copy = spawn_blocking(move || {
        let (source, target) = (open_plain(&from)?, open_in_place(&to, true)?);
        sparse::copy(&source, &target).map_err(FileError::on("write", &to))
    });
    copy.await.expect("neither panics nor is cancelled")
}

/// Hard-links a file that is no longer written to, or copies it if it cannot be linked.
///
/// # Errors
///
/// When it cannot be copied.
pub(crate) async fn link(from: PathBuf, to: PathBuf) -> Result<(), FileError> {
    match fs::hard_link(&from, &to) {
        Ok(()) => Ok(()),
        Err(_) => copy(from, to).await,
    }
}

/// Puts a file on the disk and gives its length and checksum.
///
/// # Errors
///
/// When it cannot be read or flushed.
pub(crate) async fn flushed(path: PathBuf) -> Result<(u64, u32), FileError> {
    let reader = path.clone();
    let checksum = spawn_blocking(move || {
        let file = open_plain(&reader)?;
        sparse::checksum(&file).map_err(FileError::on("read", &reader))
    });
    let flush = spawn_blocking(move || {
        let file = open_plain(&path)?;
        file.sync_all().map_err(FileError::on("flush", &path))?;
        let metadata = file.metadata().map_err(FileError::on("look at", &path))?;
        Ok::<_, FileError>(metadata.len())
    });
    let finished = "neither panics nor is cancelled";
    let (checksum, length) = (checksum.await, flush.await);
    Ok((length.expect(finished)?, checksum.expect(finished)?))
}

/// The name that a file of the VM has in another directory as well.
pub(crate) fn name_of(path: &Path) -> OsString {
    path.file_name().unwrap_or_default().to_owned()
}

/// The space of a copy of the file in that directory.
pub(crate) fn room_for_copy(path: &Path, folder: &Path) -> Result<Size, FileError> {
    let cloned = sparse::is_cloned(&files::open_plain(path)?, folder);
    Ok(if cloned {
        Size::bytes(0)
    } else {
        files::allocated(path)
    })
}
