//! Errors of a VM.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub use crate::base::causes::with_causes;
use crate::{
    base::{FileError, Forward, HostPort, Mount, Name, Size, SnapshotName},
    guest::{CopyError, Sign, SshError, keys::KeyError},
    image::ImageError,
    k3s::{ApiError, KubeconfigError, MergeError},
    project::{ConfigError, LockError, Project, Record, RecordError, Suspended},
    qemu::{MonitorError, ProcessError, VersionError, kvm::Kvm},
};

/// Why a verb did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// No usable QEMU was found.
    #[error(transparent)]
    Qemu(#[from] VersionError),
    /// `--accel kvm` on a host whose KVM does not work.
    #[error("cannot use KVM: {}", describe_kvm(.0))]
    Kvm(Kvm),
    /// `--firmware uefi` on a host without UEFI firmware.
    #[error("no UEFI firmware for q35 was found on this host")]
    NoUefi,
    /// The API's port is taken.
    #[error("port {port} on 127.0.0.1 is in use by another program")]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// Ports below 1024 belong to root.
    #[error("cannot open port {port} on 127.0.0.1: {reason}")]
    PortRefused {
        /// The port.
        port: u16,
        /// The kernel's words.
        reason: String,
    },
    /// The port leads elsewhere already.
    #[error("{} port {} already forwards to the guest's port {}", .0.host.address().ip(), .0.host.port, .0.guest)]
    Forwarded(Forward),
    /// No such port is forwarded.
    #[error("port {}/{} is not one that `port add` has forwarded", .0.port, .0.protocol.name())]
    NotForwarded(HostPort),
    /// A Service that cannot be forwarded.
    #[error("{name} in the namespace {namespace} cannot be forwarded: {reason}")]
    Service {
        /// As `svc/NAME`.
        name: String,
        /// Its namespace.
        namespace: String,
        /// Why not.
        reason: String,
        /// It has no port outside of the cluster.
        cluster_only: bool,
    },
    /// The host has less memory than the guest needs.
    #[error("cannot give the VM {wanted} of memory: {limit}")]
    Memory {
        /// The guest's memory.
        wanted: Size,
        /// The largest amount, and what sets that limit.
        limit: String,
    },
    /// The project's file system is nearly full.
    #[error("not enough space in {}: a new VM needs {needed}, {free} free", path.display())]
    Space {
        /// The project's directory.
        path: PathBuf,
        /// The free space.
        free: Size,
        /// The space needed.
        needed: Size,
    },
    /// A choice that cannot be.
    #[error("{0}")]
    Choice(String),
    /// A choice that contradicts the VM that is there.
    #[error("cannot change {what} from {made} to {asked}: it is fixed when the VM is created")]
    Contradiction {
        /// The choice.
        what: &'static str,
        /// How the VM is.
        made: String,
        /// How it is asked to be.
        asked: String,
    },
    /// The files of the cache that are in use are known only when that command has ended.
    #[error("a command is running in {} and may need files of the cache", .0.display())]
    CacheInUse(PathBuf),
    /// The note of the cache files that a VM needs is damaged or belongs to another user.
    #[error("the VM's note in the cache {} does not say what a VM needs", .0.display())]
    CacheNote(PathBuf),
    /// A verb that needs a VM, in a project that has none.
    #[error("{}", absent(.0))]
    Absent(PathBuf),
    /// A verb that needs a running VM.
    #[error("the VM {0} is stopped")]
    Stopped(Name),
    /// A verb that needs a running VM, which is suspended.
    #[error("the VM {0} is suspended")]
    Suspended(Name),
    /// The command needs a guest that answers, and this one is paused.
    #[error("the VM is paused")]
    Paused,
    /// A VM that has nothing yet that would be worth its memory.
    #[error("cannot suspend {0}: its setup is not complete")]
    Unfinished(Name),
    /// The guest's memory could not be saved.
    #[error("cannot suspend the VM: {0}")]
    Suspend(String),
    /// The project's file system has no space for the guest's memory.
    #[error("not enough space in {}: {} free, the guest's memory needs {}", path.display(), free.approximate(), needed.approximate())]
    MemorySpace {
        /// The project's directory.
        path: PathBuf,
        /// The free space.
        free: Size,
        /// The space needed.
        needed: Size,
    },
    /// A VM that has nothing yet that would be worth a snapshot.
    #[error("cannot create a snapshot of {0}: its setup is not complete")]
    NothingToKeep(Name),
    /// The guest's memory could not be saved to a snapshot.
    #[error("cannot create a snapshot: {0}")]
    Snapshot(String),
    /// The project's file system has no space for a snapshot, or for restoring one.
    #[error("{} has {} free, and {} are needed", path.display(), free.approximate(), needed.approximate())]
    SnapshotSpace {
        /// The directory of the snapshots.
        path: PathBuf,
        /// The free space.
        free: Size,
        /// The space needed.
        needed: Size,
    },
    /// A snapshot of that name is there.
    #[error("the snapshot {0} already exists")]
    SnapshotExists(SnapshotName),
    /// No snapshot of that name is there.
    #[error("the snapshot {0} does not exist")]
    NoSnapshot(SnapshotName),
    /// A snapshot is damaged.
    #[error("the snapshot {name} is damaged: {reason}")]
    DamagedSnapshot {
        /// Which one.
        name: SnapshotName,
        /// The reason.
        reason: String,
    },
    /// A snapshot of a VM that this one is not.
    #[error("the snapshot {0} belongs to another VM")]
    ForeignSnapshot(SnapshotName),
    /// A guest that was suspended under KVM cannot resume under another accelerator.
    #[error("the VM was suspended under KVM, and now {}", describe_kvm(.0))]
    SuspendedByKvm(Kvm),
    /// k3s reads its datastore when it starts.
    #[error("cannot restore the datastore: the VM is running")]
    Running,
    /// QEMU runs for a VM of which nothing else is known.
    #[error("QEMU runs here (process {pid}), and its VM's record {} is gone", path.display())]
    Unrecorded {
        /// The record.
        path: PathBuf,
        /// QEMU's process id.
        pid: i32,
    },
    /// A file of the VM is gone.
    #[error("the VM's {what} {} is missing", path.display())]
    Gone {
        /// The kind of file.
        what: &'static str,
        /// Where it was.
        path: PathBuf,
    },
    /// A file of the VM is there and cannot be what it should.
    #[error("the VM's {what} {} is damaged: {reason}", path.display())]
    Damaged {
        /// The kind of file.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// The reason.
        reason: &'static str,
    },
    /// Another file is in the kubeconfig's place.
    #[error("{} already exists and does not belong to the VM {name}", path.display())]
    ForeignKubeconfig {
        /// The file.
        path: PathBuf,
        /// The VM.
        name: Name,
    },
    /// The kubeconfig of a VM of the same name is in the kubeconfig's place.
    #[error("{} is the kubeconfig of the VM in {}", path.display(), project.display())]
    TakenKubeconfig {
        /// The file.
        path: PathBuf,
        /// The project that it is of: the original or the copy of this one.
        project: PathBuf,
    },
    /// A unit of that name is there that `autostart` has not written, or has for another VM.
    #[error("{} already exists and does not belong to this VM", .0.display())]
    ForeignUnit(PathBuf),
    /// `~/.kube/config` is the user's own.
    #[error("{} is your own kubeconfig, which k3s-vm does not touch", .0.display())]
    OwnKubeconfig(PathBuf),
    /// The guest did not become ready.
    #[error("{reason} (last stage: {stage})")]
    Boot {
        /// The kind of failure.
        fault: BootFault,
        /// The reason.
        reason: String,
        /// The last stage that the guest reported.
        stage: String,
        /// The end of what explains it: console, QEMU's own log, or k3s's.
        log: String,
        /// Where that log lies, if that is on the host.
        log_path: Option<PathBuf>,
    },
    /// The guest could change what this program believes or runs.
    #[error("cannot mount {} read-write: the guest could change {}", .mount.host, exposes.display())]
    ExposedMount {
        /// The mount.
        mount: Mount,
        /// The path in it that must not be shared.
        exposes: PathBuf,
    },
    /// The VM runs without a directory of the host that it was to mount.
    #[error("the guest has not mounted {}: {}", .mount.guest, not_mounted(.kernel.as_deref()))]
    NotMounted {
        /// The directory.
        mount: Mount,
        /// The guest's kernel, if that is the reason.
        kernel: Option<String>,
    },
    /// k3s does not read its datastore.
    #[error("k3s's datastore in the guest is damaged: {said}")]
    Datastore {
        /// The guest has a copy of it from the last clean shutdown.
        has_copy: bool,
        /// sqlite's words, and whether there is a copy.
        said: String,
    },
    /// QEMU ended after k3s had started.
    #[error("QEMU ended while {during} was waited for")]
    Died {
        /// The step that was waited for.
        during: String,
    },
    /// The condition is not met yet; never the last error.
    #[error("{0}")]
    NotYet(&'static str),
    /// Time is over.
    #[error("not done within {}: {waiting_for}", humantime::format_duration(*.within))]
    Deadline {
        /// The step that was waited for.
        waiting_for: String,
        /// The time there was.
        within: Duration,
    },
    /// Images of the node.
    #[error(transparent)]
    Images(#[from] crate::machine::error::ImagesError),
    /// An upgrade.
    #[error(transparent)]
    Upgrade(#[from] crate::machine::error::UpgradeError),
    /// An archive of the cache.
    #[error(transparent)]
    CacheArchive(#[from] crate::machine::error::CacheArchiveError),
    /// Base images and their cache.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The monitor.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// SSH.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// A copy.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The API.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The kubeconfig of the guest or of the project.
    #[error("{} is not usable", path.display())]
    Kubeconfig {
        /// Where it lies.
        path: PathBuf,
        /// The reason.
        source: KubeconfigError,
    },
    /// The user's own kubeconfig cannot be edited.
    #[error("{} was not changed", path.display())]
    Merge {
        /// Where it lies.
        path: PathBuf,
        /// Why.
        source: MergeError,
    },
    /// The entries in the user's own kubeconfig are of another VM of the same name.
    #[error("{} has the entries of the VM in {}, which has the same name", path.display(), project.display())]
    MergedByAnother {
        /// The user's kubeconfig.
        path: PathBuf,
        /// The other VM's project.
        project: PathBuf,
    },
    /// A link in the place of the user's kubeconfig.
    #[error("{} is a dangling symbolic link", .0.display())]
    LeadsNowhere(PathBuf),
    /// The lock file of a kubeconfig, which every writer creates, kubectl included.
    #[error("{} is there, still after {}: another program is at work on the kubeconfig", path.display(), humantime::format_duration(*waited))]
    KubeconfigLocked {
        /// The lock.
        path: PathBuf,
        /// How long this command waited.
        waited: Duration,
    },
    /// A key file.
    #[error("the key {} is not usable", path.display())]
    Key {
        /// Where it lies.
        path: PathBuf,
        /// The reason.
        source: KeyError,
    },
    /// The seed could not be built.
    #[error("cannot build the seed")]
    Seed(#[source] std::io::Error),
    /// The config.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The kind of a failed boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootFault {
    /// The guest's console shows that it does not become a node.
    Console(Sign),
    /// k3s ended again and again.
    CrashLoop,
    /// Anything else.
    Other,
}

impl MachineError {
    /// Sets the kind of a failed boot.
    pub(crate) fn with_fault(mut self, kind: BootFault) -> Self {
        if let Self::Boot { fault, .. } = &mut self {
            *fault = kind;
        }
        self
    }

    /// Of a VM that is not there.
    pub fn absent(project: &Project) -> Self {
        Self::Absent(project.place())
    }

    /// Of a VM that is there and does not run.
    pub fn not_running(project: &Project, record: &Record) -> Self {
        let name = record.name.clone();
        if Suspended::holds(project, record) {
            Self::Suspended(name)
        } else {
            Self::Stopped(name)
        }
    }
}

fn not_mounted(kernel: Option<&str>) -> String {
    match kernel {
        Some(kernel) => format!("its kernel {kernel} cannot mount directories of the host (9p)"),
        None => "its systemd could not mount it".to_owned(),
    }
}

fn absent(place: &Path) -> String {
    let project = Project::at_place(place);
    let root = project.root().display();
    match project.alias() {
        None => format!("there is no VM in {root}"),
        Some(name) => format!("there is no VM {name} in {root}"),
    }
}

/// Fits behind "KVM" or "and".
pub fn describe_kvm(kvm: &Kvm) -> String {
    match kvm {
        Kvm::Works => "works".to_owned(),
        Kvm::Missing => "/dev/kvm is missing".to_owned(),
        Kvm::NoPermission => "/dev/kvm may not be opened by you".to_owned(),
        Kvm::Broken(reason) => format!("/dev/kvm is there and does not run guests: {reason}"),
    }
}
