//! Directories that another user could have prepared: a shared directory, a project that came from a repository.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use crate::base::{
    FileError,
    files::{self, create_private_dir},
};

const NOT_OURS: &str = "it is not a directory of your own, or it is a link to one";

/// Refuses a directory that another user could have prepared: a link, or one that is not private. Needed below `/tmp`,
/// where all users can create directories.
///
/// # Errors
///
/// When it is a link, belongs to another user, or others may enter it.
pub fn require_private_dir(path: &Path) -> Result<(), FileError> {
    let metadata = fs::symlink_metadata(path).map_err(FileError::on("look at", path))?;
    let ours =
        metadata.is_dir() && is_mine(&metadata) && metadata.permissions().mode() & 0o077 == 0;
    if ours {
        return Ok(());
    }
    let reason = "it is not a directory of yours that only you may enter (mode 0700)";
    Err(files::refused(path, reason))
}

/// Refuses a directory of another user, or a link in its place, since its files are read, run and booted. A missing one
/// is accepted.
///
/// # Errors
///
/// When it belongs to another user, or is not a directory.
pub fn require_own_dir(path: &Path) -> Result<(), FileError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() && is_mine(&metadata) => Ok(()),
        Ok(_) => Err(files::refused(path, NOT_OURS)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FileError::on("look at", path)(error)),
    }
}

/// Makes `path` a private directory: creates it, or restricts an existing one of this user. A link in its place is
/// refused, for files would be written and removed elsewhere.
///
/// # Errors
///
/// When it cannot be made, is a link or not a directory, or belongs to another user.
pub fn own_private_dir(path: &Path) -> Result<(), FileError> {
    create_private_dir(path)?;
    let metadata = fs::symlink_metadata(path).map_err(FileError::on("look at", path))?;
    let ours = metadata.is_dir() && is_mine(&metadata);
    if ours && metadata.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(FileError::on("set the mode of", path))?;
    }
    if ours {
        return Ok(());
    }
    Err(files::refused(path, NOT_OURS))
}

/// Refuses a directory in which other users can replace files, or a file that they can write. A missing one is
/// accepted.
///
/// # Errors
///
/// When it belongs to another user than us and root, or others may write to it.
pub fn require_own_content(path: &Path) -> Result<(), FileError> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(FileError::on("look at", path))?,
    };
    let ours = is_mine(&metadata) || metadata.uid() == 0;
    if !metadata.is_dir() && !metadata.is_file() {
        return Err(FileError::on("use", path)(io::Error::other(
            "neither a directory nor a regular file",
        )));
    }
    if ours && metadata.permissions().mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(files::refused(
        path,
        "others may write to it, and its files are run and booted",
    ))
}

/// The directory of the cache into which k3s unpacks itself when it runs as kubectl, with links, and with modes by the user's
/// umask. Only the user can enter it (see [`own_private_dir`]), and nothing in it is booted or removed.
pub const K3S_DATA: &str = "k3s-data";

/// Requires the same of a directory and everything below it, without [`K3S_DATA`]. No directory there may be a link: a
/// removal would happen elsewhere.
///
/// # Errors
///
/// When one of them is a link to a directory, belongs to another user than us and root, or others may write to it.
pub fn require_own_tree(path: &Path) -> Result<(), FileError> {
    require_tree(path, Some(K3S_DATA))
}

fn require_tree(path: &Path, except: Option<&str>) -> Result<(), FileError> {
    require_own_content(path)?;
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        if except.is_some_and(|it| entry.file_name() == it) {
            continue;
        }
        if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
            require_tree(&path, None)?;
        } else if kind.is_ok_and(|it| it.is_symlink()) && path.is_dir() {
            return Err(files::refused(&path, NOT_OURS));
        } else {
            require_own_content(&path)?;
        }
    }
    Ok(())
}

fn is_mine(metadata: &fs::Metadata) -> bool {
    metadata.uid() == nix::unistd::getuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_writable_directories_are_rejected() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let tree = directory.path().join("cache");
        let deep = tree.join("k3s/digest");
        require_own_tree(&tree).expect("a missing tree is accepted");
        create_private_dir(&deep).expect("made");
        fs::write(deep.join("k3s"), "").expect("written");
        require_own_tree(&tree).expect("ours");
        for open in [0o777, 0o770, 0o1777] {
            fs::set_permissions(&deep, Permissions::from_mode(open)).expect("opened");
            let error = require_own_tree(&tree).expect_err("refused");
            assert_eq!(error.path, deep, "{open:o}");
        }
        fs::set_permissions(&deep, Permissions::from_mode(0o755)).expect("closed");
        let file = deep.join("k3s");
        for open in [0o666, 0o664] {
            fs::set_permissions(&file, Permissions::from_mode(open)).expect("opened");
            let error = require_own_tree(&tree).expect_err("refused");
            assert_eq!(error.path, file, "{open:o}");
        }
        fs::set_permissions(&file, Permissions::from_mode(0o555)).expect("closed");
        let unpacked = tree.join(K3S_DATA).join("data");
        create_private_dir(&unpacked).expect("made");
        std::os::unix::fs::symlink("0a1b", unpacked.join("current")).expect("linked");
        fs::create_dir(unpacked.join("0a1b")).expect("made");
        fs::set_permissions(&unpacked, Permissions::from_mode(0o775)).expect("opened");
        require_own_tree(&tree).expect("k3s's own");
        // Only at the top of the cache.
        let deeper = deep.join(K3S_DATA);
        std::os::unix::fs::symlink(directory.path(), &deeper).expect("linked");
        assert_eq!(require_own_tree(&tree).expect_err("refused").path, deeper);
        fs::remove_file(&deeper).expect("removed");
        let link = tree.join("images");
        std::os::unix::fs::symlink(directory.path(), &link).expect("linked");
        assert_eq!(require_own_tree(&tree).expect_err("refused").path, link);
    }
}
