//! The contents of the shared cache, and which VMs of this user need them.
//!
//! A VM signs for what it needs: `users/<id>.json` in the cache says what, and `users/<id>.lock` is a second name of
//! its project's lock file, by which it is known to be still there, wherever the project was moved to, and to be at work.
//!
//! A VM that is not found may have been deleted, or moved to another file system, or lie on one that is not mounted. What it
//! needs is kept until its user says that it was deleted.

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
        Digest, FileError, MachineAlias, Name, Size,
        files::{self, PRIVATE},
        trust,
    },
    image::{Cache, ImageError, ItemLock, Origin, prepared},
    machine::{Machine, MachineError},
    project::{Project, Record, Suspended, snapshot},
};

const USERS: &str = "users";

const SCHEMA: u32 = 1;

/// The directories of files that can be fetched again, and what their contents are called in messages.
const KINDS: [(&str, &str); 3] = [
    ("images", "base image"),
    ("k3s", "k3s release"),
    ("prepared", "prepared disk"),
];

/// A file of the cache.
#[derive(Debug)]
pub struct Item {
    /// What it is.
    pub kind: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// What it takes on the disk.
    pub size: Size,
    /// When it was made, or a command last worked on a VM that needs it.
    pub used: SystemTime,
    /// The places of the VMs that need it.
    pub users: Vec<PathBuf>,
    /// The former places of VMs that need it, and are not found.
    pub missing: Vec<PathBuf>,
    /// Where it came from, where that is known.
    pub origin: Option<Origin>,
}

/// What a pruning removed, and what it kept only for VMs that are not found.
#[derive(Debug)]
pub struct Pruned {
    /// The removed files.
    pub removed: Vec<Item>,
    /// The kept ones.
    pub kept: Vec<Item>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CacheUser {
    schema: u32,
    project: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alias: Option<MachineAlias>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Name>,
    needs: Vec<PathBuf>,
}

impl CacheUser {
    fn project(&self) -> Project {
        Project::at(&self.project).with(self.alias.clone())
    }
}

/// A registered VM.
struct CacheLease {
    user: CacheUser,
    note: PathBuf,
    /// It is still there, as far as this host can see.
    is_found: bool,
    /// Where its project's lock file is found.
    lock: PathBuf,
    /// When a command last worked on it.
    used: SystemTime,
}

/// Registers what the VM needs. A user who cannot write to the cache cannot prune it either, so nothing is registered then.
/// Returns once no command prunes the cache, which looks for VMs whose lock is held before it does.
///
/// # Errors
///
/// When the cache can be written, and this is not.
pub(crate) async fn register(
    machine: &Machine,
    record: Option<&Record>,
) -> Result<(), MachineError> {
    let _lock = match lock(&machine.cache, "users").await {
        Err(ImageError::File(error)) if error.is_forbidden() => {
            tracing::debug!(%error, "the cache does not know of this VM");
            return Ok(());
        }
        locked => locked?,
    };
    match try_register(machine, record) {
        Err(error) if error.is_forbidden() => {
            tracing::debug!(%error, "the cache does not know of this VM");
            Ok(())
        }
        result => Ok(result?),
    }
}

async fn lock(cache: &Path, key: &str) -> Result<ItemLock, ImageError> {
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

/// Whether another VM needs that file, too; in doubt it does.
pub(crate) fn others_need(machine: &Machine, path: &PathBuf) -> bool {
    users(&machine.cache).map_or(true, |users| {
        users
            .iter()
            .any(|it| it.user.project() != machine.project && it.user.needs.contains(path))
    })
}

/// Whether the cache knows of the VM.
pub(crate) fn is_registered(machine: &Machine) -> bool {
    files_of(&machine.cache, &machine.project).0.exists()
}

/// The VM is gone.
pub(crate) fn sign_off(machine: &Machine) {
    let (note, lock) = files_of(&machine.cache, &machine.project);
    for path in [lock, note] {
        if let Err(error) = files::remove_if_exists(&path) {
            tracing::debug!(%error, "the cache still knows of this VM");
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

fn needs(project: &Project, record: &Record) -> Vec<PathBuf> {
    let mut needs = vec![record.image.path.clone(), record.release.binary.clone()];
    if prepared::state(&record.image.path).is_some() {
        needs.extend(prepared::image_below(
            &record.image.path,
            record.image.digest,
        ));
    }
    let suspended = Suspended::exists(project);
    let mut goes_on = suspended;
    // In doubt a snapshot needs nothing: what does not tell what it is cannot be restored.
    for snapshot in snapshot::list(project).unwrap_or_default() {
        let Ok(snapshot) = snapshot.snapshot else {
            continue;
        };
        goes_on |= snapshot.memory.is_some();
        needs.extend([snapshot.image.path, snapshot.release.binary]);
        // It resumes with all disks that it had.
        needs.extend(snapshot.memory.and(snapshot.release.airgap));
    }
    // A suspended VM resumes with all disks that it had.
    if !record.provisioned || suspended {
        needs.extend(record.release.airgap.clone());
    }
    // They are those of the first boot, whatever was installed since.
    if goes_on && let Some(first) = &record.first_release {
        needs.push(first.binary.clone());
        needs.extend(first.airgap.clone());
    }
    needs.sort();
    needs.dedup();
    needs
}

/// What there is, the largest first.
///
/// # Errors
///
/// When a directory of the cache cannot be read.
pub fn list(cache: &Path) -> Result<Vec<Item>, MachineError> {
    let users = users(cache)?;
    let mut items = Vec::new();
    for (folder, kind) in KINDS {
        for path in files_below(&cache.join(folder))? {
            let Ok(metadata) = path.metadata() else {
                continue;
            };
            if path.extension().is_some_and(|it| it == "json") {
                continue;
            }
            let is_memory = path.extension().is_some_and(|it| it == "memory");
            // It is there for a QEMU that may have to write it.
            if is_memory && metadata.len() == 0 {
                continue;
            }
            // It is as long of use as the disk that it belongs to.
            let needed = if is_memory {
                path.with_extension("qcow2")
            } else {
                path.clone()
            };
            let (of_it, missing): (Vec<_>, Vec<_>) = users
                .iter()
                .filter(|it| it.user.needs.contains(&needed))
                .partition(|it| it.is_found);
            let used = of_it.iter().map(|it| it.used);
            let places =
                |of: &[&CacheLease]| of.iter().map(|it| it.user.project().place()).collect();
            items.push(Item {
                kind: match is_memory {
                    true => "prepared memory",
                    false if prepared::is_template(&path) => "template",
                    false => kind,
                },
                size: files::allocated(&path),
                used: used
                    .chain([made(&metadata)])
                    .max()
                    .unwrap_or(SystemTime::UNIX_EPOCH),
                users: places(&of_it),
                missing: places(&missing),
                origin: digest_of(&path).and_then(|it| Cache::new(cache.to_owned()).origin(it)),
                path,
            });
        }
    }
    items.sort_by(|one, other| {
        other
            .size
            .cmp(&one.size)
            .then_with(|| one.path.cmp(&other.path))
    });
    Ok(items)
}

/// The digest by which an image, or the directory of a release, is called.
fn digest_of(path: &Path) -> Option<Digest> {
    let folder = path.parent().and_then(Path::file_name);
    let names = [path.file_stem(), folder].into_iter().flatten();
    names.filter_map(|it| it.to_str()?.parse().ok()).next()
}

/// Removes what no VM needs; with `missing`, also what only VMs need that are not found.
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
    // Until they are released, no command registers a VM or imports.
    let _locks = (lock(cache, "users").await?, lock(cache, "import").await?);
    let users = users(cache)?;
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
        prepared::remove(&item.path)?;
        if let Some(digest) = digest_of(&item.path) {
            files::remove_if_exists(&Cache::new(cache.to_owned()).origin_path(digest))?;
        }
        // A release has a directory of its own.
        let _ = item.path.parent().map(fs::remove_dir);
        pruned.removed.push(item);
    }
    for gone in users.iter().filter(|it| !it.is_found) {
        if missing || !gone.user.needs.iter().any(|it| it.exists()) {
            files::remove_if_exists(&gone.note.with_extension("lock"))?;
            files::remove_if_exists(&gone.note)?;
        }
    }
    Ok(pruned)
}

/// The registered VMs.
fn users(cache: &Path) -> Result<Vec<CacheLease>, MachineError> {
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
            .map_or(SystemTime::UNIX_EPOCH, |it| made(&it));
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

/// A project that has signed and is still there.
#[derive(Debug)]
pub(crate) struct RegisteredProject {
    /// Where it was when it signed.
    pub(crate) project: Project,
    /// Its VM's name, as of its last start.
    pub(crate) name: Option<Name>,
    /// It was moved since.
    pub(crate) is_elsewhere: bool,
}

/// The projects that have signed and are still there. Nothing is changed, and a note that cannot be read is left out.
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

/// The projects that have signed and are where they were.
pub fn projects(cache: &Path) -> Vec<PathBuf> {
    let known = known(cache).into_iter().filter(|it| !it.is_elsewhere);
    let mut projects: Vec<PathBuf> = known.map(|it| it.project.root().to_owned()).collect();
    projects.sort();
    projects.dedup();
    projects
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
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

fn made(metadata: &Metadata) -> SystemTime {
    metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::project::{
        Snapshot,
        snapshot::Content,
        suspended::{MachineAbi, Memory},
    };

    fn record(release: &str, airgap: &str) -> Record {
        let record = json!({
            "schema": 3, "name": "k3s", "uuid": "u", "disk": "1GiB",
            "image": { "source": "s", "path": "/image", "digest": "0".repeat(64) },
            "release": { "version": "v", "binary": release, "airgap": airgap },
            "firmware": "bios", "api_port": 1, "kubeconfig": "k", "provisioned": true,
        });
        Record::parse(&record.to_string()).expect("sound")
    }

    #[test]
    fn what_snapshots_stand_on_is_needed_as_well() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let project = Project::at(directory.path());
        let now = record("/now", "/now-airgap");
        assert_eq!(needs(&project, &now), ["/image", "/now"].map(PathBuf::from));
        let memory = Memory {
            origin: MachineAbi {
                qemu: "7.2.0".to_owned(),
                arguments: Vec::new(),
                processor: None,
            },
            length: 1,
            checksum: 1,
        };
        let disk = Content {
            length: 1,
            checksum: 1,
        };
        for (name, record, memory) in [
            ("stopped", record("/one", "/one-airgap"), None),
            ("running", record("/two", "/two-airgap"), Some(memory)),
        ] {
            let folder = snapshot::folder(&project, &name.parse().expect("a name"));
            fs::create_dir_all(&folder).expect("made");
            let made = Snapshot::new(&record, 1, disk, memory);
            made.save(&folder).expect("written");
        }
        let expected = ["/image", "/now", "/one", "/two", "/two-airgap"];
        assert_eq!(needs(&project, &now), expected.map(PathBuf::from));
        let upgraded = Record {
            first_release: Some(record("/first", "/first-airgap").release),
            ..now
        };
        let memory_of_first_boot = ["/first", "/first-airgap"].map(PathBuf::from);
        let needs = needs(&project, &upgraded);
        assert!(memory_of_first_boot.iter().all(|it| needs.contains(it)));
    }
}
