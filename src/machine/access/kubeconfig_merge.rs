//! Merges the VM into the user's own kubeconfig: only when asked, under kubectl's lock, with a backup.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use crate::{
    base::{
        FileError, Name,
        files::{self, PRIVATE},
    },
    k3s::{Kubeconfig, kubeconfig_edit},
    machine::{MachineError, access::kubeconfig},
    project::{Project, Record},
};

/// How long another program may lock the file; kubectl takes milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(50);

/// The result of a change to the user's kubeconfig.
#[derive(Debug)]
pub struct Outcome {
    /// The user's kubeconfig.
    pub path: PathBuf,
    /// The backup of the file; `None` when nothing was changed, or there was no file.
    pub backup: Option<PathBuf>,
    /// The file was changed.
    pub changed: bool,
    /// The name of the cluster, the user and the context; `None` if no entry was the VM's.
    pub names: Vec<String>,
    /// The current context after the change.
    pub current: Option<String>,
    /// The current context was the VM's, and is now unset.
    pub unset: bool,
}

/// The user's own kubeconfig by kubectl's rule: of the files in `KUBECONFIG` the only one, else the first that exists,
/// else the last; without `KUBECONFIG`, `~/.kube/config`. A VM's kubeconfig, as set by `k3s-vm env`, does not count.
///
/// # Errors
///
/// When there is no home directory.
pub fn place() -> Result<PathBuf, MachineError> {
    let named = env::var_os("KUBECONFIG").unwrap_or_default();
    let named: Vec<PathBuf> = env::split_paths(&named)
        .filter(|path| !path.as_os_str().is_empty() && !is_a_machines(path))
        .collect();
    let there = named.iter().find(|path| path.exists());
    let path = match there.or(named.last()) {
        Some(path) => path.clone(),
        None => env::home_dir()
            .filter(|home| home.is_absolute())
            .ok_or_else(|| {
                MachineError::Choice("there is no home directory with a .kube/config".to_owned())
            })?
            .join(".kube/config"),
    };
    Ok(std::path::absolute(&path).map_err(FileError::on("find", &path))?)
}

/// Returns `true` when the path is the kubeconfig of a VM.
fn is_a_machines(path: &Path) -> bool {
    let Ok(Some(text)) = files::read_if_exists(path) else {
        return false;
    };
    let kubeconfig = Kubeconfig::parse(&text).ok();
    let project = kubeconfig.as_ref().and_then(Kubeconfig::project);
    project
        .and_then(|place| Record::load(&Project::at_place(place)).ok()?)
        .is_some_and(|record| kubeconfig::same_place(&record.kubeconfig, path))
}

/// Adds the VM's cluster, user and context to the user's kubeconfig. The current context is kept.
///
/// # Errors
///
/// When the VM has no kubeconfig yet; when the user's is damaged, or has entries of that name that are not this
/// VM's; when it cannot be locked or written.
pub async fn merge(project: &Project, record: &Record) -> Result<Outcome, MachineError> {
    let ours = kubeconfig::of(record)?;
    let name = &record.name;
    edit(|path, text| {
        let mut entries = kubeconfig_edit::machines(text).into_iter();
        let entries = entries.find(|it| it.name == name.as_str());
        let other = entries.and_then(|it| it.project).filter(|other| {
            *other != project.place() && Project::at_place(other).record().exists()
        });
        if let Some(project) = other {
            return Err(MachineError::MergedByAnother {
                path: path.to_owned(),
                project,
            });
        }
        let text = kubeconfig_edit::with(&ours, name, text).map_err(refused(path))?;
        Ok((text, vec![name.to_string()], false))
    })
    .await
}

/// Removes the entries of the VM `name`, and those of a former VM of the project.
///
/// # Errors
///
/// Those of [`merge`].
pub async fn unmerge(project: &Project, name: &Name) -> Result<Outcome, MachineError> {
    let path = place()?;
    if !path.exists() && !path.is_symlink() {
        return Ok(Outcome {
            path,
            backup: None,
            changed: false,
            names: Vec::new(),
            current: None,
            unset: false,
        });
    }
    edit(|path, text| {
        let (mut text, mut unset) = (text.to_owned(), false);
        let names = names_of(project, name, &text);
        for name in &names {
            let (without, was_current) =
                kubeconfig_edit::without(name, &text).map_err(refused(path))?;
            (text, unset) = (without, unset || was_current);
        }
        Ok((text, names, unset))
    })
    .await
}

/// The user's kubeconfig, if a VM of the project is in it.
pub fn where_merged(project: &Project, name: &Name) -> Option<PathBuf> {
    let path = place().ok()?;
    let text = files::read_if_exists(&path).ok()??;
    (!names_of(project, name, &text).is_empty()).then_some(path)
}

fn names_of(project: &Project, name: &Name, text: &str) -> Vec<String> {
    // A project that was moved has nothing at its former place.
    let of_it = |it: &kubeconfig_edit::Entries| match &it.project {
        Some(place) if *place == project.place() => true,
        Some(place) => it.name == name.as_str() && !Project::at_place(place).record().exists(),
        None => it.name == name.as_str(),
    };
    let names = kubeconfig_edit::machines(text).into_iter().filter(of_it);
    names.map(|it| it.name).collect()
}

fn refused(path: &Path) -> impl FnOnce(kubeconfig_edit::MergeError) -> MachineError {
    let path = path.to_owned();
    move |source| MachineError::Merge { path, source }
}

/// The new text, the names that it is about, and `true` when the current context was unset.
type Edited = (String, Vec<String>, bool);

/// The file that the path leads to, which need not exist.
fn target_of(path: &Path) -> Result<PathBuf, MachineError> {
    match fs::canonicalize(path) {
        Ok(target) => Ok(target),
        Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => {
            Ok(path.to_owned())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(MachineError::DanglingLink(path.to_owned()))
        }
        Err(error) => Err(FileError::on("find", path)(error).into()),
    }
}

async fn edit(
    change: impl FnOnce(&Path, &str) -> Result<Edited, MachineError>,
) -> Result<Outcome, MachineError> {
    let path = place()?;
    if let Some(directory) = path.parent() {
        files::create_private_dir(directory)?;
    }
    // kubectl's lock is beside the given name, not beside the target of a link.
    let _lock = lock(&path).await?;
    let target = target_of(&path)?;
    let former = match files::read(&target) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.source.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let before = String::from_utf8(former.clone().unwrap_or_default()).map_err(|_| {
        refused(&path)(kubeconfig_edit::MergeError::Malformed(
            "it is not UTF-8".to_owned(),
        ))
    })?;
    let (text, names, unset) = change(&path, &before)?;
    let changed = text != before;
    let backup = match former {
        Some(former) if changed => {
            let copy = back_up(&path, &target, &former)?;
            files::replace_contents(&target, text.as_bytes())?;
            Some(copy)
        }
        None if changed => {
            files::write_among_others(&target, text.as_bytes(), PRIVATE)?;
            None
        }
        _ => None,
    };
    Ok(Outcome {
        current: kubeconfig_edit::current(&text),
        path,
        backup,
        changed,
        names,
        unset,
    })
}

/// Writes a backup beside the file, with its owner if possible, and a name with the time.
fn back_up(path: &Path, target: &Path, bytes: &[u8]) -> Result<PathBuf, FileError> {
    let now = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    let digits: String = now.chars().filter(char::is_ascii_alphanumeric).collect();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".k3s-vm-backup-{digits}"));
    let copy = path.with_file_name(name);
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(PRIVATE);
    file.open(&copy)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            let _ = fs::metadata(target).and_then(|it| files::copy_owner(&file, &it));
            file.sync_all()
        })
        .map_err(FileError::on("write", &copy))?;
    Ok(copy)
}

/// The content of this program's lock file; kubectl's is empty.
const OURS: &[u8] = b"k3s-vm\n";

/// The lock file, removed when dropped. It is locked as well: an unlocked one of this program was left by a killed
/// process.
struct FileLock {
    path: PathBuf,
    _file: File,
}

impl FileLock {
    fn create(path: &Path) -> std::io::Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(PRIVATE);
        let mut file = options.open(path)?;
        let lock = Self {
            path: path.to_owned(),
            _file: file.try_clone()?,
        };
        file.lock()?;
        file.write_all(OURS)?;
        Ok(lock)
    }

    /// Removes a lock of this program whose owner was killed.
    fn remove_abandoned(path: &Path) -> Option<()> {
        // NFS locks only files that are open for writing.
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .ok()?;
        file.try_lock().ok()?;
        let is_ours = files::read(path).is_ok_and(|text| text == OURS);
        // Another process may have removed and created it meanwhile.
        let same = file.metadata().ok()?.ino() == fs::metadata(path).ok()?.ino();
        (is_ours && same).then(|| fs::remove_file(path).ok())?
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// kubectl's own lock: the program that creates `<file>.lock` has it.
async fn lock(path: &Path) -> Result<FileLock, MachineError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = PathBuf::from(name);
    let began = Instant::now();
    loop {
        match FileLock::create(&lock) {
            Ok(lock) => return Ok(lock),
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(FileError::on("create", &lock)(error).into());
            }
            Err(_) if FileLock::remove_abandoned(&lock).is_some() => {}
            Err(_) if began.elapsed() >= LOCK_TIMEOUT => {
                return Err(MachineError::KubeconfigLocked {
                    path: lock,
                    waited: LOCK_TIMEOUT,
                });
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
