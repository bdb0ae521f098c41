//! The registered users of the shared cache: VMs, and the files of the cache that each needs.
//!
//! A VM registers by two files. `users/<id>.json` in the cache lists the files that it needs. `users/<id>.lock` is a second
//! name of its project's lock file: it shows that the project exists, also after a move, and whether a command runs there.
//!
//! A VM that is not found may be deleted, moved to another file system, or on one that is not mounted. Its files are kept
//! until `cache prune --missing`.

use std::{
    fs::{self, Metadata},
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use crate::{
    base::{
        FileError, MachineAlias, Name,
        files::{self, PRIVATE},
        trust,
    },
    image::{Cache, ImageError, ItemLock},
    machine::{Machine, MachineError, cache::needs::needs},
    project::{Project, Record},
};

const USERS: &str = "users";

const SCHEMA: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CacheUser {
    schema: u32,
    project: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alias: Option<MachineAlias>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Name>,
    pub(super) needs: Vec<PathBuf>,
}

impl CacheUser {
    pub(super) fn project(&self) -> Project {
        Project::at(&self.project).with(self.alias.clone())
    }
}

/// A registered VM.
pub(super) struct CacheLease {
    pub(super) user: CacheUser,
    /// The registration.
    pub(super) note: PathBuf,
    /// Its project exists, as far as this host can see.
    pub(super) is_found: bool,
    /// The lock file of its project.
    pub(super) lock: PathBuf,
    /// The time of the last command on it.
    pub(super) used: SystemTime,
}

/// Registers the files that the VM needs, once no command prunes the cache. A user who cannot write to the cache cannot
/// prune it either, and registers nothing.
///
/// # Errors
///
/// When the registration cannot be written to a writable cache.
pub(crate) async fn register(
    machine: &Machine,
    record: Option<&Record>,
) -> Result<(), MachineError> {
    let _lock = match lock(&machine.cache, "users").await {
        Err(ImageError::File(error)) if error.is_forbidden() => {
            tracing::debug!(%error, "the VM is not registered in the cache");
            return Ok(());
        }
        locked => locked?,
    };
    match try_register(machine, record) {
        Err(error) if error.is_forbidden() => {
            tracing::debug!(%error, "the VM is not registered in the cache");
            Ok(())
        }
        result => Ok(result?),
    }
}

pub(super) async fn lock(cache: &Path, key: &str) -> Result<ItemLock, ImageError> {
    let cache = Cache::new(cache.to_owned());
    cache.lock(key, "changes what is in the cache").await
}

fn try_register(machine: &Machine, record: Option<&Record>) -> Result<(), FileError> {
    let project = &machine.project;
    project.ensure_id()?;
    let (note, lock) = files_of(&machine.cache, project);
    let user = CacheUser {
        schema: SCHEMA,
        project: project.root().to_owned(),
        alias: project.alias().cloned(),
        name: record.map(|it| it.name.clone()),
        needs: record.map(|it| needs(project, it)).unwrap_or_default(),
    };
    let json = serde_json::to_string_pretty(&user)
        .map_err(|error| FileError::on("write", &note)(error.into()))?;
    if files::read_if_exists(&note)?.as_ref() != Some(&json) {
        files::create_private_dir(&machine.cache.join(USERS))?;
        files::write(&note, json.as_bytes(), PRIVATE)?;
    }
    let own = project.lock();
    if inode(&lock) == inode(&own) {
        return Ok(());
    }
    forget_former_ids(&machine.cache, &own, &lock)?;
    files::remove_if_exists(&lock)?;
    match fs::hard_link(own, &lock) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => Ok(()),
        linked => linked.map_err(FileError::on("link", &lock)),
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    path.metadata().map(|it| (it.dev(), it.ino())).ok()
}

/// Removes the registrations of this VM under other ids.
fn forget_former_ids(cache: &Path, own: &Path, current: &Path) -> Result<(), FileError> {
    for lock in files_below(&cache.join(USERS))? {
        let is_lock = lock.extension().is_some_and(|it| it == "lock");
        if is_lock && lock != current && inode(&lock) == inode(own) {
            files::remove_if_exists(&lock.with_extension("json"))?;
            files::remove_if_exists(&lock)?;
        }
    }
    Ok(())
}

/// Returns `true` when another VM needs the file, or may need it.
pub(crate) fn others_need(machine: &Machine, path: &PathBuf) -> bool {
    users(&machine.cache).map_or(true, |users| {
        users
            .iter()
            .any(|it| it.user.project() != machine.project && it.user.needs.contains(path))
    })
}

/// Returns `true` when the VM is registered.
pub(crate) fn is_registered(machine: &Machine) -> bool {
    files_of(&machine.cache, &machine.project).0.exists()
}

/// Removes the registration of a deleted VM.
pub(crate) fn unregister(machine: &Machine) {
    let (note, lock) = files_of(&machine.cache, &machine.project);
    for path in [lock, note] {
        if let Err(error) = files::remove_if_exists(&path) {
            tracing::debug!(%error, "the VM is still registered in the cache");
        }
    }
}

fn files_of(cache: &Path, project: &Project) -> (PathBuf, PathBuf) {
    let runtime = project.runtime();
    let note = cache
        .join(USERS)
        .join(runtime.file_name().unwrap_or_default())
        .with_extension("json");
    let lock = note.with_extension("lock");
    (note, lock)
}

/// The registered VMs.
pub(super) fn users(cache: &Path) -> Result<Vec<CacheLease>, MachineError> {
    trust::require_own_tree(cache)?;
    let mut users = Vec::new();
    for note in files_below(&cache.join(USERS))? {
        if note.extension().is_none_or(|it| it != "json") {
            continue;
        }
        let text = files::read_if_exists(&note)?.unwrap_or_default();
        let Some(user) = serde_json::from_str::<CacheUser>(&text)
            .ok()
            .filter(|user| user.schema == SCHEMA)
        else {
            return Err(MachineError::CacheNote(note));
        };
        let second = note.with_extension("lock");
        let is_linked = second.metadata().is_ok_and(|it| it.nlink() > 1);
        let is_found = is_linked || is_at_its_place(&user, &note);
        // A project on another file system has no second name here.
        let lock = match is_linked {
            true => second,
            false => user.project().lock(),
        };
        let used = lock
            .metadata()
            .map_or(SystemTime::UNIX_EPOCH, |it| modified(&it));
        users.push(CacheLease {
            user,
            note,
            is_found,
            lock,
            used,
        });
    }
    Ok(users)
}

/// Returns `true` when the registered VM is at its former place.
fn is_at_its_place(user: &CacheUser, note: &Path) -> bool {
    let project = user.project();
    let runtime = project.runtime();
    project.lock().exists() && note.file_stem() == runtime.file_name()
}

/// A registered project that exists.
#[derive(Debug)]
pub(crate) struct RegisteredProject {
    /// The place where it registered.
    pub(crate) project: Project,
    /// Its VM's name, as of its last start.
    pub(crate) name: Option<Name>,
    /// It was moved since.
    pub(crate) is_elsewhere: bool,
}

/// The registered projects that exist. An unreadable registration is left out.
pub(crate) fn known(cache: &Path) -> Vec<RegisteredProject> {
    if let Err(error) = trust::require_own_tree(cache) {
        tracing::warn!(%error, "the projects of the cache are left out");
        return Vec::new();
    }
    let notes = files_below(&cache.join(USERS)).unwrap_or_default();
    let notes = notes
        .iter()
        .filter(|it| it.extension().is_some_and(|it| it == "json"));
    notes
        .filter_map(|note| {
            let text = files::read_if_exists(note).ok()??;
            let user: CacheUser = serde_json::from_str(&text).ok()?;
            let second = note.with_extension("lock").metadata().ok();
            let is_here = is_at_its_place(&user, note);
            let is_elsewhere = !is_here && second.is_some_and(|it| it.nlink() > 1);
            (is_here || is_elsewhere).then_some(RegisteredProject {
                project: user.project(),
                name: user.name,
                is_elsewhere,
            })
        })
        .collect()
}

/// The registered projects at their places.
pub fn projects(cache: &Path) -> Vec<PathBuf> {
    let known = known(cache).into_iter().filter(|it| !it.is_elsewhere);
    let mut projects: Vec<PathBuf> = known.map(|it| it.project.root().to_owned()).collect();
    projects.sort();
    projects.dedup();
    projects
}

pub(super) fn files_below(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(FileError::on("list", folder))?,
    };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|it| it.is_dir()) {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

pub(super) fn modified(metadata: &Metadata) -> SystemTime {
    metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}
