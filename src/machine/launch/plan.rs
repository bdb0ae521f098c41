//! The plan of a launch: the argument vector of QEMU as values. It reads no file.

use crate::{
    image::template,
    machine::{
        guest_config::{cidata, config_archive},
        launch::{Startup, inputs::LaunchInputs},
    },
    project::Record,
    qemu::{Accelerator, Launch, command_line::AttachedDisk},
};

/// The command line of QEMU.
pub(crate) fn plan(
    startup: Startup<'_>,
    record: &Record,
    accelerator: Accelerator,
    inputs: LaunchInputs,
) -> Launch {
    let Startup { host, spec, .. } = startup;
    let project = startup.project();
    let is_unprovisioned = inputs.is_unprovisioned;
    let image = record.image.path.clone();
    let config = inputs.config_archive.as_deref();
    let (disk, writes) = if inputs.makes_template {
        (image.clone(), vec![template::memory_path(&image)])
    } else {
        (project.disk(), Vec::new())
    };
    Launch {
        name: record.name.clone(),
        uuid: (!is_unprovisioned).then(|| record.uuid.clone()),
        serial: config
            .filter(|_| !is_unprovisioned)
            .map(|config| config_archive::serial(config, record.disk)),
        accelerator,
        cpu_model: spec.cpu_model.clone(),
        version: host.version,
        cpus: spec.cpus,
        memory: spec.memory,
        uefi: inputs.uefi,
        disk,
        attachments: attachments(startup, record, inputs.installs_k3s),
        shares: inputs.shares,
        credentials: if inputs.installs_k3s {
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
            .with(config_archive::named_ports(config.unwrap_or_default())),
        incoming: inputs.memory.is_some(),
        monitor: project.monitor_socket(),
        exec: project.exec_socket(),
        console_log: project.console_log(),
        stages_log: project.stages_log(),
        pidfile: project.pidfile(),
        reads: [Some(image), inputs.image_below, inputs.memory]
            .into_iter()
            .flatten()
            .collect(),
        writes,
    }
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
