//! The keys of templates: digests of everything that shaped their disk and memory.

use std::path::Path;

use serde_json::json;

use crate::{
    base::Digest,
    machine::{
        MachineError,
        cache::assets::Assets,
        guest_config::{cidata, config_archive},
        launch::Startup,
        model::host,
    },
    qemu::{Accelerator, version},
};

/// Raised when disks of an older program are unusable.
const SCHEMA: u32 = 1;

/// By what shaped it.
pub(crate) fn installed(assets: &Assets, firmware: &str) -> Digest {
    // A file of a release has its digest in its path.
    let release = |path: &Path| path.parent().map(|it| it.to_string_lossy().into_owned());
    let shaped = json!([
        SCHEMA,
        assets.image.digest,
        assets.version.to_string(),
        release(&assets.binary),
        assets.airgap.as_deref().map(release),
        firmware,
        cidata::generic(),
    ]);
    Digest::of(shaped.to_string().as_bytes())
}

/// The key of a template. It fits only VMs that can resume its memory and have the same configuration.
///
/// # Errors
///
/// When the host does not tell what it has.
pub(crate) async fn ready(startup: Startup<'_>, of_disk: &Digest) -> Result<Digest, MachineError> {
    let Startup {
        machine,
        host,
        spec,
        ..
    } = startup;
    let accelerator = host.accelerator(spec.accel).await?;
    let runs = match accelerator {
        Accelerator::Kvm => "-enable-kvm".to_owned(),
        Accelerator::Tcg => String::new(),
    };
    let cpu = format!(
        "-cpu {}",
        accelerator.cpu(host.version, spec.cpu_model.as_deref())
    );
    // The identity is not known yet.
    let anybody = "anybody".parse().expect("it is a name");
    let shaped = json!([
        of_disk,
        machine.given_name,
        spec.cpus,
        spec.memory,
        spec.disk,
        Digest::of(&config_archive::archive(&machine.project, spec, &anybody)?),
        version::full(&host.qemu)?,
        host::processor(&[runs.clone(), cpu.clone()]),
        runs,
        cpu,
    ]);
    Ok(Digest::of(shaped.to_string().as_bytes()))
}
