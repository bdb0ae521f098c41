//! Durable files: written to a temporary file, flushed, renamed, and the directory flushed.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::Path,
};

use tempfile::NamedTempFile;

use super::error::FileError;

/// Only the owner reads and writes.
pub const PRIVATE: u32 = 0o600;

/// Only the owner reads, writes and runs: scripts and programs.
pub const PROGRAM: u32 = 0o755;

/// The prefix of temporary files.
const TEMPORARY: &str = ".tmp-";

/// Writes `bytes` to `path`, with `mode`. A crash leaves the old file or the new one.
///
/// # Errors
///
/// When the directory cannot be written or is full.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let write = || {
        let mut temporary = temporary_beside(path)?;
        temporary
            .as_file_mut()
            .write_all(bytes)
            .map_err(FileError::on("write", path))?;
        persist(temporary, path, mode)
    };
    // The space is measured after the temporary file is deleted.
    write().map_err(|error| error.needing(bytes.len()))
}

/// Writes `bytes` to a new private file at `path`. An existing file is not changed.
///
/// # Errors
///
/// When the directory cannot be written or is full.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut temporary = temporary_beside(path)?;
    temporary
        .as_file_mut()
        .write_all(bytes)
        .and_then(|()| temporary.as_file().sync_all())
        .map_err(FileError::on("write", path))?;
    match temporary.persist_noclobber(path) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => {
            Err(FileError::on("create", path)(error.error))
        }
        _ => sync_directory(path.parent().unwrap_or(Path::new("."))),
    }
}

/// As [`write()`], in a directory that other programs use: nothing else in it is read or removed.
///
/// # Errors
///
/// When the directory cannot be written or is full.
pub fn write_among_others(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    write_as(path, bytes, mode, None)
}

fn write_as(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Option<&Metadata>,
) -> Result<(), FileError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new()
        .prefix(".k3s-vm-")
        .tempfile_in(directory)
        .map_err(|error| FileError::on("create a file in", directory)(bare(error)))?;
    temporary
        .as_file_mut()
        .write_all(bytes)
        .map_err(|error| FileError::on("write", path)(error).needing(bytes.len()))?;
    if let Some(owner) = owner {
        copy_owner(temporary.as_file(), owner).map_err(FileError::on("set the owner of", path))?;
    }
    persist(temporary, path, mode)
}

/// Gives a new file the owner of another one, if it has another.
///
/// # Errors
///
/// When this user may not.
pub fn copy_owner(file: &File, like: &Metadata) -> io::Result<()> {
    let has = file.metadata()?;
    if (has.uid(), has.gid()) != (like.uid(), like.gid()) {
        std::os::unix::fs::fchown(file, Some(like.uid()), Some(like.gid()))?;
    }
    Ok(())
}

/// Replaces the contents of the file at `path`, which keeps its mode and its owner. If the file cannot be replaced, e.g. a
/// mount point, or its owner could not be kept, or it has other names (hard links), it is written in place.
///
/// # Errors
///
/// When it is not there or cannot be written.
pub fn replace_contents(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let metadata = fs::metadata(path).map_err(FileError::on("look at", path))?;
    if metadata.nlink() == 1 {
        let replaced = write_as(path, bytes, metadata.mode() & 0o7777, Some(&metadata));
        let in_place = match &replaced {
            Err(error) => matches!(
                error.source.kind(),
                io::ErrorKind::ResourceBusy | io::ErrorKind::PermissionDenied
            ),
            Ok(()) => false,
        };
        if !in_place {
            return replaced;
        }
    }
    let mut options = OpenOptions::new();
    let write = |mut file: File| {
        file.write_all(bytes)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()
    };
    let opened = options.write(true).open(path);
    opened.and_then(write).map_err(FileError::on("write", path))
}

/// A private temporary file in the directory of `path`, removed unless it is [`persist`]ed. Its lock shows that its writer
/// lives: the next writer removes the files of dead ones.
fn temporary_beside(path: &Path) -> Result<NamedTempFile, FileError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let failed = |error| FileError::on("create a file in", directory)(bare(error));
    remove_abandoned(directory);
    loop {
        let temporary = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(directory)
            .map_err(failed)?;
        temporary.as_file().lock().map_err(failed)?;
        // Before it was locked, another writer could have removed it.
        let links = temporary.as_file().metadata().map_err(failed)?.nlink();
        if links > 0 {
            return Ok(temporary);
        }
    }
}

/// Removes the temporary files of writers that were killed. Failures are ignored.
fn remove_abandoned(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            continue;
        }
        // Locked until it is removed: else its writer could lock it meanwhile, and not notice. NFS locks only files
        // that are open for writing.
        if let Ok(file) = File::options().read(true).write(true).open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The error without the random name that `tempfile` adds to its message.
fn bare(error: io::Error) -> io::Error {
    match error.to_string().split_once(" at path ") {
        Some((words, _)) => io::Error::new(error.kind(), words),
        None => error,
    }
}

/// Flushes a temporary file and gives it its name.
fn persist(temporary: NamedTempFile, path: &Path, mode: u32) -> Result<(), FileError> {
    temporary
        .as_file()
        .set_permissions(Permissions::from_mode(mode))
        .map_err(FileError::on("set the mode of", path))?;
    temporary
        .as_file()
        .sync_all()
        .map_err(FileError::on("flush", path))?;
    temporary.persist(path).map_err(|error| FileError {
        action: "rename a file to",
        path: path.to_owned(),
        source: error.error,
    })?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// Flushes a directory, so that renames and removals in it survive a power failure.
///
/// # Errors
///
/// When the directory cannot be opened or flushed.
pub fn sync_directory(directory: &Path) -> Result<(), FileError> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(FileError::on("flush", directory))
}

/// Creates `path` and its missing parents with mode 0700. An existing directory keeps its mode.
///
/// # Errors
///
/// When a parent is not a directory or cannot be written.
pub fn create_private_dir(path: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(FileError::on("create", path))
}

/// Creates a private FIFO at `path`.
///
/// # Errors
///
/// When it cannot be made.
pub fn make_fifo(path: &Path) -> Result<(), FileError> {
    let mode = nix::sys::stat::Mode::from_bits_truncate(PRIVATE);
    nix::unistd::mkfifo(path, mode).map_err(|error| FileError::on("create", path)(error.into()))
}

/// Removes a file, if it exists.
///
/// # Errors
///
/// When it exists and cannot be removed.
pub fn remove_if_exists(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::on("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::files::read_if_exists;

    #[test]
    fn a_written_file_is_private_and_whole() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("record");
        write(&path, b"one", PRIVATE).expect("written");
        write(&path, b"two", PRIVATE).expect("written again");
        assert_eq!(read_if_exists(&path).expect("read"), Some("two".to_owned()));
        assert_eq!(
            fs::metadata(&path).expect("metadata").permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::read_dir(directory.path()).expect("listed").count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn a_dead_writers_file_is_removed_and_a_living_ones_kept() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("record");
        let living = temporary_beside(&path).expect("created");
        let dead = directory.path().join(".tmp-dead");
        fs::write(&dead, b"half").expect("written");
        write(&path, b"one", PRIVATE).expect("written");
        assert!(!dead.exists(), "no process locks it");
        assert!(living.path().exists());
        persist(living, &path, PRIVATE).expect("its writer continues");
    }

    #[test]
    fn a_link_is_replaced_and_not_written_through() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let [link, target] = ["link", "target"].map(|name| directory.path().join(name));
        fs::write(&target, "theirs").expect("written");
        std::os::unix::fs::symlink(&target, &link).expect("linked");
        write(&link, b"ours", PRIVATE).expect("written");
        assert!(!link.is_symlink());
        assert_eq!(fs::read(&link).expect("read"), b"ours");
        assert_eq!(fs::read(&target).expect("read"), b"theirs");
    }

    #[test]
    fn errors_name_the_path() {
        let error =
            write(Path::new("/nonexistent/x"), b"", PRIVATE).expect_err("no such directory");
        assert!(error.to_string().contains("/nonexistent"), "{error}");
        assert_eq!(
            read_if_exists(Path::new("/nonexistent/x")).expect("absent is fine"),
            None
        );
    }
}
