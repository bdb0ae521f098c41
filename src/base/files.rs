//! Durable files: written to a temporary file, flushed, renamed, and the directory flushed.

use std::{
    env,
    fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::base::Size;

/// A file operation that failed, with the path that it failed on.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// The action that failed, fitting between "cannot" and the path.
    pub action: &'static str,
    /// The path of the file or directory.
    pub path: PathBuf,
    /// Why it failed.
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

    /// The same; for a full file system with the bytes to write and the free space.
    fn needing(mut self, needed: usize) -> Self {
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

/// Only the owner reads and writes.
pub const PRIVATE: u32 = 0o600;

/// Only the owner reads, writes and runs: scripts and programs.
pub const PROGRAM: u32 = 0o755;

/// No file of a project that is read as a whole is longer. Bytes.
const LONGEST_STATE: u64 = 16 << 20;

/// How a file is called that does not have its name yet.
const TEMPORARY: &str = ".tmp-";

/// Puts `bytes` at `path` so that a crash leaves the old file or the new one, never a half.
/// The file has `mode` from the moment it has a name.
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
    // The temporary file is gone when the space is counted.
    write().map_err(|error| error.needing(bytes.len()))
}

/// Puts `bytes` into a new private file at `path`; one that is there stays as it is.
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

/// As [`write()`], in a directory that is not ours alone, where nothing else is looked at or taken away.
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
        own(temporary.as_file(), owner).map_err(FileError::on("set the owner of", path))?;
    }
    persist(temporary, path, mode)
}

/// Gives a new file the owner of another one, if it has another.
///
/// # Errors
///
/// When this user may not.
pub fn own(file: &File, like: &Metadata) -> io::Result<()> {
    let has = file.metadata()?;
    if (has.uid(), has.gid()) != (like.uid(), like.gid()) {
        std::os::unix::fs::fchown(file, Some(like.uid()), Some(like.gid()))?;
    }
    Ok(())
}

/// Puts `bytes` in the place of the file at `path`, which keeps its mode and its owner. Where it cannot be replaced, as a
/// file that is a mount point, or its owner could not be kept, or it has other names, it is written in place.
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

/// The free space of a file system for this user.
#[derive(Debug, Clone, Copy)]
pub struct Space {
    /// Bytes that can be written.
    pub bytes: Size,
    /// The file system can hold no more files, however small; some count them apart.
    pub no_more_files: bool,
}

/// Checks that `needed` bytes can be written at `path`, before they are.
///
/// # Errors
///
/// When the file system has less left, as of a full file system.
pub fn require_space(path: &Path, needed: u64) -> Result<(), FileError> {
    if needed <= free_space(path)?.bytes.as_bytes() {
        return Ok(());
    }
    let full = io::Error::from_raw_os_error(nix::libc::ENOSPC);
    let needed = usize::try_from(needed).unwrap_or(usize::MAX);
    Err(FileError::on("write", path)(full).needing(needed))
}

/// Asks the file system of `path`, or of where it would be, for what it has left.
///
/// # Errors
///
/// When the file system does not tell.
pub fn free_space(path: &Path) -> Result<Space, FileError> {
    let mut directories = path.ancestors().filter(|it| it.is_dir());
    let space = rustix::fs::statvfs(directories.next().unwrap_or(Path::new(".")))
        .map_err(|error| FileError::on("ask for the free space of", path)(error.into()))?;
    Ok(Space {
        bytes: Size::bytes(space.f_bavail.saturating_mul(space.f_frsize)),
        no_more_files: space.f_files > 0 && space.f_favail == 0,
    })
}

/// A private temporary file in the directory of `path`, removed again unless it is [`persist`]ed. It is locked for as
/// long as its writer lives, so that the next writer can tell a dead one's file and take it away.
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
        // Before it was locked, another writer could take it for abandoned.
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
        // Locked until it is gone: else its writer could lock it meanwhile, and find that all is well. NFS locks only what is
        // open for writing.
        if let Ok(file) = File::options().read(true).write(true).open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The kernel's words, without the random name that `tempfile` adds to them.
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

/// Makes renames and removals in `directory` last through a power cut.
///
/// # Errors
///
/// When the directory cannot be opened or flushed.
pub fn sync_directory(directory: &Path) -> Result<(), FileError> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(FileError::on("flush", directory))
}

/// Makes `path` and its missing parents with mode 0700; what exists keeps its mode.
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

/// A private FIFO at `path`, where nothing is.
///
/// # Errors
///
/// When it cannot be made.
pub fn make_fifo(path: &Path) -> Result<(), FileError> {
    let mode = nix::sys::stat::Mode::from_bits_truncate(PRIVATE);
    nix::unistd::mkfifo(path, mode).map_err(|error| FileError::on("create", path)(error.into()))
}

/// A private file that is written in place, emptied before if `emptied`. A link in its place is not followed.
///
/// # Errors
///
/// When it cannot be opened or is a link.
pub fn open_in_place(path: &Path, emptied: bool) -> Result<File, FileError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    opened(path, options.truncate(emptied).mode(PRIVATE))
}

/// A file that is only read. A link in its place is not followed.
///
/// # Errors
///
/// When it cannot be opened or is a link.
pub fn open_plain(path: &Path) -> Result<File, FileError> {
    opened(path, OpenOptions::new().read(true))
}

fn opened(path: &Path, options: &mut OpenOptions) -> Result<File, FileError> {
    let options = options.custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK);
    let regular = options.open(path).and_then(require_regular);
    regular.map_err(|error| match error.raw_os_error() {
        Some(nix::libc::ELOOP) => refused(path, "it is a link, and leads elsewhere"),
        _ => FileError::on("open", path)(error),
    })
}

fn require_regular(file: File) -> io::Result<File> {
    match file.metadata()?.file_type() {
        it if it.is_file() => Ok(file),
        it if it.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::other("not a regular file")),
    }
}

/// A regular file for reading, by whatever link: a FIFO could keep its reader waiting, and a device could never end.
///
/// # Errors
///
/// When it cannot be opened or is not a regular file.
pub fn open_regular(path: &Path) -> Result<File, FileError> {
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(nix::libc::O_NONBLOCK);
    let regular = options.open(path).and_then(require_regular);
    regular.map_err(FileError::on("read", path))
}

/// The most that is read of a file as a whole. The largest that is expected, a seed disk, has a few MiB.
const LONGEST: u64 = 64 << 20;

/// The whole of a regular file of at most 64 MiB.
///
/// # Errors
///
/// When it cannot be read, is not a regular file or is longer.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    read_at_most(path, LONGEST)
}

/// The whole of a regular file of at most `limit` bytes.
///
/// # Errors
///
/// When it cannot be read, is not a regular file or is longer.
pub fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    whole(open_regular(path)?, path, limit)
}

fn whole(file: File, path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(FileError::on("read", path))?;
    if bytes.len() as u64 > limit {
        let limit = Size::bytes(limit).approximate();
        let reason = format!("it is larger than {limit}");
        let error = io::Error::new(io::ErrorKind::FileTooLarge, reason);
        return Err(FileError::on("read", path)(error));
    }
    Ok(bytes)
}

/// The path, with the home directory in the place of a tilde at its beginning: a shell leaves one in `--flag=~/x`, and a
/// config has no shell.
pub fn expand_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

/// The whole file as text, if it exists. What is not UTF-8 is U+FFFD in it, so that a parser
/// can tell what is damaged and what to do about it.
///
/// # Errors
///
/// When it exists and cannot be read.
pub fn read_if_exists(path: &Path) -> Result<Option<String>, FileError> {
    match read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The whole of a plain file of this user's as text, if it exists. A link in its place is not followed.
///
/// # Errors
///
/// When it cannot be read, is not a plain file, or belongs to another user.
pub fn read_own(path: &Path) -> Result<Option<String>, FileError> {
    let mut options = OpenOptions::new();
    let options = options
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(nix::libc::ELOOP) => {
            return Err(refused(path, "it is a link, and leads elsewhere"));
        }
        file => file.map_err(FileError::on("read", path))?,
    };
    let file = require_regular(file).map_err(FileError::on("read", path))?;
    let metadata = file.metadata().map_err(FileError::on("look at", path))?;
    if metadata.uid() != nix::unistd::getuid().as_raw() {
        return Err(refused(path, "it belongs to another user"));
    }
    let bytes = whole(file, path, LONGEST_STATE)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Removes a file; that it was not there is fine.
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

/// The space of a file on the disk. That of a file with holes is less than its length.
pub fn allocated(path: &Path) -> Size {
    // st_blocks counts 512 bytes, whatever the file system's own blocks are (stat(2)).
    Size::bytes(fs::metadata(path).map_or(0, |it| it.blocks() * 512))
}

/// The most that is read of the end of a log.
const LONGEST_TAIL: u64 = 8 << 20;

/// The last `lines` lines of a log, of its last 8 MiB at most, lossily as text; empty when there is no such file, or a
/// link in its place.
pub fn tail(path: &Path, lines: usize) -> String {
    let mut text = Vec::new();
    let read = |mut file: File| {
        let skipped = file.metadata()?.len().saturating_sub(LONGEST_TAIL);
        file.seek(SeekFrom::Start(skipped))?;
        file.take(LONGEST_TAIL).read_to_end(&mut text)
    };
    let _ = open_plain(path).map(read);
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The action of a [`FileError`] about a place that others have or had a hand in.
pub const TRUST: &str = "trust";

/// The error about such a place.
pub(crate) fn refused(path: &Path, reason: &'static str) -> FileError {
    FileError::on(TRUST, path)(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

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
    fn what_never_ends_is_not_read() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let fifo = directory.path().join("fifo");
        make_fifo(&fifo).expect("made");
        for path in [fifo.as_path(), Path::new("/dev/zero")] {
            let error = read(path).expect_err("refused");
            assert_eq!(error.source.to_string(), "not a regular file");
            assert_eq!(tail(path, 1), "");
        }
        assert!(open_in_place(&fifo, true).is_err() && open_plain(&fifo).is_err());
        let long = directory.path().join("long");
        let file = File::create(&long).expect("created");
        file.set_len(1 << 40).expect("sparse");
        let error = read(&long).expect_err("refused");
        assert_eq!(error.source.to_string(), "it is larger than 64 MiB");
        file.write_all_at(b"\nthe end", (1 << 40) - 8)
            .expect("written");
        assert_eq!(tail(&long, 1), "the end");
    }

    #[test]
    fn what_does_not_fit_is_refused_before_it_is_written() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("disk");
        require_space(&path, 1).expect("a byte fits");
        let error = require_space(&path, 8 << 60).expect_err("refused");
        assert!(error.is_out_of_space());
        assert!(error.source.to_string().contains(" needed, "), "{error:?}");
    }

    #[test]
    fn a_dead_writers_file_is_removed_and_a_living_ones_kept() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("record");
        let living = temporary_beside(&path).expect("created");
        let dead = directory.path().join(".tmp-dead");
        fs::write(&dead, b"half").expect("written");
        write(&path, b"one", PRIVATE).expect("written");
        assert!(!dead.exists(), "nobody has it locked");
        assert!(living.path().exists());
        persist(living, &path, PRIVATE).expect("its writer goes on");
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
    fn a_fifo_and_a_device_are_refused_at_once() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let fifo = directory.path().join("fifo");
        make_fifo(&fifo).expect("made");
        for path in [&fifo, Path::new("/dev/zero")] {
            for refused in [read(path).err(), read_if_exists(path).err()] {
                let error = refused.expect("no file").source;
                assert_eq!(error.to_string(), "not a regular file");
            }
        }
    }

    #[test]
    fn a_tilde_is_the_home_directory_where_it_is_a_part_of_its_own() {
        let home = env::home_dir().expect("a home");
        for (path, expected) in [
            ("~/x/y", home.join("x/y")),
            ("~", home.join("")),
            ("~ada/x", "~ada/x".into()),
            ("./~/x", "./~/x".into()),
            ("/a/~/x", "/a/~/x".into()),
        ] {
            assert_eq!(expand_home(Path::new(path)), expected);
        }
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
