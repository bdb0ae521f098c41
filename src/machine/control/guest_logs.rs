//! The guest's logs, its console and its stage reports: in files while a command waits for the guest, else in QEMU's
//! memory. There a guest that floods overwrites its own lines instead of filling the host's disk.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use qapi::qmp;
use tokio::net::UnixStream;

use crate::{
    base::{FileError, files, log_cap},
    machine::MachineError,
    project::Project,
    qemu::{Monitor, MonitorError, command_line, monitor_of},
};

/// The end of each log that QEMU keeps, in bytes; a power of two.
const KEPT: i64 = 1 << 20;

/// The backend of the log in memory, as `query-chardev` names it.
const RING: &str = "ringbuf";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Files,
    Memory,
    AsItIs,
}

/// Does `work` and limits the log files meanwhile.
pub(crate) async fn capped<T>(project: &Project, work: impl Future<Output = T>) -> T {
    log_cap::capped(&[&project.console_log(), &project.stages_log()], work).await
}

/// Does `work` while QEMU writes to the log files, which are limited.
pub(crate) async fn in_files<T>(project: &Project, work: impl Future<Output = T>) -> T {
    to_files(project).await;
    let result = capped(project, work).await;
    to_memory(project).await;
    result
}

/// Makes QEMU write to the files.
pub(crate) async fn to_files(project: &Project) {
    keep(project, Place::Files).await;
}

/// Makes QEMU keep the end of each log in its memory.
pub(crate) async fn to_memory(project: &Project) {
    keep(project, Place::Memory).await;
}

/// Adds the logs in QEMU's memory to the files.
pub async fn collect(project: &Project) {
    keep(project, Place::AsItIs).await;
}

/// A failure to write a log is ignored.
async fn keep(project: &Project, place: Place) {
    if let Err(error) = try_to_keep(project, place).await {
        tracing::debug!(%error, "the guest's logs stay where they are");
    }
}

async fn try_to_keep(project: &Project, place: Place) -> Result<(), MachineError> {
    let mut monitor = monitor_of(project).await?;
    let known = monitor.execute(qmp::query_chardev {}).await?;
    for (log, file) in [
        (command_line::CONSOLE, project.console_log()),
        (command_line::STAGES, project.stages_log()),
    ] {
        let in_memory = known
            .iter()
            .any(|it| it.label == log && it.filename == RING);
        if in_memory && place != Place::Memory {
            collect_one(&mut monitor, log, &file).await?;
        }
        let backend = match (place, in_memory) {
            (Place::Files, true) => file_backend(&file),
            (Place::Memory, false) => ring_backend(),
            _ => continue,
        };
        monitor
            .execute(qmp::chardev_change {
                id: log.to_owned(),
                backend,
            })
            .await?;
    }
    Ok(())
}

async fn collect_one(
    monitor: &mut Monitor<UnixStream>,
    log: &str,
    path: &Path,
) -> Result<(), MachineError> {
    // One command at a time, so that their parts do not mix.
    let turn = files::open_in_place(path, false)?;
    turn.lock().map_err(FileError::on("lock", path))?;
    let kept = monitor
        .execute(qmp::ringbuf_read {
            device: log.to_owned(),
            size: KEPT,
            format: Some(qmp::DataFormat::base64),
        })
        .await?;
    let bytes = STANDARD
        .decode(kept)
        .map_err(|error| MonitorError::Malformed {
            command: "ringbuf-read".to_owned(),
            reason: error.to_string(),
        })?;
    Ok(log_cap::append(path, &bytes).map_err(FileError::on("append to", path))?)
}

fn file_backend(path: &Path) -> qmp::ChardevBackend {
    let file = qmp::ChardevFile {
        base: plain(),
        append: Some(true),
        in_: None,
        out: path.to_string_lossy().into_owned(),
    };
    qmp::ChardevBackend::file(file.into())
}

fn ring_backend() -> qmp::ChardevBackend {
    let ring = qmp::ChardevRingbuf {
        base: plain(),
        size: Some(KEPT),
    };
    qmp::ChardevBackend::ringbuf(ring.into())
}

const fn plain() -> qmp::ChardevCommon {
    qmp::ChardevCommon {
        logappend: None,
        logfile: None,
    }
}
