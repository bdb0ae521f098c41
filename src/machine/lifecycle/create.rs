//! A new VM up to its first boot: checks, assets, record and disk.

use uuid::Uuid;

use crate::{
    base::{Progress, files::free_space},
    image::{self, prepared},
    machine::{
        Machine, MachineError, Spec, Timings,
        access::kubeconfig,
        cache::{assets, references},
        guest_config::{config_archive, host_dns, mounts},
        launch::{disk_files, disk_state::FIRST_SPACE},
        model::{
            host::{self, Host},
            timings::Whose,
        },
        template::{backing, publish, ready},
    },
    project::{
        Record,
        config::FirmwareChoice,
        record::{BaseImage, Release},
    },
};

/// Everything before the first boot: assets, record, disk.
pub(crate) async fn make_new(
    machine: &Machine,
    host: &Host,
    spec: &Spec,
    unfinished: Option<Record>,
    progress: &dyn Progress,
    timings: &mut Timings,
) -> Result<Record, MachineError> {
    let name = unfinished
        .as_ref()
        .map_or_else(|| machine.new_name(), |record| record.name.clone());
    // What would fail in the end fails before anything is fetched.
    kubeconfig::check_place(&machine.project, &spec.kubeconfig, &name)?;
    host::check_memory(spec.memory)?;
    host::check_cpu_model(spec.cpu_model.as_deref())?;
    config_archive::archive(&machine.project, spec, &name)?;
    mounts::folders(&machine.project, spec)?;
    host::api_port(spec.api_port, None)?;
    check_space(machine)?;
    let firmware = match spec.firmware {
        FirmwareChoice::Auto | FirmwareChoice::Bios => "bios",
        FirmwareChoice::Uefi => {
            disk_files::ensure_uefi(&machine.project, &host.qemu).map(|_| "uefi")?
        }
    };
    references::sign(machine, unfinished.as_ref())?;
    host_dns::follow(&machine.project, spec).await?;
    let assets = assets::ensure(&machine.cache, spec, unfinished.as_ref(), progress).await?;
    timings.end_of("fetch image and k3s", Whose::Network);
    let begun = unfinished.is_some();
    let mut record = Record {
        schema: Record::schema(),
        uuid: unfinished
            .as_ref()
            .map_or_else(|| Uuid::new_v4().to_string(), |record| record.uuid.clone()),
        name,
        disk: spec.disk,
        image: BaseImage {
            source: spec.image.clone(),
            path: unfinished.as_ref().map_or_else(
                || assets.image.path.clone(),
                |record| record.image.path.clone(),
            ),
            digest: assets.image.digest,
        },
        release: Release {
            version: assets.version.to_string(),
            binary: assets.binary.clone(),
            airgap: assets.airgap.clone(),
        },
        first_release: None,
        firmware: firmware.to_owned(),
        api_port: unfinished.as_ref().map_or(0, |record| record.api_port),
        kubeconfig: unfinished.map_or_else(|| spec.kubeconfig.clone(), |record| record.kubeconfig),
        provisioned: false,
    };
    // A disk that cannot be is refused before there is a machine that has it.
    let ground = backing::ground(machine, host, spec, &assets, &record, begun).await?;
    let mut disk = image::plan(&ground, spec.disk)?;
    record.image.path = ground.path;
    if let Some(template) = prepared::identity(&record.image.path) {
        return ready::copy(machine, host, spec, &template, record, &disk).await;
    }
    record.save(&machine.project)?;
    if !backing::begin(&assets.image, &record)? {
        record.image.path.clone_from(&assets.image.path);
        record.save(&machine.project)?;
        disk = image::plan(&assets.image, spec.disk)?;
    }
    disk_files::ensure_disk(&machine.project, &disk)?;
    publish::begin_suspended(&machine.project, host, spec, &record).await?;
    timings.end_of("make the disk", Whose::Own);
    Ok(record)
}

fn check_space(machine: &Machine) -> Result<(), MachineError> {
    let path = machine.project.directory();
    let free = free_space(&path)?.bytes;
    if free < FIRST_SPACE {
        return Err(MachineError::Space {
            path,
            free,
            needed: FIRST_SPACE,
        });
    }
    Ok(())
}
