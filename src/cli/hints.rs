//! The way out of each error, and the command to copy for each distribution.

use std::{fmt::Display, fs, io::ErrorKind, path::Path};

use crate::{
    base::{
        FileError, Label,
        files::{self, TRUST},
    },
    guest::{CopyError, Sign, SshError},
    image::ImageError,
    k3s::{MergeError, images::ArchiveError, release::CHECKSUMS, step::StepError},
    machine::{
        MachineError,
        error::{CacheArchiveError, ImagesError, UpgradeError, machine::BootFault},
        guest_config::mounts::SHARE,
        lifecycle::boot_progress::NO_STAGE,
        memory::save::FOLDERS,
    },
    project::{ConfigError, LockError, Project, RecordError},
    qemu::{ProcessError, VersionError, kvm::Kvm},
};

/// The distributions that get a command of their own.
pub(crate) const DISTRIBUTIONS: [&str; 4] = ["NixOS", "Debian/Ubuntu", "Fedora", "Arch"];

/// A command for each of [`DISTRIBUTIONS`], in their order.
pub(crate) type Fix = [&'static str; 4];

pub(crate) const INSTALL_QEMU: Fix = [
    "nix-shell -p qemu_kvm",
    "sudo apt-get update && sudo apt-get install --yes --no-install-recommends qemu-system-x86",
    "sudo dnf install --assumeyes qemu-system-x86-core",
    "sudo pacman -S --noconfirm qemu-base",
];

pub(crate) const INSTALL_UEFI: Fix = [
    "nix-shell -p qemu_kvm",
    "sudo apt-get install --yes ovmf",
    "sudo dnf install --assumeyes edk2-ovmf",
    "sudo pacman -S --noconfirm edk2-ovmf",
];

pub(crate) const INSTALL_KUBECTL: Fix = [
    "nix-shell -p kubectl",
    "sudo apt-get install --yes kubernetes-client",
    "sudo dnf install --assumeyes kubernetes-client",
    "sudo pacman -S --noconfirm kubectl",
];

pub(crate) const INSTALL_K9S: Fix = [
    "nix-shell -p k9s",
    "go install github.com/derailed/k9s@latest",
    "go install github.com/derailed/k9s@latest",
    "sudo pacman -S --noconfirm k9s",
];

pub(crate) const LOAD_KVM: Fix = [
    "boot.kernelModules = [ \"kvm-intel\" \"kvm-amd\" ];   # in configuration.nix; and switch virtualisation on in the firmware",
    "sudo modprobe -a kvm_intel kvm_amd   # and switch virtualisation on in the firmware",
    "sudo modprobe -a kvm_intel kvm_amd   # and switch virtualisation on in the firmware",
    "sudo modprobe -a kvm_intel kvm_amd   # and switch virtualisation on in the firmware",
];

pub(crate) const JOIN_KVM: Fix = [
    "users.users.<you>.extraGroups = [ \"kvm\" ];   # in configuration.nix, then log in again",
    "sudo usermod -aG kvm \"$USER\"   # then log in again",
    "sudo usermod -aG kvm \"$USER\"   # then log in again",
    "sudo usermod -aG kvm \"$USER\"   # then log in again",
];

/// What a CI runner without a login shell does instead of joining a group.
const UDEV: &str = "on a CI runner: echo 'KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0666\", OPTIONS+=\"static_node=kvm\"' | \
    sudo tee /etc/udev/rules.d/99-kvm4all.rules && sudo udevadm control --reload-rules && sudo udevadm trigger --name-match=kvm";

/// The place of this host's distribution in [`DISTRIBUTIONS`], from os-release(5).
pub(crate) fn this_distribution() -> Option<usize> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or_default()
            .trim_matches('"')
            .to_owned()
    };
    let ids = format!("{} {}", value("ID"), value("ID_LIKE"));
    let known = [
        &["nixos"][..],
        &["debian", "ubuntu"],
        &["fedora", "rhel"],
        &["arch"],
    ];
    ids.split_whitespace()
        .find_map(|id| known.iter().position(|names| names.contains(&id)))
}

/// This host's command, or every distribution's where this one is not known.
pub(crate) fn for_this_host(fix: &Fix) -> Vec<String> {
    match this_distribution() {
        Some(index) => vec![fix[index].to_owned()],
        None => DISTRIBUTIONS
            .iter()
            .zip(fix)
            .map(|(name, command)| format!("{name}: {command}"))
            .collect(),
    }
}

/// What to do about an error.
pub(crate) fn of(error: &MachineError) -> Vec<String> {
    let one = |hint: &str| vec![hint.to_owned()];
    if let Some(error) = file_of(error).filter(|error| error.is_out_of_space()) {
        return vec![make_room(&error.path)];
    }
    match error {
        MachineError::Qemu(VersionError::Missing) => {
            [for_this_host(&INSTALL_QEMU), one("or let setup do it: k3s-vm setup --install-missing")].concat()
        }
        MachineError::Qemu(_) => for_this_host(&INSTALL_QEMU),
        MachineError::Kvm(kvm) => [of_kvm(kvm), one("or go on without it: --accel tcg")].concat(),
        MachineError::NoUefi => [for_this_host(&INSTALL_UEFI), one("or boot by BIOS: --firmware bios")].concat(),
        MachineError::Memory { .. } => one("ask for less: k3s-vm setup --memory 2GiB"),
        MachineError::Space { path, .. } => vec![format!("make room on the file system of {}, or use another project directory", path.display())],
        MachineError::Contradiction { what, asked, .. } => of_contradiction(what, asked),
        MachineError::CacheInUse(_) => one("wait until it has ended, and run the same command again"),
        MachineError::Absent(_) => one("make one: k3s-vm setup"),
        MachineError::Stopped(_) => one("start it: k3s-vm start"),
        MachineError::Suspended(_) => one("have it go on: k3s-vm start"),
        MachineError::Paused => one("have it go on: k3s-vm resume"),
        MachineError::Unfinished(_) => one("finish it: k3s-vm setup; or power it off: k3s-vm stop --power-off"),
        MachineError::Suspend(reason) => of_memory(reason, "it goes on; power it off instead: k3s-vm stop --power-off"),
        MachineError::MemorySpace { path, .. } => vec![
            make_room(path),
            "or power it off, which takes no room; until then it goes on: k3s-vm stop --power-off".to_owned(),
        ],
        MachineError::SuspendedByKvm(kvm) => [
            of_kvm(kvm),
            one("or give its memory up and boot it: k3s-vm stop --power-off && k3s-vm start"),
        ].concat(),
        MachineError::Running => one("stop it first: k3s-vm stop && k3s-vm start --restore-datastore"),
        MachineError::Monitor(_) => one("end it by force: k3s-vm stop --force && k3s-vm start"),
        MachineError::Unrecorded { .. } => one("end it, and begin anew: k3s-vm reset && k3s-vm setup"),
        MachineError::CacheNote(path) => vec![format!("remove it, and start its machine once more, which writes it anew: rm {}", path.display())],
        MachineError::Gone { .. } | MachineError::Damaged { .. } => one("put it back as it was, or make the machine anew: k3s-vm reset && k3s-vm setup"),
        MachineError::ForeignKubeconfig { path, .. } => vec![
            format!("move it away: {}", move_away(path)),
            "or write the kubeconfig elsewhere: --kubeconfig PATH".to_owned(),
        ],
        MachineError::TakenKubeconfig { .. } => one("write this machine's elsewhere: k3s-vm setup --kubeconfig PATH"),
        MachineError::ForeignUnit(path) => vec![format!("move it away: {}", move_away(path))],
        MachineError::OwnKubeconfig(_) => one("work in a project directory, or name another file: --kubeconfig PATH"),
        MachineError::Boot { fault: BootFault::Console(sign), log_path, .. } => of_console(*sign, log_path.as_deref()),
        MachineError::Boot { fault: BootFault::CrashLoop, .. } => vec![
            "all that k3s says: k3s-vm logs k3s".to_owned(),
            "if a setting of k3s is to blame, remove it: k3s-vm configure --unset k3s.args".to_owned(),
        ],
        MachineError::Boot { log_path, stage, .. } => of_boot(log_path.as_deref(), stage),
        MachineError::Datastore { said } if said.contains("no copy") => {
            one("make the machine anew, which deletes all that is in it: k3s-vm reset && k3s-vm setup")
        }
        MachineError::Datastore { .. } => vec![
            "put the copy of the last orderly stop back (the damaged one is kept in the guest): k3s-vm stop && k3s-vm start --restore-datastore".to_owned(),
            "or make the machine anew, which deletes all that is in it: k3s-vm reset && k3s-vm setup".to_owned(),
        ],
        MachineError::Deadline { .. } => vec![
            "more time: --timeout 20m".to_owned(),
            "what k3s says: k3s-vm logs k3s (while the machine runs)".to_owned(),
        ],
        MachineError::Died { .. } => one("QEMU's own words: k3s-vm logs qemu; the guest's: k3s-vm logs console"),
        MachineError::Process(ProcessError::Ended { said, .. }) if said.contains("No space left on device") => vec![
            "make room on the file system of the project, and run the same command again".to_owned(),
            "the whole message: k3s-vm logs qemu".to_owned(),
        ],
        MachineError::Process(ProcessError::Ended { said, .. }) if said.contains("fsdev support is disabled") || said.contains("'virtio-9p-pci' is not a valid") => vec![
            "this QEMU was built without folders of the host (VirtFS): use another one, or no mounts in .k3s-vm/config".to_owned(),
            "the whole message: k3s-vm logs qemu".to_owned(),
        ],
        MachineError::Process(ProcessError::Ended { .. }) => one("the whole message: k3s-vm logs qemu"),
        MachineError::Lock(LockError::Busy { .. }) => one("wait for that command, or end it"),
        MachineError::Record(RecordError::Unreadable { .. }) => one("the machine cannot be used without it; make it anew: k3s-vm reset && k3s-vm setup"),
        MachineError::Config(ConfigError::Invalid { path, .. }) => vec![format!("mend the line, or move the file away: {}", move_away(path))],
        MachineError::Images(error) => of_images(error),
        MachineError::Upgrade(error) => of_upgrade(error),
        MachineError::Carried(error) => of_carried(error),
        MachineError::Image(error) => of_image(error),
        MachineError::Ssh(SshError::WrongHostKey { .. }) => vec![
            "the guest's key was made with the machine, as .k3s-vm/host_ed25519: put back the one of the two that was changed".to_owned(),
            "or make the machine anew, which deletes all that is in it: k3s-vm reset && k3s-vm setup".to_owned(),
        ],
        MachineError::Copy(CopyError::GuestFull(_)) => one("see what takes it: k3s-vm ssh 'df -h; du -xh / | sort -h | tail'"),
        MachineError::Ssh(_) | MachineError::Copy(CopyError::Ssh(_)) => one("see whether the guest is well: k3s-vm logs console"),
        MachineError::Kubeconfig { .. } | MachineError::Api(_) => one("a fresh kubeconfig comes with every start: k3s-vm setup"),
        MachineError::File(error)
        | MachineError::Lock(LockError::File(error))
        | MachineError::Process(ProcessError::File(error))
            if error.action == TRUST =>
        {
            let path = word(&error.path.display());
            vec![
                format!("see what it is: ls -ld {path}"),
                format!("then move it away; if it is a directory of yours, this does as well: chmod 700 {path}"),
            ]
        }
        MachineError::Key { .. } => one("the guest knows no other key; make the machine anew: k3s-vm reset && k3s-vm setup"),
        error => of_the_users_kubeconfig(error),
    }
}

/// What to do about a guest whose console shows why it does not become a node.
fn of_console(sign: Sign, log: Option<&Path>) -> Vec<String> {
    const ANOTHER: &str = "k3s-vm reset && k3s-vm setup --image debian-13";
    let (what, command) = match sign {
        Sign::NotBootable => (
            "try UEFI, or use another image",
            "k3s-vm reset && k3s-vm setup --firmware uefi --image ...",
        ),
        Sign::NoSystemd(_) => ("use a cloud image with systemd", ANOTHER),
        Sign::LoginPrompt => ("use a cloud image, which has cloud-init", ANOTHER),
        Sign::InitramfsShell => (
            "use an image whose root file system is on its only disk",
            ANOTHER,
        ),
        Sign::EmergencyMode => (
            "remove disks that the VM does not have from the image's /etc/fstab, or use another image",
            ANOTHER,
        ),
    };
    let whole = log.map(|path| format!("the whole console: {}", path.display()));
    whole
        .into_iter()
        .chain([format!(
            "{what} (this deletes all that is in the VM): {command}"
        )])
        .collect()
}

fn of_boot(log: Option<&Path>, stage: &str) -> Vec<String> {
    let whole = match log {
        Some(path) => format!("the whole log: {}", path.display()),
        None => "if a setting of k3s is to blame, take it back: k3s-vm configure --unset k3s.args"
            .to_owned(),
    };
    let look = match stage {
        NO_STAGE => {
            "nothing was heard from inside the guest: is it an image for x86_64 with cloud-init in it?"
        }
        _ => "to look inside while it tries, from another terminal: k3s-vm ssh",
    };
    let again = "run the same command again to try once more; with --timeout 20m on a slow host";
    vec![whole, look.to_owned(), again.to_owned()]
}

fn of_contradiction(what: &str, asked: &str) -> Vec<String> {
    let upgrade = (what == "k3s").then(|| {
        format!("a newer one takes the place of the one that is there: k3s-vm upgrade --k3s-version {asked}")
    });
    let others = [
        "a machine keeps what it was made with; leave the flag (or the line in .k3s-vm/config) away to go on with it".to_owned(),
        "or make it anew, which deletes all that is in it: k3s-vm reset && k3s-vm setup ...".to_owned(),
    ];
    upgrade.into_iter().chain(others).collect()
}

fn of_the_users_kubeconfig(error: &MachineError) -> Vec<String> {
    match error {
        MachineError::KubeconfigLocked { path, .. } => vec![
            "wait until it has ended, and run the same command again".to_owned(),
            format!("if nothing is at work on it, remove what was left behind: rm -f {}", word(&path.display())),
        ],
        MachineError::Merge { source: MergeError::NotOurs { what, name }, .. } => {
            vec![format!("give it another name, or remove it: kubectl config delete-{what} {name}")]
        }
        MachineError::Merge { .. } | MachineError::LeadsNowhere(_) => vec![
            "go without: kubectl reads several files, with a colon between them: export KUBECONFIG=~/.kube/config:\"$(k3s-vm kubeconfig)\"".to_owned(),
        ],
        MachineError::MergedByAnother { project, .. } => {
            vec![format!("take them out first: k3s-vm {} kubeconfig --unmerge", of_machine(project))]
        }
        _ => of_snapshot(error),
    }
}

fn of_mount(error: &MachineError) -> Vec<String> {
    let without = || "or go without: k3s-vm configure --unset mounts --restart".to_owned();
    match error {
        MachineError::File(error) if error.action == SHARE => {
            vec![
                format!("make it: mkdir -p {}", word(&error.path.display())),
                "or go without: no --mount, and no mounts in .k3s-vm/config".to_owned(),
            ]
        }
        MachineError::NotMounted {
            mount,
            kernel: Some(_),
        } => vec![
            "the machine runs; use an image whose kernel has 9p: debian-13 or one of Ubuntu's"
                .to_owned(),
            format!(
                "or copy what is in it: k3s-vm cp {}/. :{}",
                at_home(&mount.host),
                word(&mount.guest)
            ),
            without(),
        ],
        MachineError::NotMounted { mount, .. } => vec![
            format!(
                "the machine runs; see why: k3s-vm ssh systemctl status {}",
                word(&mount.guest)
            ),
            without(),
        ],
        _ => Vec::new(),
    }
}

/// What to do when a guest's memory cannot be saved.
fn of_memory(reason: &str, instead: &str) -> Vec<String> {
    let without = "or go without those folders: k3s-vm configure --unset mounts --restart";
    let hints = [Some(instead), (reason == FOLDERS).then_some(without)];
    hints.into_iter().flatten().map(str::to_owned).collect()
}

/// A word whose tilde is the shell's to replace.
fn at_home(path: &str) -> String {
    match path.strip_prefix("~/") {
        Some(rest) => format!("~/{}", word(&rest)),
        None => word(&path),
    }
}

fn of_port(error: &MachineError) -> Vec<String> {
    let one = |hint: &str| vec![hint.to_owned()];
    match error {
        MachineError::PortTaken { port } => vec![
            format!("see who has it: ss -ltnp 'sport = :{port}'"),
            "or take another one: --api-port N for the API (without the flag a free one is taken), k3s-vm port add N:GUEST for others".to_owned(),
        ],
        MachineError::PortRefused { .. } => one("take one above 1023, like --api-port 6443 or k3s-vm port add 8080:80"),
        MachineError::Forwarded(it) => vec![format!("close it first: k3s-vm port rm {}", it.host.port)],
        MachineError::NotForwarded(_) => one("see which are: k3s-vm port list"),
        MachineError::Service { name, namespace, reason } if reason.contains("only the cluster") => vec![
            format!("give it a port of the node: k3s-vm kubectl patch {name} -n {namespace} -p '{{\"spec\":{{\"type\":\"NodePort\"}}}}'"),
            format!("or forward it for as long as a command runs: k3s-vm kubectl port-forward {name} -n {namespace} 8080:80"),
        ],
        MachineError::Service { .. } => one("see what there is: k3s-vm kubectl get services --all-namespaces"),
        _ => of_mount(error),
    }
}

fn of_snapshot(error: &MachineError) -> Vec<String> {
    let one = |hint: &str| vec![hint.to_owned()];
    match error {
        MachineError::NothingToKeep(_) => one("finish it: k3s-vm setup"),
        MachineError::Snapshot(reason) => of_memory(reason, "the machine goes on; to keep its disk alone: k3s-vm stop --power-off && k3s-vm snapshot create"),
        MachineError::SnapshotSpace { path, .. } => vec![
            make_room(path),
            "or remove a snapshot that is not needed any more: k3s-vm snapshot list; k3s-vm snapshot delete NAME".to_owned(),
        ],
        MachineError::SnapshotExists(name) => vec![format!("take another name, or remove that one: k3s-vm snapshot delete {name}")],
        MachineError::NoSnapshot(_) => one("see which there are: k3s-vm snapshot list"),
        MachineError::DamagedSnapshot { name, .. } | MachineError::ForeignSnapshot(name) => {
            vec![format!("nothing was changed; remove it, for it is of no use: k3s-vm snapshot delete {name}")]
        }
        _ => of_port(error),
    }
}

/// What has a command be about the machine of that place.
fn of_machine(place: &Path) -> String {
    let project = Project::at_place(place);
    let further = project.further();
    let name = further.map_or_else(String::new, |it| format!(" --name {it}"));
    format!("-C {}{name}", word(&project.root().display()))
}

/// Bytes are not all that a file system can run out of, and `df` alone would not show it.
fn make_room(path: &Path) -> String {
    let directory = path.ancestors().find(|path| path.is_dir()).unwrap_or(path);
    let inodes = files::free_space(path).is_ok_and(|space| space.no_more_files);
    let see = if inodes {
        format!(" (it takes no more files: df -i {})", directory.display())
    } else {
        String::new()
    };
    format!(
        "make room on the file system of {}{see}, and run the same command again",
        directory.display()
    )
}

/// The file that an error is about, whatever room it comes from.
fn file_of(error: &MachineError) -> Option<&FileError> {
    match error {
        MachineError::File(error)
        | MachineError::Config(ConfigError::File(error))
        | MachineError::Record(RecordError::File(error))
        | MachineError::Lock(LockError::File(error))
        | MachineError::Process(ProcessError::File(error))
        | MachineError::Copy(CopyError::File(error))
        | MachineError::Image(ImageError::File(error)) => Some(error),
        _ => None,
    }
}

fn move_away(path: &Path) -> String {
    let path = path.display();
    format!("mv {} {}", word(&path), word(&format_args!("{path}.bak")))
}

/// A path as one word of a shell: what is to be copied must not do something else than it seems to.
fn word(path: &dyn Display) -> String {
    let text = path.to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%=,".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

pub(crate) fn of_kvm(kvm: &Kvm) -> Vec<String> {
    match kvm {
        Kvm::Works => Vec::new(),
        Kvm::Missing => for_this_host(&LOAD_KVM),
        Kvm::NoPermission => [for_this_host(&JOIN_KVM), vec![UDEV.to_owned()]].concat(),
        Kvm::Broken(_) => vec!["this host is probably a virtual machine itself; have its owner switch on nested virtualisation".to_owned()],
    }
}

fn of_upgrade(error: &UpgradeError) -> Vec<String> {
    const LOG: &str = "what k3s says: k3s-vm logs k3s";
    let back = |name: &Label| {
        format!("bring it back as it was: k3s-vm snapshot restore {name} --yes --start")
    };
    match error {
        UpgradeError::Step(StepError::Older { .. }) => vec![
            "a snapshot of before brings an older one back, with the cluster of then: k3s-vm snapshot list".to_owned(),
            "or make the machine anew with it, which deletes all that is in it: k3s-vm reset && k3s-vm setup --k3s-version ...".to_owned(),
        ],
        UpgradeError::Step(StepError::TooFar { next, .. }) => {
            vec![format!("take the next one first: k3s-vm upgrade --channel {next}")]
        }
        UpgradeError::Step(StepError::Major { .. }) | UpgradeError::Unknown(_) => vec![
            "make a machine with it, which deletes all that is in this one: k3s-vm reset && k3s-vm setup --k3s-version ...".to_owned(),
        ],
        UpgradeError::Release(_) => vec!["they are on https://update.k3s.io/v1-release/channels; or name the release: k3s-vm upgrade --k3s-version ...".to_owned()],
        UpgradeError::Channel { source, .. } => {
            let mut hints = vec!["name the release: k3s-vm upgrade --k3s-version ...".to_owned()];
            hints.extend(of_image(source).into_iter().next());
            hints
        }
        UpgradeError::NotTaken { .. } => vec!["nothing was changed; take another mirror, or another release".to_owned()],
        UpgradeError::Unwell(_) => vec!["wait until it is, or see why not: k3s-vm start; k3s-vm logs k3s".to_owned()],
        UpgradeError::Undone { fell, .. } => {
            let lost = "nothing was lost but what the cluster was told meanwhile";
            let more = fell.late.then_some("more time: k3s-vm upgrade --timeout 20m");
            [Some(lost), more].into_iter().flatten().map(str::to_owned).collect()
        }
        UpgradeError::NotUndone { snapshot, .. } => vec![back(snapshot), LOG.to_owned()],
        UpgradeError::Stuck { snapshot, .. } => {
            let mut hints = vec![LOG.to_owned()];
            hints.extend(snapshot.as_ref().map(back));
            hints
        }
    }
}

fn of_images(error: &ImagesError) -> Vec<String> {
    let hints: &[&str] = match error {
        ImagesError::NoTool { .. } => &[
            "name an archive instead, as `docker save` or `podman save` writes it: k3s-vm image load app.tar",
        ],
        ImagesError::Unknown { .. } => &[
            "see what your tool calls it: docker image ls, podman image ls",
            "an archive of another name than *.tar is told from an image by its path: k3s-vm image load ./FILE",
        ],
        ImagesError::Directory(_) => {
            &["pack an OCI layout on the way: tar -C DIR -c . | k3s-vm image load -"]
        }
        ImagesError::Archive { source, .. } => match source {
            ArchiveError::Platform { .. } => {
                &["build or pull it for linux/amd64: --platform linux/amd64"]
            }
            ArchiveError::Nameless => &["name it: k3s-vm image load --name app:dev ..."],
            ArchiveError::Several(_) => &["leave --name away; each of them has a name of its own"],
            ArchiveError::NoRoom { .. } => &MORE_ROOM,
            ArchiveError::NoTar | ArchiveError::NoImages | ArchiveError::Empty => &[
                "what is taken: the archives of docker save, podman save, skopeo, buildah and buildx",
            ],
            ArchiveError::Torn | ArchiveError::Damaged(_) | ArchiveError::Document { .. } => {
                &["save the image once more, and load that"]
            }
            ArchiveError::Incomplete(_) => {
                &["save the image with all of its layers, and load that"]
            }
            ArchiveError::Unreadable(_) | ArchiveError::Refused(_) => &[],
        },
        ImagesError::GuestFull { .. } => &MORE_ROOM,
        ImagesError::Runtime(_) => &["see whether k3s is well: k3s-vm status; k3s-vm logs k3s"],
        ImagesError::Unresolved(_) => &[
            "load it once more; the kubelet removes unused images from a disk that is nearly full",
        ],
        ImagesError::NotThere { .. } => &["see what is there: k3s-vm image list"],
        ImagesError::NoFile(_) | ImagesError::Unreadable { .. } | ImagesError::Save { .. } => &[],
    };
    hints.iter().map(|&hint| hint.to_owned()).collect()
}

fn of_carried(error: &CacheArchiveError) -> Vec<String> {
    let hint = match error {
        CacheArchiveError::NoArchive => {
            "write one, on a host with internet: k3s-vm cache export FILE"
        }
        CacheArchiveError::Schema(_) => "have the same k3s-vm on both hosts",
        CacheArchiveError::Empty(_) => {
            "leave --all away; then what a setup needs is fetched: k3s-vm cache export FILE"
        }
        CacheArchiveError::Changed(path) => {
            let path = word(&path.display());
            return vec![format!(
                "remove it, and run the same command again, which fetches it anew: rm -f {path}"
            )];
        }
        CacheArchiveError::Read(_) | CacheArchiveError::Write(_) => return Vec::new(),
        _ => {
            "nothing was taken; write the archive once more, and carry that: k3s-vm cache export FILE"
        }
    };
    vec![hint.to_owned()]
}

const MORE_ROOM: [&str; 2] = [
    "remove what the node does not need: k3s-vm image list; k3s-vm image rm NAME",
    "or have the disk grow: k3s-vm configure --disk 40GiB --restart",
];

fn of_image(error: &ImageError) -> Vec<String> {
    if let ImageError::File(error) = error
        && error.source.kind() != ErrorKind::NotFound
    {
        // What is only read may be the user's own; all else of it lies in the cache.
        let writes = !["open", "read", "look at"].contains(&error.action);
        let forbidden = matches!(
            error.source.kind(),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
        );
        let hint = "what is downloaded is kept there; set K3S_VM_CACHE_DIR to a directory that you may write to";
        return if writes && forbidden {
            vec![hint.to_owned()]
        } else {
            Vec::new()
        };
    }
    match error {
        ImageError::DiskTooSmall { minimum, .. } => {
            return vec![format!(
                "ask for more: --disk {minimum}; it takes only what is written to it"
            )];
        }
        ImageError::NoSpace { directory, .. } => {
            return vec![format!(
                "make room on the file system of {}, or set K3S_VM_CACHE_DIR to a directory on another one",
                directory.display()
            )];
        }
        _ => {}
    }
    const UNVOUCHED: &str = "or take what nobody vouches for: --insecure-no-checksum";
    if let ImageError::NoChecksum { .. } = error {
        return vec![
            "what cannot be verified is not used; take another mirror, or another version"
                .to_owned(),
            UNVOUCHED.to_owned(),
        ];
    }
    if let ImageError::Unverifiable { .. } = error {
        return vec![
            "give the SHA-256 that its publisher names: --image-sha256 HEX".to_owned(),
            UNVOUCHED.to_owned(),
        ];
    }
    let text = error.to_string();
    if error.is_not_found() {
        let check = "check the address and the version; a fresh k3s release takes a while until its files are there";
        let unsummed = "a mirror that has no checksums is used only with --insecure-no-checksum";
        let hints = [Some(check), text.contains(CHECKSUMS).then_some(unsummed)];
        return hints.into_iter().flatten().map(str::to_owned).collect();
    }
    if text.contains("disk image") {
        return vec![
            "use a cloud image: --image debian-13, or a qcow2 or raw file with cloud-init in it"
                .to_owned(),
        ];
    }
    if text.contains("SHA-256") || text.contains("checksum") {
        return vec!["run the same command again; if it stays so, the source or a proxy on the way changes the file".to_owned()];
    }
    if error.is_distrust() {
        return vec![
            "a server or a proxy with a company's own authority is trusted so: export SSL_CERT_FILE=FILE, with that \
             authority's certificate beside those of the system".to_owned(),
        ];
    }
    if text.contains("http") {
        return vec![
            "check the network and the proxy variables (https_proxy, no_proxy); a broken-off download goes on where it stopped".to_owned(),
            "or use a mirror: --k3s-mirror URL, --image PATH".to_owned(),
        ];
    }
    Vec::new()
}
