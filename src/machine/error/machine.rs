//! Errors of a VM.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    base::{FileError, Forward, HostPort, Mount, Name, Size, SnapshotName},
    guest::{CopyError, Sign, SshError, keys::KeyError},
    image::ImageError,
    k3s::{ApiError, KubeconfigError, MergeError},
    project::{ConfigError, LockError, Project, Record, RecordError, Suspended},
    qemu::{MonitorError, ProcessError, VersionError, kvm::Kvm},
};

/// The reason why a command failed.
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
    /// The API's port is in use.
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
        /// The kernel's message.
        reason: String,
    },
    /// The port is forwarded elsewhere.
    #[error("{} port {} already forwards to the guest's port {}", .0.host.address().ip(), .0.host.port, .0.guest)]
    Forwarded(Forward),
    /// The port is not forwarded.
    #[error("port {}/{} is not one that `port add` has forwarded", .0.port, .0.protocol.name())]
    NotForwarded(HostPort),
    /// A Service that cannot be forwarded.
    #[error("{name} in the namespace {namespace} cannot be forwarded: {reason}")]
    Service {
        /// As `svc/NAME`.
        name: String,
        /// Its namespace.
        namespace: String,
        /// The reason.
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
    /// An invalid choice.
    #[error("{0}")]
    Choice(String),
    /// A choice that contradicts the existing VM.
    #[error("cannot change {what} from {made} to {asked}: it is fixed when the VM is created")]
    Contradiction {
        /// The choice.
        what: &'static str,
        /// The value of the VM.
        made: String,
        /// The requested value.
        asked: String,
    },
    /// A command is running that may need files of the cache.
    #[error("a command is running in {} and may need files of the cache", .0.display())]
    CacheInUse(PathBuf),
    /// The registration of a VM in the cache is damaged, or belongs to another user.
    #[error("the VM's registration in the cache {} is damaged", .0.display())]
    CacheNote(PathBuf),
    /// The command needs a VM, and the project has none.
    #[error("{}", absent(.0))]
    Absent(PathBuf),
    /// The command needs a running VM.
    #[error("the VM {0} is stopped")]
    Stopped(Name),
    /// The command needs a running VM, and this one is suspended.
    #[error("the VM {0} is suspended")]
    Suspended(Name),
    /// The command needs a guest that answers, and this one is paused.
    #[error("the VM is paused")]
    Paused,
    /// A VM without a complete setup cannot be suspended.
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
    /// A VM without a complete setup cannot be saved to a snapshot.
    #[error("cannot create a snapshot of {0}: its setup is not complete")]
    NothingToSnapshot(Name),
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
    /// The snapshot exists already.
    #[error("the snapshot {0} already exists")]
    SnapshotExists(SnapshotName),
    /// The snapshot does not exist.
    #[error("the snapshot {0} does not exist")]
    NoSnapshot(SnapshotName),
    /// A snapshot is damaged.
    #[error("the snapshot {name} is damaged: {reason}")]
    DamagedSnapshot {
        /// Its name.
        name: SnapshotName,
        /// The reason.
        reason: String,
    },
    /// The snapshot belongs to another VM.
    #[error("the snapshot {0} belongs to another VM")]
    ForeignSnapshot(SnapshotName),
    /// A guest that was suspended under KVM cannot resume under another accelerator.
    #[error("the VM was suspended under KVM, and now {}", describe_kvm(.0))]
    SuspendedByKvm(Kvm),
    /// The datastore can be restored only while the VM is stopped: k3s reads it when it starts.
    #[error("cannot restore the datastore: the VM is running")]
    Running,
    /// QEMU runs, and the VM's record is missing.
    #[error("QEMU runs here (process {pid}), and its VM's record {} is missing", path.display())]
    Unrecorded {
        /// The record.
        path: PathBuf,
        /// QEMU's process id.
        pid: i32,
    },
    /// A file of the VM is missing.
    #[error("the VM's {what} {} is missing", path.display())]
    Gone {
        /// The kind of file.
        what: &'static str,
        /// Its path.
        path: PathBuf,
    },
    /// A file of the VM is damaged.
    #[error("the VM's {what} {} is damaged: {reason}", path.display())]
    Damaged {
        /// The kind of file.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// The reason.
        reason: &'static str,
    },
    /// Another file has the kubeconfig's path.
    #[error("{} already exists and does not belong to the VM {name}", path.display())]
    ForeignKubeconfig {
        /// The file.
        path: PathBuf,
        /// The VM.
        name: Name,
    },
    /// The kubeconfig of a VM of the same name has the kubeconfig's path.
    #[error("{} is the kubeconfig of the VM in {}", path.display(), project.display())]
    KubeconfigOfAnother {
        /// The file.
        path: PathBuf,
        /// The project of that VM: the original or a copy of this one.
        project: PathBuf,
    },
    /// Another unit has the name of the autostart unit.
    #[error("{} already exists and does not belong to this VM", .0.display())]
    ForeignUnit(PathBuf),
    /// The path is the user's own kubeconfig.
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
        /// The end of the log with the reason: console, QEMU's own log, or k3s's.
        log: String,
        /// The path of that log, if it is on the host.
        log_path: Option<PathBuf>,
    },
    /// The guest could change files that this program trusts or runs.
    #[error("cannot mount {} read-write: the guest could change {}", .mount.host, exposes.display())]
    ExposedMount {
        /// The mount.
        mount: Mount,
        /// The path in it that must not be shared.
        exposes: PathBuf,
    },
    /// The guest lacks a mount.
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
        /// sqlite's message, and whether there is a copy.
        said: String,
    },
    /// QEMU ended after k3s had started.
    #[error("QEMU ended while {during} was waited for")]
    QemuEnded {
        /// The step that was waited for.
        during: String,
    },
    /// The condition is not met yet; never the last error.
    #[error("{0}")]
    NotYet(&'static str),
    /// The time limit is exceeded.
    #[error("not done within {}: {waiting_for}", humantime::format_duration(*.within))]
    Deadline {
        /// The step that was waited for.
        waiting_for: String,
        /// The limit.
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
        /// Its path.
        path: PathBuf,
        /// The reason.
        source: KubeconfigError,
    },
    /// The user's own kubeconfig cannot be edited.
    #[error("{} was not changed", path.display())]
    Merge {
        /// Its path.
        path: PathBuf,
        /// The reason.
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
    DanglingLink(PathBuf),
    /// The lock file of a kubeconfig, which every writer creates, kubectl included.
    #[error("{} still exists after {}: another program is using the kubeconfig", path.display(), humantime::format_duration(*waited))]
    KubeconfigLocked {
        /// The lock.
        path: PathBuf,
        /// How long this command waited.
        waited: Duration,
    },
    /// A key file.
    #[error("the key {} is not usable", path.display())]
    Key {
        /// Its path.
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

    /// The error about a missing VM.
    pub fn absent(project: &Project) -> Self {
        Self::Absent(project.place())
    }

    /// The error about a VM that does not run.
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

/// The verdict on KVM, to follow "KVM" or "and".
pub fn describe_kvm(kvm: &Kvm) -> String {
    match kvm {
        Kvm::Works => "works".to_owned(),
        Kvm::Missing => "/dev/kvm is missing".to_owned(),
        Kvm::NoPermission => "/dev/kvm cannot be opened: permission denied".to_owned(),
        Kvm::Broken(reason) => format!("/dev/kvm is there and does not run guests: {reason}"),
    }
}
