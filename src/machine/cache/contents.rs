//! The files of the shared cache: their list, and the removal of those that no VM needs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{
    base::{Digest, FileError, Size, files, trust},
    image::{
        Cache, Origin,
        template::{self, Level},
    },
    machine::{
        MachineError,
        cache::references::{self, CacheLease, modified},
    },
};

/// The directories of the cache, and the names of their contents in messages.
const KINDS: [(&str, &str); 3] = [
    ("images", "base image"),
    ("k3s", "k3s release"),
    ("prepared", "template"),
];

/// A file of the cache.
#[derive(Debug)]
pub struct Item {
    /// The name of its kind.
    pub kind: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Its space on the disk.
    pub size: Size,
    /// The time of its creation, or of the last command on a VM that needs it.
    pub used: SystemTime,
    /// The places of the VMs that need it.
    pub users: Vec<PathBuf>,
    /// The former places of missing VMs that need it.
    pub missing: Vec<PathBuf>,
    /// Its origin, if known.
    pub origin: Option<Origin>,
}

/// The result of a prune.
#[derive(Debug)]
pub struct Pruned {
    /// The removed files.
    pub removed: Vec<Item>,
    /// The files that are kept for missing VMs.
    pub kept: Vec<Item>,
}

/// The files of the cache, the largest first.
///
/// # Errors
///
/// When a directory of the cache cannot be read.
pub fn list(cache: &Path) -> Result<Vec<Item>, MachineError> {
    let users = references::users(cache)?;
    let mut items = Vec::new();
    for (folder, kind) in KINDS {
        let paths = references::files_below(&cache.join(folder))?.into_iter();
        items.extend(paths.filter_map(|path| item(path, kind, cache, &users)));
    }
    items.sort_by(|one, other| {
        other
            .size
            .cmp(&one.size)
            .then_with(|| one.path.cmp(&other.path))
    });
    Ok(items)
}

/// The item of a file, unless the file only describes or reserves another one.
fn item(path: PathBuf, kind: &'static str, cache: &Path, users: &[CacheLease]) -> Option<Item> {
    let metadata = path.metadata().ok()?;
    let extension = path.extension().unwrap_or_default();
    let is_memory = extension == "memory";
    // An empty memory file is created before QEMU may have to write it.
    if extension == "json" || is_memory && metadata.len() == 0 {
        return None;
    }
    // Memory is needed by the users of its disk.
    let needed = if is_memory {
        path.with_extension("qcow2")
    } else {
        path.clone()
    };
    let (found, missing): (Vec<_>, Vec<_>) = users
        .iter()
        .filter(|lease| lease.user.needs.contains(&needed))
        .partition(|lease| lease.is_found);
    let places = |of: &[&CacheLease]| of.iter().map(|it| it.user.project().place()).collect();
    let used = found.iter().map(|lease| lease.used);
    Some(Item {
        kind: match is_memory {
            true => "template memory",
            false if template::level(&path) == Level::Ready => "ready template",
            false => kind,
        },
        size: files::allocated(&path),
        used: used
            .chain([modified(&metadata)])
            .max()
            .unwrap_or(SystemTime::UNIX_EPOCH),
        users: places(&found),
        missing: places(&missing),
        origin: digest_of(&path).and_then(|digest| Cache::new(cache.to_owned()).origin(digest)),
        path,
    })
}

/// The digest in the name of an image, or of the directory of a release.
fn digest_of(path: &Path) -> Option<Digest> {
    let folder = path.parent().and_then(Path::file_name);
    let names = [path.file_stem(), folder].into_iter().flatten();
    names.filter_map(|it| it.to_str()?.parse().ok()).next()
}

/// Removes the files that no VM needs; with `missing`, also those that only missing VMs need.
///
/// # Errors
///
/// When a command is running on a VM, which may need a file that no VM needs yet; when a file cannot be removed.
pub async fn prune(cache: &Path, missing: bool) -> Result<Pruned, MachineError> {
    trust::require_own_tree(cache)?;
    let mut pruned = Pruned {
        removed: Vec::new(),
        kept: Vec::new(),
    };
    if !cache.exists() {
        return Ok(pruned);
    }
    // While these are held, no command registers a VM or imports.
    let _locks = (
        references::lock(cache, "users").await?,
        references::lock(cache, "import").await?,
    );
    let users = references::users(cache)?;
    for lease in &users {
        if files::open_regular(&lease.lock).is_ok_and(|file| file.try_lock_shared().is_err()) {
            return Err(MachineError::CacheInUse(lease.user.project().place()));
        }
    }
    for item in list(cache)? {
        if !item.users.is_empty() {
            continue;
        }
        if !missing && !item.missing.is_empty() {
            pruned.kept.push(item);
            continue;
        }
        template::remove(&item.path)?;
        if let Some(digest) = digest_of(&item.path) {
            files::remove_if_exists(&Cache::new(cache.to_owned()).origin_path(digest))?;
        }
        // A release has a directory of its own.
        let _ = item.path.parent().map(fs::remove_dir);
        pruned.removed.push(item);
    }
    unregister_missing(&users, missing)?;
    Ok(pruned)
}

/// Removes the registrations of missing VMs whose files are gone; with `all`, of all missing VMs.
fn unregister_missing(users: &[CacheLease], all: bool) -> Result<(), FileError> {
    for gone in users.iter().filter(|lease| !lease.is_found) {
        if all || !gone.user.needs.iter().any(|path| path.exists()) {
            files::remove_if_exists(&gone.note.with_extension("lock"))?;
            files::remove_if_exists(&gone.note)?;
        }
    }
    Ok(())
}
