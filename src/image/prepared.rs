//! Prepared disks: what is the same for all VMs with one image and one k3s release, done once on this host. The guest
//! of one VM writes such a disk; once it is published it does not change, and is the backing file of other VMs' disks.
//!
//! ```text
//! prepared/<key>-<maker>.qcow2    an overlay on the base image; its maker's alone until it is published
//! prepared/<key>-<maker>.memory   what the guest had in its memory when it had written that
//! prepared/<key>-<maker>.json     that both are published, and what they were then
//! ```
//!
//! A template has `.template` behind its maker.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Cache, ImageError, is_qcow2, source::stamp};
use crate::{
    base::{Digest, FileError, files},
    project::{Identity, suspended::Memory},
};

/// The directory, by which a path tells that it leads to a prepared disk.
const BUCKET: &str = "prepared";
const SCHEMA: u32 = 1;
/// The part of a template's file name before its extension.
const TEMPLATE: &str = "template";
/// The mode of a file that is read only.
const READ_ONLY: u32 = 0o400;

/// A disk in `prepared/` as it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// Its maker's own, not yet or never to be shared.
    Private,
    /// For all, and as it was when it was published.
    Published,
    /// It was published, and has changed since.
    Altered,
}

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    schema: u32,
    digest: Digest,
    /// The file's stamp, by which it is known to be unchanged without reading it.
    stamp: String,
    /// The guest's memory, if it was kept.
    memory: Option<Memory>,
    /// The guest's identity, for a template of which other VMs are copies.
    identity: Option<Identity>,
}

impl Cache {
    /// The path at which the VM `maker` may write a disk that will be published as `key`.
    pub fn new_prepared(&self, key: &Digest, maker: &str) -> PathBuf {
        let maker: String = maker.chars().take(8).collect();
        self.root()
            .join(BUCKET)
            .join(format!("{key}-{maker}.qcow2"))
    }

    /// The path at which `maker` may write a template that will be published as `key`.
    pub fn new_template(&self, key: &Digest, maker: &str) -> PathBuf {
        let path = self.new_prepared(key, maker);
        path.with_extension(format!("{TEMPLATE}.qcow2"))
    }

    /// An intact disk that was published as `key`. One that has changed is not used any more.
    pub fn find_prepared(&self, key: &Digest) -> Option<PathBuf> {
        let entries = fs::read_dir(self.root().join(BUCKET)).ok()?;
        let mut disks: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|it| it == "json"))
            .map(|path| path.with_extension("qcow2"))
            .filter(|path| {
                path.file_name()
                    .is_some_and(|it| it.to_string_lossy().starts_with(&key.to_string()))
            })
            .collect();
        disks.sort();
        disks.into_iter().find(|path| {
            let sound = state(path) == Some(Prepared::Published);
            if !sound {
                tracing::info!("{} has changed; creating another template", path.display());
            }
            sound
        })
    }
}

/// The state of the prepared disk at `path`, if prepared disks are kept there. A file that only looks changed is read.
pub fn state(path: &Path) -> Option<Prepared> {
    if path.parent()?.file_name()? != BUCKET {
        return None;
    }
    let Ok(Some(text)) = files::read_if_exists(&note(path)) else {
        return Some(Prepared::Private);
    };
    let sound = parse(&text).is_some_and(|note| {
        stamp_of(path).is_ok_and(|it| it == note.stamp) || is_still(path, note).is_ok_and(|it| it)
    });
    Some(if sound {
        Prepared::Published
    } else {
        Prepared::Altered
    })
}

fn parse(note: &str) -> Option<Note> {
    let note = serde_json::from_str::<Note>(note).ok()?;
    (note.schema == SCHEMA).then_some(note)
}

/// Where the memory is that belongs to the disk at `path`.
pub fn memory_path(path: &Path) -> PathBuf {
    path.with_extension("memory")
}

/// The published memory of the disk at `path`.
pub fn memory(path: &Path) -> Option<Memory> {
    let text = files::read_if_exists(&note(path)).ok()??;
    parse(&text)?.memory
}

/// Returns `true` for the path of a template: a disk with an identity, which is offered on request only.
pub fn is_template(path: &Path) -> bool {
    let stem = path.file_stem().map(Path::new);
    stem.and_then(Path::extension)
        .is_some_and(|it| it == TEMPLATE)
}

/// The identity of the guest on the disk at `path`, if it is a template.
pub fn identity(path: &Path) -> Option<Identity> {
    if !is_template(path) {
        return None;
    }
    let text = files::read_if_exists(&note(path)).ok()??;
    parse(&text)?.identity
}

/// Removes a disk that is not published, or not any more, with its memory. What says that it is there goes first.
///
/// # Errors
///
/// When one of the files cannot be removed.
pub fn remove(path: &Path) -> Result<(), FileError> {
    for file in [note(path), memory_path(path), path.to_owned()] {
        files::remove_if_exists(&file)?;
    }
    Ok(())
}

/// The file that a prepared disk is an overlay on, for the cache may have lost it.
pub fn image_below(path: &Path, digest: Digest) -> Option<PathBuf> {
    Some(
        path.parent()?
            .parent()?
            .join("images")
            .join(format!("{digest}.img")),
    )
}

/// Publishes the disk at `path` for all VMs, and the memory that belongs to it. They must not be written to any more.
///
/// # Errors
///
/// When they cannot be read or the cache not be written.
pub fn publish(
    path: &Path,
    memory: Option<Memory>,
    identity: Option<Identity>,
) -> Result<(), ImageError> {
    let files = [
        Some(path.to_owned()),
        memory.as_ref().map(|_| memory_path(path)),
    ];
    for file in files.into_iter().flatten() {
        fs::set_permissions(&file, Permissions::from_mode(READ_ONLY))
            .map_err(FileError::on("set the mode of", &file))?;
    }
    let file = files::open_regular(path)?;
    file.sync_all().map_err(FileError::on("flush", path))?;
    let digest = Digest::of_reader(file).map_err(FileError::on("read", path))?;
    write_note(path, digest, memory, identity)
}

/// Returns `true` when the bytes are unchanged though the stamp is not: a cache that was copied has other times. The
/// new stamp is saved then.
fn is_still(path: &Path, note: Note) -> Result<bool, ImageError> {
    if !is_qcow2(path)? {
        return Ok(false);
    }
    let file = files::open_regular(path)?;
    let same = Digest::of_reader(file).map_err(FileError::on("read", path))? == note.digest;
    if same {
        write_note(path, note.digest, note.memory, note.identity)?;
    }
    Ok(same)
}

fn write_note(
    path: &Path,
    digest: Digest,
    memory: Option<Memory>,
    identity: Option<Identity>,
) -> Result<(), ImageError> {
    let written = Note {
        schema: SCHEMA,
        digest,
        stamp: stamp_of(path)?,
        memory,
        identity,
    };
    let json = serde_json::to_vec_pretty(&written).expect("texts have a JSON form");
    Ok(files::write(&note(path), &json, files::PRIVATE)?)
}

fn stamp_of(path: &Path) -> Result<String, FileError> {
    fs::metadata(path)
        .map(|metadata| stamp(&metadata))
        .map_err(FileError::on("look at", path))
}

fn note(path: &Path) -> PathBuf {
    path.with_extension("json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache, Digest, PathBuf) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let cache = Cache::new(directory.path().join("cache"));
        let key = Digest::of(b"image and release");
        let path = cache.new_prepared(&key, "11111111-2222");
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, b"QFI\xfbdisk").expect("written");
        (directory, cache, key, path)
    }

    #[test]
    fn it_is_its_makers_until_it_is_published() {
        let (_directory, cache, key, path) = cache();
        assert_eq!(state(&path), Some(Prepared::Private));
        assert_eq!(cache.find_prepared(&key), None);
        publish(&path, None, None).expect("published");
        assert_eq!(state(&path), Some(Prepared::Published));
        assert_eq!(cache.find_prepared(&key), Some(path));
        assert_eq!(cache.find_prepared(&Digest::of(b"another")), None);
        assert_eq!(state(Path::new("/cache/images/x.img")), None);
    }

    #[test]
    fn a_template_is_recognised_by_its_name() {
        let (_directory, cache, key, disk) = cache();
        let template = cache.new_template(&key, "11111111-2222");
        assert!(is_template(&template) && !is_template(&disk));
        assert_ne!(note(&template), note(&disk));
        assert_ne!(memory_path(&template), memory_path(&disk));
        assert_eq!(state(&template), Some(Prepared::Private));
    }

    #[test]
    fn a_copy_is_as_good_and_an_altered_one_is_not() {
        let (_directory, cache, key, path) = cache();
        publish(&path, None, None).expect("published");
        let copy = path.with_extension("copy");
        fs::copy(&path, &copy).expect("copied");
        fs::rename(&copy, &path).expect("in its place");
        assert_eq!(cache.find_prepared(&key), Some(path.clone()));
        for bytes in [&b"QFI\xfbdisc"[..], b"QFI\xfbdis", b"", b"other"] {
            fs::remove_file(&path).expect("removed");
            fs::write(&path, bytes).expect("written");
            assert_eq!(state(&path), Some(Prepared::Altered), "{bytes:?}");
            assert_eq!(cache.find_prepared(&key), None);
        }
        fs::write(path.with_extension("json"), "{").expect("written");
        assert_eq!(state(&path), Some(Prepared::Altered));
    }
}
