//! The id of a VM's directory, which names its sockets and its registration in the cache.
//!
//! It is random, in a file of the directory, so that a project that is moved keeps it, also over a reboot that numbers
//! file systems again. The file also has marks of the directory itself: in a copy they differ, and the copy gets another id.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use uuid::Uuid;

use crate::base::{
    FileError,
    files::{self, PRIVATE},
};

/// The characters of an id, few enough for a socket's path.
const LENGTH: usize = 16;

/// The id of the VM in `directory`; `None` without one, or with that of the directory of which it is a copy.
pub(super) fn read(directory: &Path) -> Option<String> {
    let text = files::read_own(&file(directory)).ok()??;
    let (id, marks) = text.trim_end().split_once(' ')?;
    let is_sound = id.len() == LENGTH && id.bytes().all(|it| it.is_ascii_hexdigit());
    (is_sound && marks_of(directory).ok()? == marks).then(|| id.to_owned())
}

/// Gives the VM in `directory` an id, if it has none.
pub(super) fn ensure(directory: &Path) -> Result<(), FileError> {
    if read(directory).is_some() {
        return Ok(());
    }
    let marks = marks_of(directory).map_err(FileError::on("look at", directory))?;
    let mut id = Uuid::new_v4().simple().to_string();
    id.truncate(LENGTH);
    let text = format!("{id} {marks}\n");
    files::write(&file(directory), text.as_bytes(), PRIVATE)
}

/// The file of the id.
pub(super) fn file(directory: &Path) -> PathBuf {
    directory.join("id")
}

/// The marks of a directory that a move keeps and a copy does not: its inode and, if the file system has it, its
/// creation time. The device number is not one, for it may change at a reboot.
fn marks_of(directory: &Path) -> io::Result<String> {
    let metadata = fs::metadata(directory)?;
    let made = metadata
        .created()
        .ok()
        .and_then(|it| it.duration_since(SystemTime::UNIX_EPOCH).ok());
    let made = made.unwrap_or_default().as_nanos();
    Ok(format!("{}-{made}", metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_gets_another_id() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let [here, copy] = ["here", "copy"].map(|name| temporary.path().join(name));
        fs::create_dir(&here).expect("created");
        assert_eq!(read(&here), None);
        ensure(&here).expect("written");
        let id = read(&here).expect("there");
        ensure(&here).expect("there");
        assert_eq!(read(&here).as_ref(), Some(&id));
        fs::create_dir(&copy).expect("created");
        fs::copy(file(&here), file(&copy)).expect("copied");
        assert_eq!(read(&copy), None);
        ensure(&copy).expect("written");
        assert_ne!(read(&copy).expect("there"), id);
        let marks = marks_of(&here).expect("told");
        for wrong in [
            "",
            "x",
            "../../../../etc ",
            "0123456789abcde",
            "0123456789abcdeg",
        ] {
            fs::write(file(&here), format!("{wrong} {marks}\n")).expect("written");
            assert_eq!(read(&here), None, "{wrong}");
        }
    }
}
