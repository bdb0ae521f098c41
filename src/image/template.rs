//! Templates: disks and memory from which new VMs start. The guest of one VM writes the disk. Once it is published it does
//! not change, and is the backing file of other VMs' disks.
//!
//! ```text
//! prepared/<key>-<maker>.qcow2    an overlay on the base image; only its maker uses it until it is published
//! prepared/<key>-<maker>.memory   the guest's memory at that moment
//! prepared/<key>-<maker>.json     the description of both, written when they are published
//! ```
//!
//! A template at the level `Ready` has `.template` after its maker.

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

/// The name of the directory of templates.
const BUCKET: &str = "prepared";
const SCHEMA: u32 = 1;
/// The part of the file name before its extension, at the level `Ready`.
const READY: &str = "template";
/// The mode of a file that is read only.
const READ_ONLY: u32 = 0o400;

/// How far the guest of a template has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// k3s is installed, and the guest has no identity.
    Installed,
    /// The node is Ready, and all copies share the guest's identity. Used on request only.
    Ready,
}

/// The state of a template's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplateState {
    /// Not published: only its maker uses it.
    Private,
    /// Published and unchanged.
    Published,
    /// Published, and changed since.
    Altered,
}

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    schema: u32,
    digest: Digest,
    /// The file's stamp, which shows that it is unchanged without reading it.
    stamp: String,
    /// The guest's memory, if it was saved.
    memory: Option<Memory>,
    /// The guest's identity, at the level `Ready`.
    identity: Option<Identity>,
}

impl Cache {
    /// The path at which the VM `maker` may write a template that will be published as `key`.
    pub fn new_template(&self, key: &Digest, maker: &str, level: Level) -> PathBuf {
        let maker: String = maker.chars().take(8).collect();
        let extension = match level {
            Level::Installed => "qcow2".to_owned(),
            Level::Ready => format!("{READY}.qcow2"),
        };
        self.root()
            .join(BUCKET)
            .join(format!("{key}-{maker}.{extension}"))
    }

    /// An unchanged disk that was published as `key`.
    pub fn find_template(&self, key: &Digest) -> Option<PathBuf> {
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
            let sound = state(path) == Some(TemplateState::Published);
            if !sound {
                tracing::info!("{} has changed; creating another template", path.display());
            }
            sound
        })
    }
}

/// The state of the disk at `path`, if it is a template's. A file whose stamp differs is read.
pub fn state(path: &Path) -> Option<TemplateState> {
    if path.parent()?.file_name()? != BUCKET {
        return None;
    }
    let Ok(Some(text)) = files::read_if_exists(&note(path)) else {
        return Some(TemplateState::Private);
    };
    let sound = parse(&text).is_some_and(|note| {
        stamp_of(path).is_ok_and(|it| it == note.stamp) || is_still(path, note).is_ok_and(|it| it)
    });
    Some(if sound {
        TemplateState::Published
    } else {
        TemplateState::Altered
    })
}

fn parse(note: &str) -> Option<Note> {
    let note = serde_json::from_str::<Note>(note).ok()?;
    (note.schema == SCHEMA).then_some(note)
}

/// The path of the memory that belongs to the disk at `path`.
pub fn memory_path(path: &Path) -> PathBuf {
    path.with_extension("memory")
}

/// The published memory of the disk at `path`.
pub fn memory(path: &Path) -> Option<Memory> {
    let text = files::read_if_exists(&note(path)).ok()??;
    parse(&text)?.memory
}

/// The level of the template at `path`.
pub fn level(path: &Path) -> Level {
    let stem = path.file_stem().map(Path::new);
    match stem.and_then(Path::extension) {
        Some(extension) if extension == READY => Level::Ready,
        _ => Level::Installed,
    }
}

/// The identity of the guest on the disk at `path`, at the level `Ready`.
pub fn identity(path: &Path) -> Option<Identity> {
    if level(path) == Level::Installed {
        return None;
    }
    let text = files::read_if_exists(&note(path)).ok()??;
    parse(&text)?.identity
}

/// Removes an unpublished or outdated disk with its memory. Its description is removed first.
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

/// The backing file of a template's disk, which the cache may have lost.
pub fn image_below(path: &Path, digest: Digest) -> Option<PathBuf> {
    Some(
        path.parent()?
            .parent()?
            .join("images")
            .join(format!("{digest}.img")),
    )
}

/// Publishes the disk at `path` for all VMs, with its memory. Neither may be written to afterwards.
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

/// Returns `true` when the bytes are unchanged although the stamp differs, as in a copied cache. Saves the new stamp
/// then.
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
        let path = cache.new_template(&key, "11111111-2222", Level::Installed);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, b"QFI\xfbdisk").expect("written");
        (directory, cache, key, path)
    }

    #[test]
    fn a_disk_is_private_until_published() {
        let (_directory, cache, key, path) = cache();
        assert_eq!(state(&path), Some(TemplateState::Private));
        assert_eq!(cache.find_template(&key), None);
        publish(&path, None, None).expect("published");
        assert_eq!(state(&path), Some(TemplateState::Published));
        assert_eq!(cache.find_template(&key), Some(path));
        assert_eq!(cache.find_template(&Digest::of(b"another")), None);
        assert_eq!(state(Path::new("/cache/images/x.img")), None);
    }

    #[test]
    fn the_level_is_in_the_name() {
        let (_directory, cache, key, disk) = cache();
        let template = cache.new_template(&key, "11111111-2222", Level::Ready);
        assert_eq!(level(&template), Level::Ready);
        assert_eq!(level(&disk), Level::Installed);
        assert_ne!(note(&template), note(&disk));
        assert_ne!(memory_path(&template), memory_path(&disk));
        assert_eq!(state(&template), Some(TemplateState::Private));
    }

    #[test]
    fn a_copy_is_valid_and_an_altered_disk_is_not() {
        let (_directory, cache, key, path) = cache();
        publish(&path, None, None).expect("published");
        let copy = path.with_extension("copy");
        fs::copy(&path, &copy).expect("copied");
        fs::rename(&copy, &path).expect("in its place");
        assert_eq!(cache.find_template(&key), Some(path.clone()));
        for bytes in [&b"QFI\xfbdisc"[..], b"QFI\xfbdis", b"", b"other"] {
            fs::remove_file(&path).expect("removed");
            fs::write(&path, bytes).expect("written");
            assert_eq!(state(&path), Some(TemplateState::Altered), "{bytes:?}");
            assert_eq!(cache.find_template(&key), None);
        }
        fs::write(path.with_extension("json"), "{").expect("written");
        assert_eq!(state(&path), Some(TemplateState::Altered));
    }
}
