//! The cidata seed, and what it holds for this VM alone: hostname, keys and the config archive.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    base::{
        FileError,
        files::{self, PRIVATE},
    },
    k3s::release::{ReleaseError, Version},
    machine::{MachineError, control::keys, guest_config::config_archive},
    project::{Project, Record},
    seed::{SeedFile, cloud_config, fat},
};

macro_rules! first_boot {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../../firmware/first-boot/", $name)))),+]
    };
}

/// The files of `firmware/first-boot/`, as the guest finds them on the seed.
const FIRST_BOOT: [(&str, &str); 23] = first_boot![
    "first-boot.sh",
    "network.sh",
    "provision.sh",
    "capture-point.sh",
    "apply-identity.sh",
    "apply-config.sh",
    "grow-root.sh",
    "find-disk.sh",
    "report.sh",
    "stop-pods.sh",
    "k3s-pre-start.sh",
    "k3s-post-stop.sh",
    "detect-datastore-corruption.sh",
    "watch-datastore.sh",
    "k3s-vm-datastore.service",
    "exec-agent.sh",
    "sshd.conf",
    "coldplug.conf",
    "k3s.service",
    "k3s-vm-exec.service",
    "k3s-vm-identity.service",
    "k3s-vm-pods.service",
    "k3s-vm-provision.service",
];

/// The systemd credentials that the firmware hands to a guest that has not been made a node yet: a unit, that it is to
/// be started, and what later boots find on the disk (systemd-debug-generator(8)).
pub const FIRST_BOOT_CREDENTIALS: [(&str, &str); 3] = [
    (
        "systemd.extra-unit.k3s-vm-first-boot.service",
        include_str!("../../../firmware/first-boot/k3s-vm-first-boot.service"),
    ),
    (
        "systemd.unit-dropin.sysinit.target",
        "[Unit]\nWants=k3s-vm-first-boot.service\n",
    ),
    (
        "systemd.unit-dropin.systemd-udev-trigger.service",
        include_str!("../../../firmware/first-boot/coldplug.conf"),
    ),
];

/// The files that the guests of all VMs get alike.
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

/// The files that make the guest this VM, for `apply-identity.sh`.
///
/// # Errors
///
/// When a key cannot be read or made.
pub fn identity(project: &Project, record: &Record) -> Result<Vec<SeedFile>, MachineError> {
    let client = keys::ensure_key(project.client_key(), "k3s-vm")?;
    let host = keys::ensure_key(project.host_key(), record.name.as_str())?;
    let unusable = |path: PathBuf| move |source| MachineError::Key { path, source };
    let settings = config_archive::current_config_archive(project)?.unwrap_or_default();
    let serial = config_archive::serial(&settings, record.disk);
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
        name: "config.tar",
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

/// The seed, made again: the same record and keys give the same bytes. A guest that `asks` who it is does not find it
/// there: other VMs may resume from its memory.
///
/// # Errors
///
/// When a key or the release cannot be read, or the seed cannot be written.
pub fn ensure_seed(
    project: &Project,
    record: &Record,
    is_unprovisioned: bool,
) -> Result<(), MachineError> {
    let own = identity(project, record)?;
    let mut files = seed_files([
        // For cloud-init, and the same for every VM.
        ("meta-data", cloud_config::meta_data()),
        ("user-data", cloud_config::user_data()),
    ]);
    match release_env(record) {
        Ok(release) => files.extend(seed_files([("release.env", release)])),
        // A guest that has its k3s does not ask for it any more, and the cache may have let it go.
        Err(MachineError::File(_)) if record.provisioned => {}
        Err(error) => return Err(error),
    }
    if !is_unprovisioned {
        files.extend(own);
    }
    files.extend(FIRST_BOOT.map(|(name, text)| SeedFile {
        name,
        content: text.into(),
    }));
    let image = fat::image(&files).map_err(MachineError::Seed)?;
    let seed = project.seed();
    if files::read(&seed).is_ok_and(|there| there == image) {
        return Ok(());
    }
    Ok(files::write(&seed, &image, PRIVATE)?)
}

/// The variables for `provision.sh`: numbers and a checked version, so that nothing needs quoting.
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
