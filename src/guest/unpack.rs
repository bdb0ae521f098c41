//! An archive that comes from the guest becomes files. The guest is not trusted: all of it goes into a new directory of its
//! own first, where no name leads out and no link is followed, and from there to its place when it is whole.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, fchmod, futimens, linkat, mkdirat, openat,
    symlinkat, utimensat,
};
use tar::{Archive, Entry, EntryType};
use tempfile::TempDir;

use super::CopyError;
use crate::base::{FileError, Progress, files, tar_limit::HeaderLimit, umask};

/// The name of the received file or directory while it is staged.
const IT: &str = "it";
/// The bits of the mode that the guest may choose: no setuid programs of this user.
const PERMISSIONS: u32 = 0o777;

/// A longer path cannot be used (PATH_MAX).
const LONGEST_PATH: usize = 4096;
/// More that were left out are not named.
const MOST_LEFT_OUT: usize = 1000;

/// Of these, what the user's umask leaves.
fn allowed() -> u32 {
    PERMISSIONS & !umask::of_user()
}

/// A directory is this user's to fill until all is in it.
const BEGUN: Mode = Mode::RWXU;

/// A file or directory from the guest, complete and not in its place yet. It is deleted when this is dropped.
#[derive(Debug)]
pub struct Staged {
    stage: TempDir,
    /// It is a directory.
    pub is_folder: bool,
    folders: Vec<Folder>,
    /// The names of entries that were left out, because they are neither files nor directories nor links.
    pub left_out: Vec<String>,
}

/// A directory, whose attributes are set when nothing more is put into it.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    mode: u32,
    time: u64,
}

/// An empty directory in `directory`, for what comes.
pub(super) fn stage_in(directory: &Path) -> Result<TempDir, CopyError> {
    let made = tempfile::Builder::new()
        .prefix(".k3s-vm-cp.")
        .tempdir_in(directory);
    Ok(made.map_err(|error| {
        let error = io::Error::from(error.kind());
        FileError::on("create a directory in", directory)(error)
    })?)
}

/// Reads the whole archive into `stage`.
///
/// # Errors
///
/// When it breaks off, has a name that leads elsewhere, or the disk does not take it.
pub(super) fn unpack(
    mut stream: impl Read,
    stage: TempDir,
    what: &str,
    progress: &dyn Progress,
) -> Result<Staged, CopyError> {
    let mut unpacker = Unpacker {
        root: open_folder(CWD, stage.path().as_os_str())
            .map_err(FileError::on("open", stage.path()))?,
        transfer: None,
        progress,
        what,
        staged: Staged {
            stage,
            is_folder: false,
            folders: Vec::new(),
            left_out: Vec::new(),
        },
        single: false,
    };
    unpacker.all(&mut stream)?;
    if let Some(transfer) = unpacker.transfer {
        progress.end(transfer);
    }
    Ok(unpacker.staged)
}

struct Unpacker<'a> {
    /// The stage, and once it is known that a directory comes, that.
    root: OwnedFd,
    transfer: Option<usize>,
    progress: &'a dyn Progress,
    what: &'a str,
    staged: Staged,
    /// A file came, and no more may.
    single: bool,
}

impl Unpacker<'_> {
    fn all(&mut self, stream: &mut impl Read) -> Result<(), CopyError> {
        let (limited, limit) = HeaderLimit::of(&mut *stream);
        let mut archive = Archive::new(limited);
        for entry in archive.entries().map_err(CopyError::Archive)? {
            let entry = entry.map_err(CopyError::Archive)?;
            limit.allow(&entry);
            self.one(entry)?;
        }
        if self.transfer.is_none() {
            return Err(CopyError::Archive(io::ErrorKind::UnexpectedEof.into()));
        }
        // What fills the last block up.
        io::copy(stream, &mut io::sink()).map_err(CopyError::Archive)?;
        Ok(())
    }

    fn one(&mut self, mut entry: Entry<'_, impl Read>) -> Result<(), CopyError> {
        let name = entry.path_bytes().into_owned();
        let hostile = || CopyError::Hostile(String::from_utf8_lossy(&name).into_owned());
        let mut path = inside(&name).ok_or_else(hostile)?;
        if self.transfer.is_none() {
            let is_folder = entry.header().entry_type().is_dir();
            let total = (!is_folder).then(|| entry.size());
            self.transfer = Some(self.progress.begin(self.what, 0, total));
            self.staged.is_folder = is_folder;
            self.single = !is_folder;
            if is_folder {
                let failed = FileError::on("create", self.staged.stage.path());
                self.root = make_folder(&self.root, OsStr::new(IT)).map_err(failed)?;
                self.remember(PathBuf::new(), &entry)?;
                return Ok(());
            }
            path = PathBuf::from(IT);
        } else if self.single || path.as_os_str().is_empty() {
            return Err(hostile());
        }
        let (parent, own) = self.walk(&path).map_err(|error| match error.kind() {
            // Nothing that was put there is a link to follow, or a file to go through.
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => hostile(),
            _ => self.failed("create", &path, error),
        })?;
        self.put(&mut entry, &path, &parent, own.as_os_str())
    }

    fn put(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        path: &Path,
        parent: &OwnedFd,
        own: &OsStr,
    ) -> Result<(), CopyError> {
        let hostile = || CopyError::Hostile(path.display().to_string());
        let linked = entry.link_name_bytes().map(std::borrow::Cow::into_owned);
        let made = match entry.header().entry_type() {
            EntryType::Directory => {
                self.remember(path.to_owned(), entry)?;
                make_folder(parent, own).map(drop)
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                return self.write(entry, path, parent, own);
            }
            EntryType::Symlink => {
                let target = linked.ok_or_else(hostile)?;
                symlinkat(OsStr::from_bytes(&target), parent, own)
                    .and_then(|()| {
                        let flags = AtFlags::SYMLINK_NOFOLLOW;
                        utimensat(parent, own, &times(entry.header().mtime()), flags)
                    })
                    .map_err(Into::into)
            }
            EntryType::Link => {
                let target = linked.and_then(|it| inside(&it)).ok_or_else(hostile)?;
                let (folder, name) = self.walk(&target).map_err(|_| hostile())?;
                linkat(folder, name, parent, own, AtFlags::empty()).map_err(Into::into)
            }
            EntryType::XGlobalHeader => Ok(()),
            _ => {
                if self.staged.left_out.len() < MOST_LEFT_OUT {
                    self.staged.left_out.push(path.display().to_string());
                }
                Ok(())
            }
        };
        made.map_err(|error: io::Error| self.failed("create", path, error))
    }

    fn write(
        &self,
        entry: &mut Entry<'_, impl Read>,
        path: &Path,
        parent: &OwnedFd,
        own: &OsStr,
    ) -> Result<(), CopyError> {
        // Of a sparse file, the archive may announce more than it has.
        files::require_space(self.staged.stage.path(), entry.size())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mut file = openat(
            parent,
            own,
            flags | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        )
        .map(fs::File::from)
        .map_err(|error| self.failed("create", path, error.into()))?;
        let mut some = vec![0; 128 << 10];
        loop {
            let read = entry.read(&mut some).map_err(CopyError::Archive)?;
            if read == 0 {
                break;
            }
            file.write_all(&some[..read])
                .map_err(|error| self.failed("write", path, error))?;
            if let Some(transfer) = self.transfer {
                self.progress.advance(transfer, read as u64);
            }
        }
        let mode = entry.header().mode().unwrap_or_default() & allowed();
        fchmod(&file, Mode::from_raw_mode(mode))
            .and_then(|()| futimens(&file, &times(entry.header().mtime())))
            .map_err(|error| self.failed("set the mode of", path, error.into()))
    }

    fn remember(&mut self, path: PathBuf, entry: &Entry<'_, impl Read>) -> Result<(), CopyError> {
        let header = entry.header();
        self.staged.folders.push(Folder {
            path,
            mode: header.mode().map_err(CopyError::Archive)? & allowed(),
            time: header.mtime().map_err(CopyError::Archive)?,
        });
        Ok(())
    }

    /// The directory that `path` is in, reached without any link, and its name there.
    fn walk(&self, path: &Path) -> io::Result<(OwnedFd, std::ffi::OsString)> {
        let mut folder = self.root.try_clone()?;
        let mut names = path.iter().peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                return Ok((folder, name.to_owned()));
            }
            folder = open_folder(&folder, name)?;
        }
        Err(io::ErrorKind::NotFound.into())
    }

    fn failed(&self, action: &'static str, path: &Path, error: io::Error) -> CopyError {
        FileError::on(action, &self.staged.stage.path().join(path))(error).into()
    }
}

impl Staged {
    /// Gives it its place: `target` is replaced by a file; a directory goes where nothing is, or its content into the
    /// directory that is there, which keeps its mode. What is in there under the same names is replaced, file by file.
    ///
    /// # Errors
    ///
    /// When a directory and something else have the same name, or the directory cannot be written.
    pub fn place(self, target: &Path) -> Result<Vec<String>, CopyError> {
        let it = self.stage.path().join(IT);
        let mut kept = HashSet::new();
        put(&it, target, Path::new(""), &mut kept)?;
        for folder in self.folders.iter().rev() {
            if kept.contains(&folder.path) {
                continue;
            }
            let path = target.join(&folder.path);
            let failed = FileError::on("set the mode of", &path);
            fs::set_permissions(&path, fs::Permissions::from_mode(folder.mode))
                .and_then(|()| {
                    Ok(utimensat(
                        CWD,
                        &path,
                        &times(Ok(folder.time)),
                        AtFlags::empty(),
                    )?)
                })
                .map_err(failed)?;
        }
        Ok(self.left_out)
    }
}

/// Moves `from` to `to`; of two directories the content. Notes the directories that were there.
fn put(
    from: &Path,
    to: &Path,
    relative: &Path,
    kept: &mut HashSet<PathBuf>,
) -> Result<(), CopyError> {
    let is_folder = |path: &Path| path.symlink_metadata().is_ok_and(|it| it.is_dir());
    if !is_folder(from) || !is_folder(to) {
        if is_folder(to) {
            return Err(CopyError::Folder(to.display().to_string()));
        }
        let is_special = |it: fs::Metadata| !it.is_file() && !it.is_symlink();
        if to.symlink_metadata().is_ok_and(is_special) {
            return Err(CopyError::Special(to.display().to_string()));
        }
        return Ok(fs::rename(from, to).map_err(FileError::on("write to", to))?);
    }
    kept.insert(relative.to_owned());
    for entry in fs::read_dir(from).map_err(FileError::on("list", from))? {
        let name = entry.map_err(FileError::on("list", from))?.file_name();
        put(
            &from.join(&name),
            &to.join(&name),
            &relative.join(&name),
            kept,
        )?;
    }
    Ok(())
}

/// A name of the archive as a path inside of a directory; `None` where it leads out.
fn inside(name: &[u8]) -> Option<PathBuf> {
    let parts = name.split(|&byte| byte == b'/');
    if name.starts_with(b"/") || name.contains(&0) || name.len() > LONGEST_PATH {
        return None;
    }
    let mut path = PathBuf::new();
    for part in parts {
        match part {
            b"" | b"." => {}
            b".." => return None,
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Some(path)
}

fn open_folder(parent: impl std::os::fd::AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

fn make_folder(parent: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    mkdirat(parent, name, BEGUN)?;
    open_folder(parent, name)
}

/// The time of both, the last change and the last access.
fn times(seconds: io::Result<u64>) -> Timestamps {
    let time = Timespec {
        // Of one before 1970, the `tar` crate gives the bits.
        tv_sec: seconds.unwrap_or_default().cast_signed(),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

#[cfg(test)]
mod tests;
