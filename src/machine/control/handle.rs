//! The observed state of a VM, and the handle of a command that changes it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use crate::{
    base::{
        Name,
        files::{self, PRIVATE},
        trust,
    },
    machine::MachineError,
    project::{Lock, LockError, Project, Record},
    qemu::Process,
};

/// The state of a VM, observed now.
#[derive(Debug)]
pub enum State {
    /// The project has no VM.
    Absent,
    /// QEMU does not run.
    Stopped(Record),
    /// QEMU runs.
    Running(Record, Process),
}

/// How long a command waits for another one on the same VM.
const LOCK_TIMEOUT: Duration = Duration::from_secs(600);

impl State {
    /// Observes the project's record and the lock of QEMU's pidfile.
    ///
    /// # Errors
    ///
    /// When the record is damaged, or gone while QEMU runs, or a file cannot be read.
    pub fn observe(project: &Project) -> Result<Self, MachineError> {
        let process = Process::holder(&project.pidfile())?;
        Ok(match (Record::load(project)?, process) {
            // Checked again: a reset may have just ended it and removed the record.
            (None, Some(process)) if process.is_alive() => {
                return Err(MachineError::Unrecorded {
                    path: project.record(),
                    pid: process.pid(),
                });
            }
            (None, _) => Self::Absent,
            (Some(record), None) => Self::Stopped(record),
            (Some(record), Some(process)) => Self::Running(record, process),
        })
    }

    /// The record of the VM, if it exists.
    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Absent => None,
            Self::Stopped(record) | Self::Running(record, _) => Some(record),
        }
    }

    /// The record and the process of a running VM.
    ///
    /// # Errors
    ///
    /// When it is absent or stopped.
    pub fn running(self, project: &Project) -> Result<(Record, Process), MachineError> {
        match self {
            Self::Absent => Err(MachineError::absent(project)),
            Self::Stopped(record) => Err(MachineError::not_running(project, &record)),
            Self::Running(record, process) => Ok((record, process)),
        }
    }
}

/// A project's VM, locked by one command.
#[derive(Debug)]
pub struct Machine {
    /// The project.
    pub project: Project,
    /// The name in `K3S_VM_NAME`, if set.
    pub given_name: Option<Name>,
    /// The root of the shared cache.
    pub cache: PathBuf,
    /// The topmost directory that was created for this command.
    made: Option<PathBuf>,
    launched: AtomicBool,
    /// The guest is paused by this command.
    paused: AtomicBool,
    _lock: Lock,
}

impl Machine {
    /// Locks the VM for the command `verb`. Creates `.k3s-vm/` if it is missing.
    ///
    /// # Errors
    ///
    /// When the project cannot be written, or another command keeps the lock.
    pub async fn open(
        project: Project,
        given_name: Option<Name>,
        cache: PathBuf,
        verb: &str,
    ) -> Result<Self, MachineError> {
        let directory = project.directory();
        for path in [&directory, &cache] {
            if path.to_str().is_none_or(|path| path.contains('\n')) {
                return Err(MachineError::Choice(format!(
                    "cannot use the path {path:?}: QEMU needs UTF-8 without line breaks"
                )));
            }
        }
        trust::require_own_tree(&cache)?;
        let own = project.own_directory();
        let made = [&own, &project.machines(), &directory]
            .into_iter()
            .find(|it| directory.starts_with(it) && !it.exists())
            .cloned();
        let lock = lock(&project, verb).await?;
        let ignore = own.join(".gitignore");
        if !ignore.exists() {
            files::write(&ignore, b"*\n", PRIVATE)?;
        }
        Ok(Self {
            project,
            given_name,
            cache,
            made,
            launched: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            _lock: lock,
        })
    }

    /// The directory that was created for this command, if it contains only the lock.
    pub(crate) fn bare_directory(&self) -> Option<PathBuf> {
        let made = self.made.clone()?;
        let own = [".gitignore", "lock", "id"];
        let is_own = |path: &Path| {
            path.file_name()
                .is_some_and(|it| own.iter().any(|own| it == *own))
        };
        let directory = self.project.directory();
        let is_bare = directory
            .ancestors()
            .take_while(|it| it.starts_with(&made))
            .filter_map(|it| fs::read_dir(it).ok())
            .flat_map(Iterator::flatten)
            .all(|it| is_own(&it.path()) || directory.starts_with(it.path()));
        is_bare.then_some(made)
    }

    /// The state of the VM, observed now.
    ///
    /// # Errors
    ///
    /// Those of [`State::observe`], and when the given name is not the VM's.
    pub fn state(&self) -> Result<State, MachineError> {
        let state = State::observe(&self.project)?;
        if let (Some(record), Some(asked)) = (state.record(), &self.given_name)
            && record.name != *asked
        {
            return Err(MachineError::Contradiction {
                what: "the name",
                made: record.name.to_string(),
                asked: asked.to_string(),
            });
        }
        Ok(state)
    }

    /// The name that a new VM gets.
    pub fn new_name(&self) -> Name {
        self.given_name
            .clone()
            .unwrap_or_else(|| self.project.machine_name())
    }

    /// Makes QEMU end if the command fails.
    pub fn adopt_qemu(&self) {
        self.launched.store(true, Ordering::Relaxed);
    }

    /// Makes the paused guest continue if the command fails.
    pub fn mark_paused(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    /// Keeps QEMU also if the command fails from now on.
    pub fn keep_qemu(&self) {
        self.launched.store(false, Ordering::Relaxed);
        self.paused.store(false, Ordering::Relaxed);
    }

    /// Ends a QEMU that this failed command started, and removes its files. An older QEMU is kept, and its guest
    /// continues if this command paused it.
    pub async fn cleanup_on_failure(&self) {
        if self.paused.swap(false, Ordering::Relaxed)
            && let Err(error) = crate::machine::control::vcpu::release(&self.project).await
        {
            tracing::warn!(%error, "the VM stays paused; to resume it: k3s-vm start");
        }
        if !self.launched.swap(false, Ordering::Relaxed) {
            return;
        }
        let ended = match Process::holder(&self.project.pidfile()) {
            Ok(Some(process)) => {
                crate::machine::control::terminate::end(&self.project, &process).await
            }
            Ok(None) => crate::machine::control::terminate::clear(&self.project),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = ended {
            tracing::warn!(%error, "QEMU may be left running");
        }
    }
}

/// Creates the VM's directory and takes its lock.
async fn lock(project: &Project, verb: &str) -> Result<Lock, MachineError> {
    loop {
        trust::own_private_dir(&project.own_directory())?;
        if project.alias().is_some() {
            trust::own_private_dir(&project.machines())?;
            trust::own_private_dir(&project.directory())?;
        }
        match Lock::acquire(&project.lock(), verb, LOCK_TIMEOUT).await {
            // A refused command has removed the directory that it had created.
            Err(LockError::File(error)) if error.is_missing() => {}
            locked => return Ok(locked?),
        }
    }
}
