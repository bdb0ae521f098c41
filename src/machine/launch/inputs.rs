//! The files of a VM as a launch needs them: the only part of its plan that reads the disk.

use std::path::PathBuf;

use crate::{
    image::template,
    machine::{
        MachineError,
        guest_config::{config_archive, mounts},
        launch::{Startup, disk_files, disk_state},
    },
    project::{Record, Suspended},
    qemu::{command_line::HostShare, firmware::Uefi, guest_abi},
};

/// The files of one launch.
#[derive(Debug)]
pub(crate) struct LaunchInputs {
    /// The guest requests its identity.
    pub(crate) is_unprovisioned: bool,
    /// The guest copies k3s from attached disks.
    pub(crate) installs_k3s: bool,
    /// The guest boots from the disk in the cache, which becomes a template.
    pub(crate) makes_template: bool,
    /// The configuration that the guest reads.
    pub(crate) config_archive: Option<Vec<u8>>,
    /// The image below a template's disk.
    pub(crate) image_below: Option<PathBuf>,
    /// The memory that QEMU loads.
    pub(crate) memory: Option<PathBuf>,
    /// The host's directories for the guest.
    pub(crate) shares: Vec<HostShare>,
    /// The UEFI firmware and the VM's variables.
    pub(crate) uefi: Option<Uefi>,
}

impl LaunchInputs {
    /// Reads the files of a launch, and creates the VM's UEFI variables if they are missing.
    ///
    /// # Errors
    ///
    /// When a file that QEMU needs is missing.
    pub(crate) fn prepare(
        startup: Startup<'_>,
        record: &Record,
        suspended: Option<&Suspended>,
    ) -> Result<Self, MachineError> {
        let project = startup.project();
        let image = &record.image;
        let installs_k3s = match suspended {
            None => !record.provisioned && !disk_state::has_k3s_preinstalled(record),
            Some(it) => guest_abi::has_disk(&it.memory.origin.arguments, "k3s"),
        };
        let uefi = (record.firmware == "uefi")
            .then(|| disk_files::ensure_uefi(project, &startup.host.qemu))
            .transpose()?;
        Ok(Self {
            is_unprovisioned: disk_state::is_unprovisioned(project, record, suspended),
            installs_k3s,
            makes_template: suspended.is_none() && disk_state::needs_template_boot(project, record),
            config_archive: config_archive::current_config_archive(project)?,
            image_below: template::state(&image.path)
                .and_then(|_| template::image_below(&image.path, image.digest)),
            memory: suspended.map(|it| it.path(project)),
            shares: mounts::host_shares(startup.machine, startup.spec)?,
            uefi,
        })
    }
}
