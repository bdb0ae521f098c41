//! Prepared disks, as a machine meets them: its own disk stands on one, or it makes one on its way.
//!
//! A machine that makes one has from its beginning two files: the disk to be, in the cache, and its own disk, an empty
//! overlay on it. QEMU is begun on the former. When the guest says that it holds what all machines have in common, the
//! overlay is put under the running machine, and from then on it takes what is written. So the machine's own disk is right
//! at every moment, whoever dies in it; and what nobody has seen to its end is never published.

use std::path::{Path, PathBuf};

use qapi::qmp;
use serde_json::json;

use super::{Machine, MachineError, assets::Assets, cached, make, setup::FIRST_SPACE};
use crate::{
    base::{
        Digest, FileError,
        files::{self, PRIVATE, free_space},
    },
    guest::{Stage, StageLog},
    image::{self, BaseImage, Cache, Format, Prepared, prepared},
    project::{Project, Record},
    qemu::{Monitor, command_line},
};

/// To be raised when disks that an older program has prepared will not do.
const SCHEMA: u32 = 1;
/// QEMU's name of the overlay that is put under a running machine.
const OVERLAY: &str = "own-disk";

/// The image that a new machine's disk is to stand on: a prepared disk, one that is to be, or the base image itself.
pub(super) fn ground(
    machine: &Machine,
    assets: &Assets,
    record: &Record,
    unfinished: bool,
) -> BaseImage {
    let on = |path: PathBuf| BaseImage {
        path,
        format: Format::Qcow2,
        ..assets.image.clone()
    };
    let begun = &record.image.path;
    if unfinished && machine.project.disk().exists() && begun.exists() {
        return match prepared::look(begun) {
            None => assets.image.clone(),
            Some(_) => on(begun.clone()),
        };
    }
    let cache = Cache::new(machine.cache.clone());
    let key = key(assets, &record.firmware);
    if let Some(path) = cache.find_prepared(&key) {
        tracing::info!("the disk is prepared already");
        return on(path);
    }
    on(cache.new_prepared(&key, &record.uuid))
}

/// Makes the disk that is to be prepared, where there is one to be; `false` where the cache has no place for it. Others would
/// have been quicker for it, and this machine does without.
///
/// # Errors
///
/// When it cannot be written to a cache that can be written.
pub(super) fn begin(image: &BaseImage, record: &Record) -> Result<bool, MachineError> {
    let path = &record.image.path;
    if prepared::look(path) != Some(Prepared::Private) || path.exists() {
        return Ok(true);
    }
    let whole = image::plan(image, record.disk)?;
    let folder = path.parent().unwrap_or(path);
    let written = files::create_private_dir(folder).and_then(|()| {
        if free_space(folder)?.bytes < FIRST_SPACE {
            return Ok(false);
        }
        files::write(path, &whole, PRIVATE)?;
        Ok(true)
    });
    match written {
        Err(error) if error.is_forbidden() => Ok(false),
        result => Ok(result?),
    }
}

/// Removes the disk in the cache that only this machine has written to, unless a copy of its project needs it, too.
///
/// # Errors
///
/// When it cannot be removed.
pub(super) fn discard(machine: &Machine, record: &Record) -> Result<(), MachineError> {
    let path = &record.image.path;
    if prepared::look(path) == Some(Prepared::Private) && !cached::others_need(machine, path) {
        files::remove_if_exists(path)?;
    }
    Ok(())
}

/// By what shaped it.
fn key(assets: &Assets, firmware: &str) -> Digest {
    // A file of a release lies under its digest.
    let release = |path: &Path| path.parent().map(|it| it.to_string_lossy().into_owned());
    let shaped = json!([
        SCHEMA,
        assets.image.digest,
        assets.version.to_string(),
        release(&assets.binary),
        assets.airgap.as_deref().map(release),
        firmware,
        make::generic(),
    ]);
    Digest::of(shaped.to_string().as_bytes())
}

/// Whether the guest finds k3s on its disk already.
pub(super) fn is_given(record: &Record) -> bool {
    prepared::look(&record.image.path) == Some(Prepared::Published)
}

/// Whether the machine is to be begun on the disk in the cache: it is its own, and its overlay has taken nothing yet.
pub(super) fn is_due(project: &Project, record: &Record) -> bool {
    !record.provisioned
        && prepared::look(&record.image.path) == Some(Prepared::Private)
        && image::is_fresh(&project.disk(), record.disk)
}

/// The guest waits with a disk that holds what all machines have in common: what it writes from now on goes to its own
/// overlay. Whether that disk can be published.
///
/// # Errors
///
/// When QEMU does not do as it is told; the machine goes on then as it was.
pub(super) async fn take(project: &Project) -> Result<bool, MachineError> {
    let mut monitor = Monitor::connect(&project.monitor_socket()).await?;
    // While it is paused it cannot go on by itself, and what it has said until then is all.
    monitor.execute(qmp::stop {}).await?;
    let taken = put_overlay(project, &mut monitor).await;
    monitor.execute(qmp::cont {}).await?;
    let word = project.runtime().join("word");
    files::write(&word, b"go\n", PRIVATE)?;
    let backend = qmp::ChardevFile {
        base: qmp::ChardevCommon {
            logappend: None,
            logfile: None,
        },
        append: None,
        in_: Some(word.to_string_lossy().into_owned()),
        out: "/dev/null".to_owned(),
    };
    let said = monitor
        .execute(qmp::chardev_change {
            id: command_line::WORDS.to_owned(),
            backend: qmp::ChardevBackend::file(backend.into()),
        })
        .await;
    files::remove_if_exists(&word)?;
    said?;
    taken
}

async fn put_overlay<S>(project: &Project, monitor: &mut Monitor<S>) -> Result<bool, MachineError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let path = project.stages_log();
    let reports = StageLog::new(path.clone())
        .poll()
        .map_err(FileError::on("read", &path))?;
    if reports.last().is_none_or(|it| it.stage != Stage::Prepared) {
        return Ok(false);
    }
    let mut overlay = command_line::overlay(OVERLAY, &project.disk());
    // It names its backing file, and is to have the node that is open already.
    overlay["backing"] = serde_json::Value::Null;
    monitor.raw("blockdev-add", overlay).await?;
    let snapshot = json!({ "node": command_line::DISK, "overlay": OVERLAY });
    monitor.raw("blockdev-snapshot", snapshot).await?;
    Ok(true)
}

/// Offers the disk that this machine has made to all machines. That it cannot is no reason to fail.
pub(super) async fn publish(record: &Record) {
    let path = record.image.path.clone();
    let published = tokio::task::spawn_blocking(move || prepared::publish(&path)).await;
    match published
        .map_err(|error| error.to_string())
        .and_then(|it| it.map_err(|error| error.to_string()))
    {
        Ok(()) => tracing::debug!("the disk is prepared for other machines"),
        Err(error) => tracing::debug!(error, "the disk stays this machine's own"),
    }
}
