//! Packs files of the host into an archive for the guest.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use tar::{Builder, EntryType, Header};

use super::CopyError;
use crate::base::{FileError, Progress, files};

/// The name in the archive of the file or directory that is sent.
const IT: &str = "it";
/// The last one of an archive that is whole; tar also takes an archive that was cut between two files as complete.
const LAST: &str = "whole";

/// The largest file without a size that is copied, in bytes.
const LONGEST_WITHOUT_SIZE: u64 = 64 << 20;

/// The result of packing.
#[derive(Debug)]
pub(super) struct Packed {
    /// The names of entries that were left out, because they are neither files nor directories nor links.
    pub(super) left_out: Vec<String>,
    /// The transfer on the terminal. It ends when the guest has received everything.
    pub(super) transfer: usize,
}

/// Writes `source`, a file or a directory with all that is in it, to `stream`. A link that is the source itself is
/// followed.
///
/// # Errors
///
/// When something of it cannot be read, or changes meanwhile.
pub(super) fn pack(
    source: &Path,
    stream: impl Write,
    what: &str,
    progress: &dyn Progress,
) -> Result<Packed, CopyError> {
    let source = fs::canonicalize(source).map_err(FileError::on("read", source))?;
    let metadata = fs::metadata(&source).map_err(FileError::on("look at", &source))?;
    let mut packer = Packer {
        builder: Builder::new(stream),
        progress,
        transfer: progress.begin(what, 0, Some(size(&source, &metadata))),
        left_out: Vec::new(),
    };
    packer.add(&source, Path::new(IT), &metadata)?;
    packer.end()?;
    Ok(Packed {
        left_out: packer.left_out,
        transfer: packer.transfer,
    })
}

/// The bytes to send. An entry that cannot be read is an error when its turn comes.
fn size(path: &Path, metadata: &Metadata) -> u64 {
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let metadata = entry
                .metadata()
                .ok()
                .filter(|it| it.is_dir() || it.is_file())?;
            Some(size(&entry.path(), &metadata))
        })
        .sum()
}

struct Packer<'a, W: Write> {
    builder: Builder<W>,
    progress: &'a dyn Progress,
    transfer: usize,
    left_out: Vec<String>,
}

impl<W: Write> Packer<'_, W> {
    fn add(&mut self, path: &Path, name: &Path, metadata: &Metadata) -> Result<(), CopyError> {
        let mut header = Header::new_gnu();
        header.set_metadata(metadata);
        set_time(&mut header, metadata.mtime());
        let kind = metadata.file_type();
        if kind.is_dir() {
            self.builder
                .append_data(&mut header, name, io::empty())
                .map_err(CopyError::Archive)?;
            return self.add_all_in(path, name);
        }
        if kind.is_symlink() {
            let target = fs::read_link(path).map_err(FileError::on("read", path))?;
            return self
                .builder
                .append_link(&mut header, name, target)
                .map_err(CopyError::Archive);
        }
        if !kind.is_file() {
            self.left_out.push(path.display().to_string());
            return Ok(());
        }
        let mut file = files::open_regular(path)?;
        if metadata.blocks() == 0 && metadata.len() <= LONGEST_WITHOUT_SIZE {
            // Files of /proc and /sys have their content only while they are read, and sizes of zero or of a page.
            let mut content = Vec::new();
            let read = (&mut file)
                .take(LONGEST_WITHOUT_SIZE + 1)
                .read_to_end(&mut content);
            read.map_err(FileError::on("read", path))?;
            if content.len() as u64 > LONGEST_WITHOUT_SIZE {
                let error = io::Error::other("it has no size, and more than 64 MiB");
                return Err(FileError::on("read", path)(error).into());
            }
            header.set_size(content.len() as u64);
            return self
                .builder
                .append_data(&mut header, name, content.as_slice())
                .map_err(CopyError::Archive);
        }
        let mut content = Exactly {
            file,
            left: metadata.len(),
            progress: self.progress,
            transfer: self.transfer,
            trouble: None,
        };
        let added = self.builder.append_data(&mut header, name, &mut content);
        match content.trouble {
            Some(error) => Err(FileError::on("read", path)(error).into()),
            None => added.map_err(CopyError::Archive),
        }
    }

    fn add_all_in(&mut self, path: &Path, name: &Path) -> Result<(), CopyError> {
        let failed = || FileError::on("list", path);
        for entry in fs::read_dir(path).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let inner = entry.path();
            let metadata = entry.metadata().map_err(FileError::on("look at", &inner))?;
            self.add(&inner, &name.join(entry.file_name()), &metadata)?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), CopyError> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(0);
        self.builder
            .append_data(&mut header, LAST, io::empty())
            .and_then(|()| self.builder.finish())
            .and_then(|()| self.builder.get_mut().flush())
            .map_err(CopyError::Archive)
    }
}

/// In binary where it is before 1970: the `tar` crate would have it far in the future (GNU tar manual, "Extensions").
fn set_time(header: &mut Header, seconds: i64) {
    match (header.as_gnu_mut(), u64::try_from(seconds)) {
        (Some(gnu), Err(_)) => {
            gnu.mtime = [0xff; 12];
            gnu.mtime[4..].copy_from_slice(&seconds.to_be_bytes());
        }
        (_, seconds) => header.set_mtime(seconds.unwrap_or_default()),
    }
}

/// As much of a file as was promised: one that grows is cut, and one that shrinks is an error.
struct Exactly<'a> {
    file: File,
    left: u64,
    progress: &'a dyn Progress,
    transfer: usize,
    /// Of the file, not of the stream that it goes to.
    trouble: Option<io::Error>,
}

impl Read for &mut Exactly<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(into.len());
        let read = match self.file.read(&mut into[..most]) {
            Ok(0) if most > 0 => Err(io::Error::other("it became shorter meanwhile")),
            read => read,
        };
        match read {
            Ok(read) => {
                self.left -= read as u64;
                self.progress.advance(self.transfer, read as u64);
                Ok(read)
            }
            Err(error) => {
                let kind = error.kind();
                self.trouble = Some(error);
                Err(kind.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::progress::Silent;

    #[test]
    fn times_of_all_ages_are_kept() {
        let mut header = Header::new_gnu();
        for seconds in [0, 1, -1, -315_619_200, 4_102_444_800, 1 << 40] {
            set_time(&mut header, seconds);
            let read = header.mtime().expect("a number");
            assert_eq!(read.cast_signed(), seconds);
        }
        // As GNU tar writes the year 1960.
        set_time(&mut header, -315_619_200);
        assert_eq!(header.as_gnu().expect("GNU").mtime[..4], [0xff; 4]);
    }

    #[test]
    fn files_of_proc_and_sys_are_copied_whole() {
        let packed = |path: &Path| {
            let mut bytes = Vec::new();
            pack(path, &mut bytes, "it", &Silent).expect("packed");
            let mut archive = tar::Archive::new(&bytes[..]);
            let mut entry = archive.entries().expect("an archive").next();
            let mut content = Vec::new();
            let entry = entry.as_mut().expect("one").as_mut().expect("whole");
            entry.read_to_end(&mut content).expect("read");
            content
        };
        assert!(packed(Path::new("/proc/version")).starts_with(b"Linux"));
        let of_sys = Path::new("/sys/kernel/mm/transparent_hugepage/enabled");
        if of_sys.exists() {
            assert_eq!(packed(of_sys), fs::read(of_sys).expect("read"));
        }
        let hole = tempfile::NamedTempFile::new().expect("temporary file");
        hole.as_file().set_len(100_000).expect("sparse");
        assert_eq!(packed(hole.path()), vec![0; 100_000]);
    }

    #[test]
    fn a_directory_is_packed_with_an_end_mark() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let long = "a".repeat(120);
        fs::create_dir(directory.path().join(&long)).expect("created");
        fs::write(directory.path().join(&long).join("file"), "content").expect("written");
        std::os::unix::fs::symlink("/nowhere", directory.path().join("link")).expect("linked");
        let _socket = std::os::unix::net::UnixListener::bind(directory.path().join("socket"));
        let mut bytes = Vec::new();
        let packed = pack(directory.path(), &mut bytes, "it", &Silent).expect("packed");
        let left_out = packed.left_out;
        assert!(
            left_out.len() == 1 && left_out[0].ends_with("/socket"),
            "{left_out:?}"
        );
        let mut archive = tar::Archive::new(&bytes[..]);
        let names: Vec<String> = archive
            .entries()
            .expect("an archive")
            .map(|entry| {
                entry
                    .expect("whole")
                    .path()
                    .expect("a name")
                    .display()
                    .to_string()
            })
            .collect();
        assert!(names.contains(&format!("it/{long}/file")), "{names:?}");
        assert!(names.contains(&"it/link".to_owned()), "{names:?}");
        assert_eq!(names.last().map(String::as_str), Some("whole"));
        assert!(pack(Path::new("/nowhere/at/all"), Vec::new(), "it", &Silent).is_err());
    }
}
