//! The files of a machine: keys, disk, seed. Each is made when it is missing, whole or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{MachineError, settings};
use crate::{
    base::{
        FileError,
        files::{self, PRIVATE},
        trust,
    },
    cluster::release::{ReleaseError, Version},
    guest::{KeyPair, listener},
    project::{Project, Record},
    qemu::firmware::Uefi,
    seed::{SeedFile, cloud_config, fat},
};

macro_rules! first_boot {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../firmware/first-boot/", $name)))),+]
    };
}

/// The files of `firmware/first-boot/`, as the guest finds them on the seed.
const FIRST_BOOT: [(&str, &str); 23] = first_boot![
    "first-boot.sh",
    "network.sh",
    "provision.sh",
    "prepare.sh",
    "identity.sh",
    "settings.sh",
    "grow.sh",
    "disk.sh",
    "report.sh",
    "stop-pods.sh",
    "k3s-starting.sh",
    "k3s-ended.sh",
    "damage.sh",
    "watch-datastore.sh",
    "k3s-vm-datastore.service",
    "listen.sh",
    "sshd.conf",
    "coldplug.conf",
    "k3s.service",
    "k3s-vm-listener.service",
    "k3s-vm-identity.service",
    "k3s-vm-pods.service",
    "k3s-vm-provision.service",
];

/// What the firmware hands to a guest that has not been made a node yet, as systemd's credentials: a unit, that it is to be
/// started, and what later boots find on the disk (systemd-debug-generator(8)).
pub const FIRST_BOOT_CREDENTIALS: [(&str, &str); 3] = [
    (
        "systemd.extra-unit.k3s-vm-first-boot.service",
        include_str!("../../firmware/first-boot/k3s-vm-first-boot.service"),
    ),
    (
        "systemd.unit-dropin.sysinit.target",
        "[Unit]\nWants=k3s-vm-first-boot.service\n",
    ),
    (
        "systemd.unit-dropin.systemd-udev-trigger.service",
        include_str!("../../firmware/first-boot/coldplug.conf"),
    ),
];

/// The key in `path`, made if there is none.
///
/// # Errors
///
/// When it is damaged or cannot be written.
pub fn ensure_key(path: PathBuf, comment: &str) -> Result<KeyPair, MachineError> {
    if path.exists() {
        return super::state::load_key(path);
    }
    let unusable = |source| MachineError::Key {
        path: path.clone(),
        source,
    };
    let key = KeyPair::generate(comment).map_err(unusable)?;
    files::write(&path, key.to_pem().map_err(unusable)?.as_bytes(), PRIVATE)?;
    Ok(key)
}

/// The disk, made of these bytes if there is none.
///
/// # Errors
///
/// When it cannot be written.
pub fn ensure_disk(project: &Project, overlay: &[u8]) -> Result<(), MachineError> {
    let disk = project.disk();
    if disk.exists() {
        return Ok(());
    }
    Ok(files::write(&disk, overlay, PRIVATE)?)
}

/// What the guests of all machines are given alike.
pub fn generic() -> Vec<(&'static str, String)> {
    let own = FIRST_BOOT
        .iter()
        .chain(&FIRST_BOOT_CREDENTIALS)
        .map(|&(name, text)| (name, text.to_owned()));
    let mut all: Vec<_> = own.collect();
    all.extend([
        ("meta-data", cloud_config::meta_data()),
        ("user-data", cloud_config::user_data()),
    ]);
    all
}

/// What makes the guest this machine and no other, for `identity.sh`.
///
/// # Errors
///
/// When a key cannot be read or made.
pub fn identity(project: &Project, record: &Record) -> Result<Vec<SeedFile>, MachineError> {
    let client = ensure_key(project.client_key(), "k3s-vm")?;
    let host = ensure_key(project.host_key(), record.name.as_str())?;
    let unusable = |path: PathBuf| move |source| MachineError::Key { path, source };
    let settings = settings::given(project)?.unwrap_or_default();
    let serial = settings::serial(&settings, record.disk);
    let mut files = seed_files([
        ("machine", format!("{} {serial}\n", record.uuid)),
        ("hostname", format!("{}\n", record.name)),
        (
            "authorized_keys",
            client
                .public_line()
                .map_err(unusable(project.client_key()))?
                + "\n",
        ),
        (
            "host_key",
            host.to_pem()
                .map_err(unusable(project.host_key()))?
                .to_string(),
        ),
        (
            "host_key.pub",
            host.public_line().map_err(unusable(project.host_key()))? + "\n",
        ),
    ]);
    files.push(SeedFile {
        name: "settings.tar",
        content: settings,
    });
    Ok(files)
}

fn seed_files<const N: usize>(texts: [(&'static str, String); N]) -> Vec<SeedFile> {
    Vec::from(texts.map(|(name, text)| SeedFile {
        name,
        content: text.into_bytes(),
    }))
}

/// The seed, made anew: the same record and keys give the same bytes. A guest that `asks` who it is does not find it there:
/// others may go on from its memory.
///
/// # Errors
///
/// When a key or the release cannot be read, or the seed cannot be written.
pub fn ensure_seed(project: &Project, record: &Record, asks: bool) -> Result<(), MachineError> {
    let own = identity(project, record)?;
    let mut files = seed_files([
        // For cloud-init, and the same for every machine.
        ("meta-data", cloud_config::meta_data()),
        ("user-data", cloud_config::user_data()),
    ]);
    match release_env(record) {
        Ok(release) => files.extend(seed_files([("release.env", release)])),
        // A guest that has its k3s does not ask for it any more, and the cache may have let it go.
        Err(MachineError::File(_)) if record.provisioned => {}
        Err(error) => return Err(error),
    }
    if !asks {
        files.extend(own);
    }
    files.extend(FIRST_BOOT.map(|(name, text)| SeedFile {
        name,
        content: text.into(),
    }));
    let image = fat::image(&files).map_err(MachineError::Seed)?;
    let seed = project.seed();
    if fs::read(&seed).is_ok_and(|there| there == image) {
        return Ok(());
    }
    Ok(files::write(&seed, &image, PRIVATE)?)
}

/// What `provision.sh` has to know: numbers and a checked version, so that nothing needs quoting.
fn release_env(record: &Record) -> Result<String, MachineError> {
    let size = |path: &Path| {
        fs::metadata(path)
            .map(|it| it.len().to_string())
            .map_err(FileError::on("look at", path))
    };
    let airgap = record
        .release
        .airgap
        .as_deref()
        .map(size)
        .transpose()?
        .unwrap_or_default();
    // The guest's shell reads it, and a record is only text.
    let version: Version = record
        .release
        .version
        .parse()
        .map_err(|error: ReleaseError| MachineError::Choice(error.to_string()))?;
    Ok(format!(
        "K3S_VERSION={version}\nK3S_SIZE={}\nAIRGAP_SIZE={airgap}\n",
        size(&record.release.binary)?
    ))
}

/// The machine's own UEFI variables beside the host's firmware code.
///
/// # Errors
///
/// When the host has no UEFI firmware or the variables cannot be copied.
pub fn ensure_uefi(project: &Project, qemu: &Path) -> Result<Uefi, MachineError> {
    let found = crate::qemu::firmware::find_uefi(qemu).ok_or(MachineError::NoUefi)?;
    let variables = project.uefi_variables();
    let template = fs::read(&found.variables).map_err(FileError::on("read", &found.variables))?;
    // A torn copy is of no use to QEMU, and a fresh one boots as well.
    let length = fs::metadata(&variables).map_or(0, |it| it.len());
    if length != template.len() as u64 {
        files::write(&variables, &template, PRIVATE)?;
    }
    Ok(Uefi {
        code: found.code,
        variables,
    })
}

/// The logs of a new start, empty and private before QEMU opens them; the socket's directory.
///
/// # Errors
///
/// When they cannot be made, or the runtime directory is not the user's own.
pub fn prepare_start(project: &Project) -> Result<(), MachineError> {
    for log in [
        project.console_log(),
        project.stages_log(),
        project.qemu_log(),
    ] {
        files::open_in_place(&log, true)?;
    }
    prepare_runtime(project)
}

/// The same without the logs, which go on with the guest.
///
/// # Errors
///
/// Those of [`prepare_start`].
pub fn prepare_runtime(project: &Project) -> Result<(), MachineError> {
    // QEMU would write its number through a link; no QEMU runs now.
    files::remove_if_exists(&project.pidfile())?;
    let runtime = project.runtime();
    let base = runtime.parent().unwrap_or(&runtime);
    // Nothing is made in a directory before it is known to be ours.
    files::create_private_dir(base)?;
    trust::require_private_dir(base)?;
    files::create_private_dir(&runtime)?;
    Ok(listener::make(&project.requests())?)
}

/// The links in `.k3s-vm/bin/` that make this program kubectl and k9s.
///
/// # Errors
///
/// When they cannot be made.
pub fn ensure_links(project: &Project, program: &Path) -> Result<(), MachineError> {
    let bin = project.bin();
    trust::own_private_dir(&bin)?;
    for name in ["kubectl", "k9s"] {
        let link = bin.join(name);
        if fs::read_link(&link).ok().as_deref() != Some(program) {
            files::remove_if_exists(&link)?;
            std::os::unix::fs::symlink(program, &link).map_err(FileError::on("link", &link))?;
        }
    }
    Ok(())
}
