//! Publishes a template with its memory, and starts a new VM from it as if it had been suspended.

use std::time::SystemTime;

use tokio::task::spawn_blocking;

use crate::{
    image::{self, template},
    machine::{
        MachineError,
        launch::{CapturedMemory, Startup, disk_state},
        memory::{compatibility, save},
    },
    project::{Identity, Record, Suspended, suspended::FileStamp},
};

/// Makes a new VM on a published disk suspended with the template's memory, if the host can resume it.
///
/// # Errors
///
/// When that cannot be noted.
pub(crate) async fn prepare_resume(
    startup: Startup<'_>,
    record: &Record,
) -> Result<(), MachineError> {
    let project = startup.project();
    let disk = project.disk();
    let path = &record.image.path;
    let Some(memory) = template::memory(path) else {
        return Ok(());
    };
    if !disk_state::has_k3s_preinstalled(record)
        || Suspended::exists(project)
        || !image::is_fresh(&disk, record.disk)
    {
        return Ok(());
    }
    let suspended = Suspended {
        schema: Suspended::schema(),
        since: SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .as_secs(),
        disk: FileStamp::of(&disk)?,
        memory,
        from: Some(template::memory_path(path)),
    };
    let accelerator = startup.host.accelerator(startup.spec.accel).await?;
    match compatibility::incompatibility(startup, record, &suspended, accelerator)? {
        None => suspended.save(project)?,
        Some(reason) => {
            tracing::info!("booting the guest instead of resuming a template: {reason}")
        }
    }
    Ok(())
}

/// Publishes the disk of this VM for all VMs, with the memory. A failure is only logged.
pub(crate) async fn publish(record: &Record, taken: CapturedMemory, identity: Option<Identity>) {
    let path = record.image.path.clone();
    let memory = match taken {
        Some(origin) => save::sealed(template::memory_path(&path), origin)
            .await
            .map(Some),
        None => Ok(None),
    };
    let published = match memory {
        Ok(memory) => spawn_blocking(move || template::publish(&path, memory, identity))
            .await
            .expect("neither panics nor is cancelled")
            .map_err(MachineError::from),
        Err(error) => Err(error),
    };
    match published {
        Ok(()) => tracing::debug!("published the disk as a template"),
        Err(error) => tracing::debug!(%error, "the disk is not published as a template"),
    }
}
