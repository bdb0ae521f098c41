//! The contents of the shared cache, and which VMs of this user need them.
//!
//! A VM signs for what it needs: `users/<id>.json` in the cache says what, and `users/<id>.lock` is a second name of
//! its project's lock file, by which it is known to be still there, wherever the project was moved to, and to be at work.

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
    image::{Cache, Origin, prepared},
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
    /// Where it came from, where that is known.
    pub origin: Option<Origin>,
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

/// A VM that is still there.
struct CacheLease {
    user: CacheUser,
    /// Where its project's lock file is found.
    lock: PathBuf,
    /// When a command last worked on it.
    used: SystemTime,
}

/// Signs for what the VM needs. Who cannot write to the cache cannot prune it either, and need not sign.
///
/// # Errors
///
/// When the cache can be written, and this is not.
pub(crate) fn register(machine: &Machine, record: Option<&Record>) -> Result<(), FileError> {
    match try_to_sign(machine, record) {
        Err(error) if error.is_forbidden() => {
            tracing::debug!(%error, "the cache does not know of this VM");
            Ok(())
        }
        result => result,
    }
}

fn try_to_sign(machine: &Machine, record: Option<&Record>) -> Result<(), FileError> {
    let project = &machine.project;
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
    let inode = |path: &Path| path.metadata().map(|it| (it.dev(), it.ino())).ok();
    if inode(&lock) == inode(&own) {
        return Ok(());
    }
    files::remove_if_exists(&lock)?;
    match fs::hard_link(own, &lock) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => Ok(()),
        linked => linked.map_err(FileError::on("link", &lock)),
    }
}

/// Whether another VM needs that file, too; in doubt it does.
pub(crate) fn others_need(machine: &Machine, path: &PathBuf) -> bool {
    users(&machine.cache).map_or(true, |users| {
        users
            .iter()
            .any(|it| it.user.project() != machine.project && it.user.needs.contains(path))
    })
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
    if prepared::look(&record.image.path).is_some() {
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
            let of_it: Vec<_> = users
                .iter()
                .filter(|it| it.user.needs.contains(&needed))
                .collect();
            let used = of_it.iter().map(|it| it.used);
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
                users: of_it.iter().map(|it| it.user.project().place()).collect(),
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

/// Removes what no VM needs; what that was.
///
/// # Errors
///
/// When a command is running on a VM, which may need a file that no VM needs yet; when a file cannot be removed.
pub fn prune(cache: &Path) -> Result<Vec<Item>, MachineError> {
    for signed in users(cache)? {
        if files::open_regular(&signed.lock).is_ok_and(|file| file.try_lock_shared().is_err()) {
            return Err(MachineError::CacheInUse(signed.user.project().place()));
        }
    }
    let mut gone = Vec::new();
    for item in list(cache)? {
        if !item.users.is_empty() {
            continue;
        }
        prepared::remove(&item.path)?;
        if let Some(digest) = digest_of(&item.path) {
            files::remove_if_exists(&Cache::new(cache.to_owned()).origin_path(digest))?;
        }
        // A release has a directory of its own.
        let _ = item.path.parent().map(fs::remove_dir);
        gone.push(item);
    }
    Ok(gone)
}

/// The VMs that are still there. Those that are not are forgotten.
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
        let own = user.project().lock();
        // A project on another file system has no second name here.
        let (lock, there) = match second.metadata() {
            Ok(metadata) => (second.clone(), metadata.nlink() > 1),
            Err(_) => (own.clone(), own.exists()),
        };
        if there {
            let used = lock
                .metadata()
                .map_or(SystemTime::UNIX_EPOCH, |it| made(&it));
            users.push(CacheLease { user, lock, used });
        } else {
            files::remove_if_exists(&second)?;
            files::remove_if_exists(&note)?;
        }
    }
    Ok(users)
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
            let own = user.project().lock().metadata().ok();
            let second = note.with_extension("lock").metadata().ok();
            let inode = |it: &Metadata| (it.dev(), it.ino());
            let is_here = match (&own, &second) {
                (Some(own), Some(second)) => inode(own) == inode(second),
                // A project on another file system has no second name here.
                (own, None) => own.is_some(),
                (None, Some(_)) => false,
            };
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
