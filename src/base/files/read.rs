//! Reading files: regular ones only, of a limited size, and through a link only where that is meant.

use std::{
    env,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{
    error::{FileError, refused},
    write::PRIVATE,
};
use crate::base::Size;

/// The longest file of a project, in bytes.
const LONGEST_STATE: u64 = 16 << 20;

/// A private file that is written in place; with `emptied`, it is truncated first. A link in its place is not followed.
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

/// Opens a regular file for reading, through any link: a FIFO could block its reader, and a device could be endless.
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

/// The largest file that is read as a whole. The largest expected one, a seed disk, has a few MiB.
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
    read_whole(open_regular(path)?, path, limit)
}

fn read_whole(file: File, path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
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

/// The whole file as text, if it exists. Invalid UTF-8 becomes U+FFFD, so that a parser can report the line.
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

/// A whole regular file of this user as text, if it exists. A link in its place is not followed.
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
    let bytes = read_whole(file, path, LONGEST_STATE)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The longest end of a log that is read.
const LONGEST_TAIL: u64 = 8 << 20;

/// The last `lines` lines of a log, from its last 8 MiB. Invalid UTF-8 becomes U+FFFD. The text is empty when there is no
/// such file, or a link in its place.
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

/// The path with a leading tilde replaced by the home directory: a shell does not expand `--flag=~/x`, and a config has no
/// shell.
pub fn expand_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::base::files::make_fifo;

    #[test]
    fn endless_files_are_not_read() {
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
    fn a_leading_tilde_is_expanded() {
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
}
