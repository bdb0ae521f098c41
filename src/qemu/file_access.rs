//! The files of the host that QEMU may open: those of its VM, and those that every program needs. The kernel refuses all
//! others by Landlock (landlock(7)), also to a guest that has taken QEMU over. QEMU may create files only in mounts: its
//! own files exist before it starts.
//!
//! A rule applies to the file or directory itself, not to its path, so a project can be moved while its VM runs.

use std::{
    env, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use nix::libc;

use super::Launch;
use crate::base::files;

/// The first version in which files can be moved between directories, which mounts need.
const OLDEST: ABI = ABI::V2;
/// Restrictions of newer versions were not tried. An older kernel ignores those that it does not know.
const NEWEST: ABI = ABI::V6;

/// Directories without files of users.
const SYSTEM: [&str; 12] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc",
    "/proc",
    "/sys",
    "/run/current-system",
    "/run/opengl-driver",
    "/var/lib/sss/mc",
];

/// Other directories of programs.
const INSTALLED: [&str; 5] = [
    "/opt",
    "/nix",
    "/gnu",
    "/snap",
    "/home/linuxbrew/.linuxbrew",
];

/// Directories beside that of a program: its libraries and data, in its own installation, its unpacked packages, or its
/// build.
const BESIDE: [&str; 9] = [
    "lib",
    "lib64",
    "libexec",
    "share/qemu",
    "share/seabios",
    "share/edk2",
    "usr",
    "pc-bios",
    "qemu-bundle",
];

/// Lists of directories with libraries and modules.
const LIBRARY_PATHS: [&str; 2] = ["LD_LIBRARY_PATH", "QEMU_MODULE_DIR"];

const DEVICES: [&str; 7] = [
    "/dev/kvm",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
];

/// Returns `true` when the kernel can restrict QEMU.
pub fn is_supported() -> bool {
    handled().and_then(Ruleset::create).is_ok()
}

/// The rules for a QEMU; `None` without Landlock. Missing files that QEMU may be told to write are created.
pub(super) fn rules(program: &Path, launch: &Launch) -> Option<OwnedFd> {
    for path in &launch.writes {
        if let Err(error) = files::open_in_place(path, false) {
            tracing::debug!(%error, "QEMU will not write it");
        }
    }
    match build(program, launch) {
        Ok(ruleset) => ruleset.into(),
        Err(error) => {
            tracing::debug!(%error, "QEMU runs without Landlock");
            None
        }
    }
}

/// Applies the rules to a program that is about to start. It fails to start if the kernel refuses: a process has at
/// most 16 sets of rules.
#[expect(
    unsafe_code,
    reason = "between fork and exec; prctl and landlock_restrict_self only enter the kernel and allocate nothing"
)]
pub(super) fn refuse_others(command: &mut Command, rules: Option<OwnedFd>) {
    let Some(rules) = rules else {
        return;
    };
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_no_new_privs()?;
            // libc has no function for it.
            match libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
}

fn handled() -> Result<Ruleset, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(OLDEST))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))
}

fn build(program: &Path, launch: &Launch) -> Result<RulesetCreated, RulesetError> {
    let machine = launch.pidfile.parent();
    let runtime = launch.monitor.parent();
    let mut readable: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    readable.extend(installation(program, machine));
    readable.extend(launch.attachments.iter().map(|it| it.file.clone()));
    readable.extend(launch.uefi.iter().map(|it| it.code.clone()));
    readable.extend(launch.reads.iter().cloned());
    readable.extend(resolv_conf());
    let mut ruleset = handled()?.create()?;
    let mut allow = |paths: &[&Path], access: BitFlags<AccessFs>| {
        (&mut ruleset)
            .add_rules(path_beneath_rules(paths, access))
            .map(drop)
    };
    let read = AccessFs::from_read(NEWEST);
    let readable: Vec<&Path> = readable.iter().map(PathBuf::as_path).collect();
    allow(&readable, read)?;
    let write = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    // Its pidfile and socket are removed by QEMU itself.
    let own = write | AccessFs::RemoveFile;
    allow(machine.as_slice(), own)?;
    allow(runtime.as_slice(), own | AccessFs::MakeSock)?;
    let written = launch.writes.iter().chain([&launch.disk]);
    let written: Vec<&Path> = written.map(PathBuf::as_path).collect();
    allow(&written, write)?;
    allow(&DEVICES.map(Path::new), write | AccessFs::IoctlDev)?;
    // The guest's root cannot create devices on the host, even if QEMU is root.
    let devices = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    for share in &launch.shares {
        let access = if share.read_only {
            read
        } else {
            AccessFs::from_all(NEWEST) & !devices
        };
        allow(&[&share.path], access)?;
    }
    Ok(ruleset)
}

/// The files of a program outside of the system's directories. A directory that contains the home directory or the VM
/// is left out.
fn installation(program: &Path, machine: Option<&Path>) -> Vec<PathBuf> {
    let real = |path: PathBuf| path.canonicalize().ok();
    let home = env::home_dir().and_then(real);
    let machine = machine.map(Path::to_owned).and_then(real);
    let apart = |path: &PathBuf| {
        let path = real(path.clone()).unwrap_or_default();
        let mut inside = [&home, &machine].into_iter().flatten();
        path.parent().is_some() && !inside.any(|it| it.starts_with(&path))
    };
    let mut directories: Vec<PathBuf> = INSTALLED.iter().map(PathBuf::from).collect();
    for program in [Some(program.to_owned()), real(program.to_owned())]
        .into_iter()
        .flatten()
    {
        if let Some(directory) = program.parent() {
            let above = directory.parent().into_iter();
            directories.extend(above.flat_map(|it| BESIDE.map(|name| it.join(name))));
            directories.push(directory.to_owned());
        }
    }
    for name in LIBRARY_PATHS {
        let paths = env::var_os(name).unwrap_or_default();
        directories.extend(env::split_paths(&paths).filter(|it| it.is_absolute()));
    }
    directories.retain(apart);
    directories.push(program.to_owned());
    directories
}

/// The file of the DNS servers, which QEMU reads again when it changes; it may be a link to another directory, and may
/// be replaced there.
fn resolv_conf() -> Option<PathBuf> {
    let real = Path::new("/etc/resolv.conf").canonicalize().ok()?;
    real.parent()
        .filter(|it| it.starts_with("/run"))
        .map(Path::to_owned)
        .or(Some(real))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::qemu::command_line::{AttachedDisk, HostShare, tests::example};

    /// A VM below a directory of its own, with a user's other files beside it.
    fn launch(root: &Path) -> Launch {
        for directory in [
            "home",
            "project/.k3s-vm/bin",
            "run/vm",
            "run/other",
            "cache/images",
            "cache/prepared",
            "ro",
            "rw",
            "qemu/build",
            "qemu/pc-bios",
        ] {
            fs::create_dir_all(root.join(directory)).expect("created");
        }
        for file in [
            "home/secret",
            "project/notes",
            "run/other/qmp.sock",
            "cache/images/base.img",
            "cache/images/other.img",
            "cache/k3s",
            "ro/file",
            "rw/file",
            "qemu/pc-bios/bios.bin",
            "project/.k3s-vm/disk.qcow2",
            "project/.k3s-vm/qemu.pid",
        ] {
            fs::write(root.join(file), "old").expect("written");
        }
        let share = |name: &str, read_only| HostShare {
            tag: name.to_owned(),
            path: root.join(name),
            read_only,
        };
        let state = root.join("project/.k3s-vm");
        symlink("/bin/true", state.join("bin/kubectl")).expect("linked");
        Launch {
            disk: state.join("disk.qcow2"),
            attachments: vec![AttachedDisk {
                name: "k3s",
                file: root.join("cache/k3s"),
            }],
            shares: vec![share("ro", true), share("rw", false)],
            monitor: root.join("run/vm/qmp.sock"),
            console_log: state.join("console.log"),
            stages_log: state.join("stages.log"),
            pidfile: state.join("qemu.pid"),
            reads: vec![root.join("cache/images/base.img")],
            writes: vec![root.join("cache/prepared/disk.memory")],
            ..example()
        }
    }

    /// Returns `true` when a shell command works under the rules.
    fn works(root: &Path, launch: &Launch, line: &str) -> bool {
        let rules = rules(&root.join("qemu/build/qemu-system-x86_64"), launch);
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(root);
        refuse_others(&mut command, rules);
        command.output().expect("sh runs").status.success()
    }

    #[test]
    fn a_qemu_opens_the_files_of_its_vm_alone() {
        assert!(is_supported(), "the tests need a kernel with Landlock");
        let directory = tempfile::tempdir().expect("temporary directory");
        let root = directory.path();
        let launch = launch(root);
        for line in [
            "cat cache/k3s cache/images/base.img ro/file qemu/pc-bios/bios.bin /etc/passwd /proc/self/status",
            "echo new >project/.k3s-vm/disk.qcow2 && echo more >>project/.k3s-vm/disk.qcow2",
            "echo new >cache/prepared/disk.memory && cat cache/prepared/disk.memory",
            "rm project/.k3s-vm/qemu.pid",
            "echo >/dev/null; head -c 9 /dev/urandom",
            "mkdir rw/a rw/b && echo >rw/a/file && mv rw/a/file rw/b/ && ln rw/b/file rw/a/ && ln -s x rw/link && rm -r rw/a",
            "mkfifo rw/fifo",
        ] {
            assert!(works(root, &launch, line), "{line}");
        }
        for line in [
            "cat home/secret",
            "ls home",
            "cat project/notes",
            "cat cache/images/other.img",
            "cat project/.k3s-vm/../notes",
            "cat /proc/self/cwd/home/secret",
            "cat /proc/$PPID/root/etc/passwd",
            "echo new >>home/secret",
            "truncate -s 0 project/notes",
            "rm project/notes",
            "echo new >project/new",
            "mv project/.k3s-vm/disk.qcow2 home/",
            "ln home/secret project/.k3s-vm/secret",
            "ln home/secret rw/secret",
            "ln -sf /bin/false project/.k3s-vm/bin/kubectl",
            "echo new >project/.k3s-vm/bin/k9s",
            "cp /bin/true project/.k3s-vm/program",
            "echo new >cache/images/base.img",
            "echo new >cache/k3s",
            "echo new >cache/prepared/other",
            "echo new >ro/file",
            "mv ro/file rw/",
            "echo new >run/other/qmp.sock",
            "mknod rw/device c 1 3",
            "kill -0 $PPID",
            "ln -s ../home rw/way && cat rw/way/secret",
            "mount -t tmpfs tmpfs ro",
        ] {
            assert!(!works(root, &launch, line), "{line}");
        }
        for file in ["home/secret", "project/notes", "ro/file", "cache/k3s"] {
            assert_eq!(fs::read(root.join(file)).expect("kept"), b"old", "{file}");
        }
    }

    #[test]
    fn the_home_directory_is_no_part_of_an_installation() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let root = directory.path().canonicalize().expect("there");
        let machine = root.join("project/.k3s-vm");
        for path in ["project/.k3s-vm", "bin", "lib"] {
            fs::create_dir_all(root.join(path)).expect("created");
        }
        let of = |program: &str| installation(&root.join(program), Some(&machine));
        // A directory that has the VM in it.
        let beside = of("qemu-system-x86_64");
        assert!(!beside.contains(&root), "{beside:?}");
        assert!(beside.contains(&root.join("qemu-system-x86_64")));
        let below = of("bin/qemu-system-x86_64");
        assert!(below.contains(&root.join("bin")) && below.contains(&root.join("lib")));
        assert!(!below.contains(&root), "{below:?}");
    }
}
