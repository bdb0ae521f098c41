//! The plan of a launch: the argument vector of QEMU as values.

use crate::{
    image::prepared,
    machine::{
        MachineError,
        guest_config::{cidata, config_archive, mounts},
        launch::{Startup, disk_files, disk_state},
    },
    project::{Record, Suspended},
    qemu::{Accelerator, Launch, command_line::AttachedDisk, guest_abi},
};

/// The command line of QEMU; a guest that was `suspended` gets the devices that it had.
///
/// # Errors
///
/// When a file that QEMU needs is missing.
pub(crate) fn plan(
    startup: Startup<'_>,
    record: &Record,
    accelerator: Accelerator,
    suspended: Option<&Suspended>,
) -> Result<Launch, MachineError> {
    let Startup {
        machine,
        host,
        spec,
        ..
    } = startup;
    let project = startup.project();
    let is_unprovisioned = disk_state::is_unprovisioned(project, record, suspended);
    let installs = match suspended {
        None => !record.provisioned && !disk_state::has_k3s_preinstalled(record),
        Some(it) => guest_abi::has_disk(&it.memory.origin.arguments, "k3s"),
    };
    let settings = config_archive::current_config_archive(project)?;
    let has_settings = settings.is_some();
    let settings = settings.unwrap_or_default();
    let image = &record.image;
    let makes_template = suspended.is_none() && disk_state::needs_template_boot(project, record);
    let below =
        prepared::state(&image.path).and_then(|_| prepared::image_below(&image.path, image.digest));
    let memory = suspended.map(|it| it.path(project));
    Ok(Launch {
        name: record.name.clone(),
        uuid: (!is_unprovisioned).then(|| record.uuid.clone()),
        serial: (has_settings && !is_unprovisioned)
            .then(|| config_archive::serial(&settings, record.disk)),
        accelerator,
        cpu_model: spec.cpu_model.clone(),
        version: host.version,
        cpus: spec.cpus,
        memory: spec.memory,
        uefi: (record.firmware == "uefi")
            .then(|| disk_files::ensure_uefi(project, &host.qemu))
            .transpose()?,
        disk: if makes_template {
            image.path.clone()
        } else {
            project.disk()
        },
        attachments: attachments(startup, record, installs),
        shares: mounts::host_shares(machine, spec)?,
        credentials: if installs {
            &cidata::FIRST_BOOT_CREDENTIALS
        } else {
            &[]
        },
        is_unprovisioned,
        api_port: record.api_port,
        isolated: spec.isolated,
        host_access: spec
            .host_access
            .clone()
            .with(config_archive::named_ports(&settings)),
        incoming: suspended.is_some(),
        monitor: project.monitor_socket(),
        exec: project.exec_socket(),
        console_log: project.console_log(),
        stages_log: project.stages_log(),
        pidfile: project.pidfile(),
        reads: [Some(image.path.clone()), below, memory]
            .into_iter()
            .flatten()
            .collect(),
        writes: if makes_template {
            vec![prepared::memory_path(&image.path)]
        } else {
            Vec::new()
        },
    })
}

/// The disks besides the VM's own; `installs` adds those from which k3s is copied into the guest.
fn attachments(startup: Startup<'_>, record: &Record, installs: bool) -> Vec<AttachedDisk> {
    let seed = startup.project().seed();
    let release = record.installed_from();
    let disks = [
        ("seed", Some(seed.clone())),
        ("k3s", installs.then(|| release.binary.clone())),
        ("airgap", release.airgap.clone().filter(|_| installs)),
        // The guest looks for the disk's name (see k3s-pre-start.sh), not into it.
        (
            "restore-datastore",
            startup.spec.restore_datastore.then_some(seed),
        ),
    ];
    let attached = disks.into_iter().filter_map(|(name, file)| {
        let file = file?;
        Some(AttachedDisk { name, file })
    });
    attached.collect()
}
