//! The paths of a project. Only the file of the id is read.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::id;
use crate::base::{Digest, FileError, MachineAlias, Name, files::expand_home};

/// The directory of k3s-vm's own files in a project.
pub const DIRECTORY: &str = ".k3s-vm";
/// The directory of a project's additional VMs, in that one.
const MACHINES: &str = "machines";

/// One VM of a project: the project's directory, and the name of an additional VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    root: PathBuf,
    /// The name of an additional VM.
    alias: Option<MachineAlias>,
}

impl Project {
    /// The project of `start` (an absolute path): the nearest ancestor that has `.k3s-vm/`, else the root of the git
    /// work tree, else `start` itself. A VM in the home directory or above does not belong to a git work tree below it.
    /// A `.k3s-vm/` without a VM, left by a refused setup, does not belong to directories below it.
    pub fn discover(start: &Path, home: Option<&Path>) -> Self {
        let git = start.ancestors().find(|it| it.join(".git").exists());
        let is_of_all = |root: &Path| home.is_some_and(|home| home.starts_with(root));
        let counts = |root: &Path| {
            let is_above_git = git.is_some_and(|git| git != root && git.starts_with(root));
            let project = Self::at(root);
            root == start
                || !(is_of_all(root) && (is_above_git || project.is_bare())
                    || is_above_git && project.is_bare())
        };
        let mut ancestors = start.ancestors();
        let root = ancestors.find(|it| it.join(DIRECTORY).exists() && counts(it));
        Self::at(root.or(git).unwrap_or(start))
    }

    /// Returns `true` when the directory has neither a config nor a VM.
    fn is_bare(&self) -> bool {
        ![self.record(), self.config(), self.machines()]
            .iter()
            .any(|it| it.exists())
    }

    /// The project in this directory.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            alias: None,
        }
    }

    /// The project with another of its VMs selected.
    #[must_use]
    pub fn with(self, alias: Option<MachineAlias>) -> Self {
        Self { alias, ..self }
    }

    /// The name of an additional VM.
    pub const fn alias(&self) -> Option<&MachineAlias> {
        self.alias.as_ref()
    }

    /// One path for project and VM, which identifies the VM in records: the project's directory, or that of the
    /// additional VM in it.
    pub fn place(&self) -> PathBuf {
        match self.alias {
            None => self.root.clone(),
            Some(_) => self.directory(),
        }
    }

    /// The project and VM of such a path.
    pub fn at_place(place: &Path) -> Self {
        Self::of_directory(place)
            .filter(|it| it.alias.is_some())
            .unwrap_or_else(|| Self::at(place))
    }

    /// The project of a `bin/` directory; the path may be relative.
    pub fn of_bin(bin: &Path) -> Option<Self> {
        let directory = bin.parent().filter(|_| bin.ends_with("bin"))?;
        Self::of_directory(directory)
    }

    /// The project of a VM's directory.
    fn of_directory(directory: &Path) -> Option<Self> {
        let root = |own: &Path| {
            own.parent()
                .filter(|_| own.ends_with(DIRECTORY))
                .map(Self::at)
        };
        if let Some(project) = root(directory) {
            return Some(project);
        }
        let machines = directory.parent().filter(|it| it.ends_with(MACHINES))?;
        let name = directory.file_name()?.to_str()?.parse().ok()?;
        Some(root(machines.parent()?)?.with(Some(name)))
    }

    /// The project's additional VMs, by name, unfinished ones included.
    pub fn additional_machines(&self) -> Vec<Self> {
        let entries = fs::read_dir(self.machines())
            .into_iter()
            .flatten()
            .flatten();
        let names = entries.filter_map(|it| it.file_name().to_str()?.parse::<MachineAlias>().ok());
        let mut all: Vec<Self> = names
            .map(|name| self.clone().with(Some(name)))
            .filter(|it| it.record().exists())
            .collect();
        all.sort_by(|one, other| one.alias.cmp(&other.alias));
        all
    }

    /// The name of a new VM.
    pub fn machine_name(&self) -> Name {
        Name::for_project(&self.root, self.alias())
    }

    /// The project directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path in the project's files: relative if it is in the project, which may be moved or copied.
    pub fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    /// A path of a config: absolute, relative to the project, or with a tilde for the home directory.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.root.join(expand_home(path))
    }

    /// `.k3s-vm/`, private to the user.
    pub fn own_directory(&self) -> PathBuf {
        self.root.join(DIRECTORY)
    }

    /// `.k3s-vm/machines/`, with a directory for each additional VM.
    pub fn machines(&self) -> PathBuf {
        self.own_directory().join(MACHINES)
    }

    /// The VM's directory: `.k3s-vm/` itself, or that of an additional VM.
    pub fn directory(&self) -> PathBuf {
        match &self.alias {
            None => self.own_directory(),
            Some(name) => self.machines().join(name.as_str()),
        }
    }

    /// The config, a TOML file that users may edit.
    pub fn config(&self) -> PathBuf {
        self.directory().join("config")
    }

    /// The approvals of what the config reaches on the host.
    pub fn approved(&self) -> PathBuf {
        self.directory().join("approved")
    }

    /// The record of the VM (JSON).
    pub fn record(&self) -> PathBuf {
        self.directory().join("record.json")
    }

    /// The lock of commands that change the VM.
    pub fn lock(&self) -> PathBuf {
        self.directory().join("lock")
    }

    /// The file of the VM's id (see [`Self::runtime`]).
    pub fn id(&self) -> PathBuf {
        id::file(&self.directory())
    }

    /// The VM's disk: a qcow2 overlay.
    pub fn disk(&self) -> PathBuf {
        self.directory().join("disk.qcow2")
    }

    /// The cidata seed: a FAT image.
    pub fn seed(&self) -> PathBuf {
        self.directory().join("seed.img")
    }

    /// The guest config as it was last written: a tar archive.
    pub fn config_archive(&self) -> PathBuf {
        self.directory().join("config.tar")
    }

    /// The DNS servers of the guest, when user networking's own does not answer.
    pub fn resolv_conf(&self) -> PathBuf {
        self.directory().join("resolv.conf")
    }

    /// The private key that the guest accepts, in OpenSSH's format.
    pub fn client_key(&self) -> PathBuf {
        self.directory().join("id_ed25519")
    }

    /// The guest's private host key, created here so that it can be pinned.
    pub fn host_key(&self) -> PathBuf {
        self.directory().join("host_ed25519")
    }

    /// The public half of the host key, for OpenSSH's client.
    pub fn known_hosts(&self) -> PathBuf {
        self.directory().join("known_hosts")
    }

    /// The output of the guest's serial console since its last start.
    pub fn console_log(&self) -> PathBuf {
        self.directory().join("console.log")
    }

    /// The output of QEMU itself since its last start.
    pub fn qemu_log(&self) -> PathBuf {
        self.directory().join("qemu.log")
    }

    /// The guest's stage reports since its last start.
    pub fn stages_log(&self) -> PathBuf {
        self.directory().join("stages.log")
    }

    /// QEMU's pidfile, locked by QEMU while it runs.
    pub fn pidfile(&self) -> PathBuf {
        self.directory().join("qemu.pid")
    }

    /// The writable copy of the UEFI variables, when the VM boots by UEFI.
    pub fn uefi_variables(&self) -> PathBuf {
        self.directory().join("uefi-vars.fd")
    }

    /// The memory of a suspended VM.
    pub fn memory(&self) -> PathBuf {
        self.directory().join("memory")
    }

    /// The surroundings that the saved memory needs.
    pub fn suspended(&self) -> PathBuf {
        self.directory().join("suspended.json")
    }

    /// The lock of the idle watch.
    pub fn idle_lock(&self) -> PathBuf {
        self.directory().join("idle.lock")
    }

    /// The log of the idle watch.
    pub fn idle_log(&self) -> PathBuf {
        self.directory().join("idle.log")
    }

    /// Touched by every command that uses the VM, if an idle watch runs.
    pub fn used(&self) -> PathBuf {
        self.directory().join("used")
    }

    /// The lock that loads of images share.
    pub fn loading(&self) -> PathBuf {
        self.directory().join("loading.lock")
    }

    /// The VM's snapshots, each a directory.
    pub fn snapshots(&self) -> PathBuf {
        self.directory().join("snapshots")
    }

    /// The files of a snapshot that is being restored.
    pub fn restoring(&self) -> PathBuf {
        self.directory().join("restoring")
    }

    /// The guest's identity, while it is being sent.
    pub fn identity(&self) -> PathBuf {
        self.directory().join("identity")
    }

    /// Links named `kubectl` and `k9s` that lead to this program.
    pub fn bin(&self) -> PathBuf {
        self.directory().join("bin")
    }

    /// The kubeconfig's default path: `web/.kube/config` in a project with a `web/` directory, `.kube/config` in
    /// others; for an additional VM a file with its name beside it.
    pub fn default_kubeconfig(&self) -> PathBuf {
        let web = self.root.join("web");
        let parent = if web.is_dir() { web } else { self.root.clone() };
        let name = self.alias.as_ref().map_or("config", MachineAlias::as_str);
        parent.join(".kube").join(name)
    }

    /// The directory of the VM's sockets and FIFOs. A socket's path has at most 107 bytes (`sockaddr_un`), so it is not
    /// in the project, which may be deep. Its name is the VM's id: a project that is moved keeps it, even while the VM
    /// runs, and a copy has another. See [`Self::ensure_id`].
    pub fn runtime(&self) -> PathBuf {
        let directory = self.directory();
        let id = id::read(&directory).unwrap_or_else(|| {
            // A VM that was never started has no files there.
            Digest::of(directory.as_os_str().as_encoded_bytes()).short(16)
        });
        runtime_base().join(id)
    }

    /// Gives the VM an id, if it has none of its own; called before anything is created in [`Self::runtime`].
    ///
    /// # Errors
    ///
    /// When the VM's directory cannot be written.
    pub fn ensure_id(&self) -> Result<(), FileError> {
        id::ensure(&self.directory())
    }

    /// The exec port; QEMU's FIFOs are beside that path.
    pub fn exec_socket(&self) -> PathBuf {
        self.runtime().join("exec")
    }

    /// The QMP socket.
    pub fn monitor_socket(&self) -> PathBuf {
        self.runtime().join("qmp.sock")
    }
}

/// The longest directory with sockets, with some reserve.
const LONGEST_RUNTIME: usize = 70;

/// `$K3S_VM_RUNTIME_DIR`, or a directory of the user in `/tmp`. `$XDG_RUNTIME_DIR` is removed at the user's last logout
/// (pam_systemd(8)) while QEMU still runs, and cron and sudo do not set it.
fn runtime_base() -> PathBuf {
    let fits = |it: &PathBuf| it.is_absolute() && it.as_os_str().len() <= LONGEST_RUNTIME;
    let chosen = env::var_os("K3S_VM_RUNTIME_DIR").map(PathBuf::from);
    chosen
        .filter(fits)
        .unwrap_or_else(|| PathBuf::from(format!("/tmp/k3s-vm-{}", nix::unistd::getuid())))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_nearest_vm_then_the_git_root_then_the_directory() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let deep = temporary.path().join("repo/web/src");
        fs::create_dir_all(&deep).expect("created");
        assert_eq!(Project::discover(&deep, None).root(), deep);
        fs::create_dir(temporary.path().join("repo/.git")).expect("created");
        assert_eq!(
            Project::discover(&deep, None).root(),
            temporary.path().join("repo")
        );
        fs::create_dir(temporary.path().join("repo/web/.k3s-vm")).expect("created");
        assert_eq!(
            Project::discover(&deep, None).root(),
            temporary.path().join("repo/web")
        );
    }

    #[test]
    fn a_vm_in_home_is_not_used_by_projects_below() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let home = temporary.path().join("ada");
        let [plain, repository] = ["plain", "repository"].map(|name| home.join(name));
        let inside = repository.join("src");
        for directory in [
            &plain,
            &inside,
            &repository.join(".git"),
            &home.join(DIRECTORY),
        ] {
            fs::create_dir_all(directory).expect("created");
        }
        let root = |start: &Path| Project::discover(start, Some(&home)).root().to_owned();
        assert_eq!(root(&home), home);
        assert_eq!(root(&inside), repository);
        assert_eq!(root(&plain), plain);
        // A VM there is that of a directory without one of its own, and not of a repository.
        fs::write(Project::at(&home).record(), "").expect("written");
        assert_eq!(root(&home), home);
        assert_eq!(root(&inside), repository);
        assert_eq!(root(&plain), home);
        // Elsewhere the outer project has its VM for a repository in it, too, once there is one.
        let outer = |start: &Path| Project::discover(start, None).root().to_owned();
        assert_eq!(outer(&inside), home);
        fs::remove_file(Project::at(&home).record()).expect("removed");
        assert_eq!(outer(&inside), repository);
        assert_eq!(outer(&plain), home);
    }

    #[test]
    fn the_kubeconfig_follows_a_web_directory() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let project = Project::discover(temporary.path(), None);
        assert_eq!(
            project.default_kubeconfig(),
            temporary.path().join(".kube/config")
        );
        fs::create_dir(temporary.path().join("web")).expect("created");
        assert_eq!(
            project.default_kubeconfig(),
            temporary.path().join("web/.kube/config")
        );
    }

    #[test]
    fn an_additional_vm_has_its_own_directory() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let own = Project::at(temporary.path());
        let staging = own.clone().with("staging".parse().ok());
        assert_eq!(
            staging.record(),
            temporary
                .path()
                .join(".k3s-vm/machines/staging/record.json")
        );
        assert_eq!(
            staging.default_kubeconfig(),
            temporary.path().join(".kube/staging")
        );
        for project in [&own, &staging] {
            assert_eq!(Project::at_place(&project.place()), *project);
            assert_eq!(Project::of_bin(&project.bin()).as_ref(), Some(project));
        }
        for other in [
            "bin",
            "/p/bin",
            "/p/.k3s-vm/machines/bin",
            "/p/.k3s-vm/machines/A/bin",
        ] {
            assert_eq!(Project::of_bin(Path::new(other)), None, "{other}");
        }
        assert_eq!(own.additional_machines(), []);
        fs::create_dir_all(staging.directory()).expect("created");
        fs::write(staging.record(), "").expect("written");
        assert_eq!(own.additional_machines(), [staging]);
    }

    #[test]
    fn socket_paths_stay_short_in_deep_projects() {
        let project = Project::at(Path::new(&format!("/{}", "deep/".repeat(60))));
        assert!(project.monitor_socket().as_os_str().len() <= 107);
    }

    #[test]
    fn a_moved_project_keeps_its_socket_and_a_copy_has_another() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let [here, there] = ["here", "there"].map(|name| temporary.path().join(name));
        let made = Project::at(&here);
        fs::create_dir_all(made.directory()).expect("created");
        made.ensure_id().expect("written");
        let socket = made.monitor_socket();
        fs::rename(&here, &there).expect("moved");
        let moved = Project::at(&there);
        assert_eq!(moved.monitor_socket(), socket);
        fs::create_dir_all(made.directory()).expect("created");
        fs::copy(moved.id(), made.id()).expect("copied");
        assert_ne!(made.monitor_socket(), socket);
        made.ensure_id().expect("written");
        assert_ne!(made.monitor_socket(), socket);
        let inside = there.join("web/.kube/config");
        assert_eq!(moved.relative(&inside), Path::new("web/.kube/config"));
        assert_eq!(made.relative(&inside), inside);
    }
}
