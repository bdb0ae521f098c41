//! A new VM up to its first boot: assets, record and disk.

use uuid::Uuid;

use crate::{
    base::{Name, Progress},
    image::{self, template},
    machine::{
        MachineError, Timings,
        cache::{assets, assets::Assets, references},
        guest_config::host_dns,
        launch::{Startup, disk_files},
        lifecycle::preflight,
        model::timings::TimeSpentIn,
        template::{backing, publish, ready},
    },
    project::{
        Record, Suspended,
        config_values::FirmwareChoice,
        record::{BaseImage, Release},
    },
};

/// Creates the VM, or completes one that an interrupted setup left `unfinished`.
///
/// # Errors
///
/// The first step that fails. What is fetched stays fetched.
pub(crate) async fn create_machine(
    startup: Startup<'_>,
    unfinished: Option<Record>,
    progress: &dyn Progress,
    timings: &mut Timings,
) -> Result<Record, MachineError> {
    let Startup { machine, spec, .. } = startup;
    preflight::require_space(machine)?;
    let firmware = firmware(startup)?;
    references::register(machine, unfinished.as_ref()).await?;
    host_dns::follow(&machine.project, spec).await?;
    let assets = assets::ensure(&machine.cache, spec, unfinished.as_ref(), progress).await?;
    timings.lap("fetch image and k3s", TimeSpentIn::Network);
    let begun = unfinished.is_some();
    if Suspended::exists(&machine.project) && !machine.project.disk().exists() {
        // Left by a deleted VM.
        Suspended::discard(&machine.project)?;
    }
    let drafted = unfinished.unwrap_or_else(|| draft(startup, machine.new_name(), &assets));
    let mut record = completed(startup, drafted, &assets, firmware);
    // A disk that cannot be created is refused before its record is written.
    let backing = backing::choose_backing_image(startup, &assets, &record, begun).await?;
    let mut disk = image::plan(&backing, spec.disk)?;
    record.image.path = backing.path;
    if let Some(template) = template::identity(&record.image.path) {
        return ready::clone_template(startup, &template, record, &disk).await;
    }
    record.save(&machine.project)?;
    if !backing::ensure_backing_disk(&assets.image, &record)? {
        record.image.path.clone_from(&assets.image.path);
        record.save(&machine.project)?;
        disk = image::plan(&assets.image, spec.disk)?;
    }
    disk_files::ensure_disk(&machine.project, &disk)?;
    publish::prepare_resume(startup, &record).await?;
    timings.lap("create the disk", TimeSpentIn::Own);
    Ok(record)
}

/// The record with the current choices and assets.
fn completed(startup: Startup<'_>, record: Record, assets: &Assets, firmware: &str) -> Record {
    Record {
        disk: startup.spec.disk,
        image: BaseImage {
            source: startup.spec.image.clone(),
            path: record.image.path,
            digest: assets.image.digest,
        },
        release: release(assets),
        firmware: firmware.to_owned(),
        ..record
    }
}

/// The firmware of a new VM. Copies its UEFI variables, so that a host without UEFI is refused early.
fn firmware(startup: Startup<'_>) -> Result<&'static str, MachineError> {
    match startup.spec.firmware {
        FirmwareChoice::Auto | FirmwareChoice::Bios => Ok("bios"),
        FirmwareChoice::Uefi => {
            disk_files::ensure_uefi(startup.project(), &startup.host.qemu).map(|_| "uefi")
        }
    }
}

/// The record of a new VM.
fn draft(startup: Startup<'_>, name: Name, assets: &Assets) -> Record {
    let spec = startup.spec;
    Record {
        schema: Record::schema(),
        uuid: Uuid::new_v4().to_string(),
        name,
        disk: spec.disk,
        image: BaseImage {
            source: spec.image.clone(),
            path: assets.image.path.clone(),
            digest: assets.image.digest,
        },
        release: release(assets),
        first_release: None,
        firmware: String::new(),
        api_port: 0,
        ssh_port: None,
        kubeconfig: spec.kubeconfig.clone(),
        provisioned: false,
    }
}

fn release(assets: &Assets) -> Release {
    Release {
        version: assets.version.to_string(),
        binary: assets.binary.clone(),
        airgap: assets.airgap.clone(),
    }
}
