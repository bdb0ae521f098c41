//! Captures a template during a setup.
//!
//! A VM that creates a template has two files from the beginning: the template's disk in the cache, and its own disk, an
//! empty overlay on it. QEMU boots the former. When the guest reports its common state, the overlay is inserted below the
//! running VM and receives all later writes. So the VM's own disk is right at every moment, even if setup or QEMU is killed,
//! and an incomplete capture is never published.
//!
//! The guest's memory is saved at the same moment. A new VM starts like one that was suspended then: it continues from there
//! without a boot. In both, the guest has no identity until the host sends it.

use qapi::qmp;
use serde_json::json;
use tokio::net::UnixStream;

use crate::{
    base::{
        FileError, Size,
        files::{self},
    },
    guest::{Stage, StageLog},
    image::template,
    machine::{
        MachineError,
        launch::{CapturedMemory, disk_state::FIRST_SPACE},
        memory::save,
    },
    project::{Project, Record},
    qemu::{Monitor, Process, command_line, monitor_of},
};

/// QEMU's name of the overlay that is inserted below a running VM.
const OVERLAY: &str = "own-disk";

/// Captures a guest that has its common state: later writes go to its own overlay. Returns the memory's surroundings,
/// if the disk can be published.
///
/// # Errors
///
/// When QEMU refuses a command; the VM continues then as it was.
pub(crate) async fn capture(
    project: &Project,
    record: &Record,
    process: &Process,
) -> Result<Option<CapturedMemory>, MachineError> {
    let mut monitor = monitor_of(project).await?;
    // While it is paused it reports nothing, so all of its reports are read.
    monitor.execute(qmp::stop {}).await?;
    let taken = match waits(project) {
        Ok(true) => {
            let taken = pivot_to_overlay(project, record, &mut monitor, process).await;
            taken.map(Some)
        }
        Ok(false) => Ok(None),
        Err(error) => Err(error.into()),
    };
    monitor.execute(qmp::cont {}).await?;
    taken
}

pub(crate) fn waits(project: &Project) -> Result<bool, FileError> {
    let path = project.stages_log();
    let reports = StageLog::new(path.clone())
        .poll()
        .map_err(FileError::on("read", &path))?;
    Ok(reports.last().is_some_and(|it| it.stage == Stage::Prepared))
}

/// Saves the paused guest's memory beside the disk. Without it, other VMs boot from the disk.
async fn save_template_memory(
    record: &Record,
    monitor: &mut Monitor<UnixStream>,
    process: &Process,
) -> CapturedMemory {
    let path = template::memory_path(&record.image.path);
    let saved = async {
        let origin = save::origin(monitor, process).await?;
        let needed = save::needed(monitor, process).await?;
        let folder = path.parent().unwrap_or(&path);
        // The VM's own disk still grows.
        let room = Size::bytes(needed.as_bytes() + FIRST_SPACE.as_bytes());
        save::require_room(folder, room, Size::bytes(0))?;
        let file = files::open_in_place(&path, true)?;
        save::write(monitor, &origin, &path, &file, needed).await?;
        Ok::<_, MachineError>(origin)
    };
    match saved.await {
        Ok(origin) => Some(origin),
        Err(error) => {
            tracing::debug!(%error, "the guest's memory is not kept for others");
            let _ = files::remove_if_exists(&path);
            None
        }
    }
}

/// Pivots a paused guest to the VM's own overlay, and saves its memory.
///
/// # Errors
///
/// When QEMU refuses.
pub(crate) async fn pivot_to_overlay(
    project: &Project,
    record: &Record,
    monitor: &mut Monitor<UnixStream>,
    process: &Process,
) -> Result<CapturedMemory, MachineError> {
    let mut overlay = command_line::overlay(OVERLAY, &project.disk());
    // Its header names its backing file, but QEMU uses the node that is open.
    overlay["backing"] = serde_json::Value::Null;
    monitor.raw("blockdev-add", overlay).await?;
    let snapshot = json!({ "node": command_line::DISK, "overlay": OVERLAY });
    monitor.raw("blockdev-snapshot", snapshot).await?;
    Ok(save_template_memory(record, monitor, process).await)
}
