//! The plan of a launch: the argument vector of QEMU as values.

use crate::{
    machine::{
        MachineError, Spec,
        guest_config::{cidata, config_archive, mounts},
        launch::{disk_files, disk_state},
        model::host::Host,
    },
    project::{Project, Record, Suspended},
    qemu::{Accelerator, Launch, command_line::Attachment, visible},
};

/// What QEMU is given; the guest that was `suspended` finds the disks that it had.
pub(crate) fn plan(
    project: &Project,
    host: &Host,
    spec: &Spec,
    record: &Record,
    accelerator: Accelerator,
    suspended: Option<&Suspended>,
) -> Result<Launch, MachineError> {
    let mut attachments = vec![Attachment {
        name: "seed",
        file: project.seed(),
    }];
    // What was suspended goes on with the devices that it had.
    let asks = disk_state::asks(project, record, suspended);
    let installs = match suspended {
        None => !record.provisioned && !disk_state::is_given(record),
        Some(it) => visible::has_disk(&it.memory.origin.arguments, "k3s"),
    };
    if installs {
        let release = record.installed_from();
        attachments.push(Attachment {
            name: "k3s",
            file: release.binary.clone(),
        });
        attachments.extend(release.airgap.clone().map(|file| Attachment {
            name: "airgap",
            file,
        }));
    }
    if spec.restore_datastore {
        // The guest looks for the disk's name (see k3s-starting.sh), not into it.
        attachments.push(Attachment {
            name: "restore-datastore",
            file: project.seed(),
        });
    }
    Ok(Launch {
        name: record.name.clone(),
        uuid: (!asks).then(|| record.uuid.clone()),
        serial: match config_archive::given(project)? {
            Some(settings) if !asks => Some(config_archive::serial(&settings, record.disk)),
            _ => None,
        },
        accelerator,
        cpu_model: spec.cpu_model.clone(),
        version: host.version,
        cpus: spec.cpus,
        memory: spec.memory,
        uefi: (record.firmware == "uefi")
            .then(|| disk_files::ensure_uefi(project, &host.qemu))
            .transpose()?,
        disk: if suspended.is_none() && disk_state::is_due(project, record) {
            record.image.path.clone()
        } else {
            project.disk()
        },
        attachments,
        folders: mounts::folders(project, spec)?,
        credentials: if installs {
            &cidata::FIRST_BOOT_CREDENTIALS
        } else {
            &[]
        },
        asks,
        api_port: record.api_port,
        isolated: spec.isolated,
        incoming: suspended.is_some(),
        monitor: project.monitor_socket(),
        requests: project.requests(),
        console_log: project.console_log(),
        stages_log: project.stages_log(),
        pidfile: project.pidfile(),
    })
}
