//! Prepared disks, as a machine meets them: its own disk stands on one, or it makes one on its way.
//!
//! A machine that makes one has from its beginning two files: the disk to be, in the cache, and its own disk, an empty
//! overlay on it. QEMU is begun on the former. When the guest says that it holds what all machines have in common, the
//! overlay is put under the running machine, and from then on it takes what is written. So the machine's own disk is right
//! at every moment, whoever dies in it; and what nobody has seen to its end is never published.
//!
//! At that moment the guest's memory is saved, too. A new machine begins as one that was suspended then, so that it boots
//! nothing and goes on from there. In both the guest does not know who it is until the host [`tell`]s it.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use qapi::qmp;
use serde_json::json;
use tokio::{net::UnixStream, task::spawn_blocking};

use super::{
    Machine, MachineError, Spec, assets::Assets, cached, host::Host, make, memory, restore,
    setup::FIRST_SPACE, template,
};
use crate::{
    base::{
        Digest, FileError, Size,
        files::{self, PRIVATE, free_space},
    },
    guest::{Stage, StageLog},
    image::{self, BaseImage, Cache, Format, Prepared, prepared},
    project::{
        Identity, Project, Record, Suspended,
        suspended::{Origin, Stamp},
    },
    qemu::{Monitor, Process, command_line, visible},
    seed::SeedFile,
};

/// To be raised when disks that an older program has prepared will not do.
const SCHEMA: u32 = 1;
/// QEMU's name of the overlay that is put under a running machine.
const OVERLAY: &str = "own-disk";

/// The image that a new machine's disk is to stand on: a prepared disk, one that is to be, or the base image itself.
///
/// # Errors
///
/// When the host does not tell what a template is to fit.
pub(super) async fn ground(
    machine: &Machine,
    host: &Host,
    spec: &Spec,
    assets: &Assets,
    record: &Record,
    unfinished: bool,
) -> Result<BaseImage, MachineError> {
    let on = |path: PathBuf| BaseImage {
        path,
        format: Format::Qcow2,
        ..assets.image.clone()
    };
    let begun = &record.image.path;
    if unfinished && machine.project.disk().exists() && begun.exists() {
        return Ok(match prepared::look(begun) {
            None => assets.image.clone(),
            Some(_) => on(begun.clone()),
        });
    }
    let cache = Cache::new(machine.cache.clone());
    let key = key(assets, &record.firmware);
    // QEMU saves no memory of a guest with folders of the host, and others want that with the disk.
    let prepares = spec.mounts.is_empty();
    if spec.share_identity {
        let key = template::key(machine, host, spec, &key).await?;
        let found = cache.find_prepared(&key);
        if found.is_none() && !prepares {
            return Ok(assets.image.clone());
        }
        return Ok(on(
            found.unwrap_or_else(|| cache.new_template(&key, &record.uuid))
        ));
    }
    if let Some(path) = cache.find_prepared(&key) {
        tracing::info!("the disk is prepared already");
        return Ok(on(path));
    }
    if !prepares {
        return Ok(assets.image.clone());
    }
    Ok(on(cache.new_prepared(&key, &record.uuid)))
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
        prepared::remove(path)?;
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

/// Whether the machine is to be begun on the disk in the cache: no guest has written to it, nor to the overlay on it.
pub(super) fn is_due(project: &Project, record: &Record) -> bool {
    let below = &record.image.path;
    !record.provisioned
        && prepared::look(below) == Some(Prepared::Private)
        && image::is_fresh(below, record.disk)
        && image::is_fresh(&project.disk(), record.disk)
}

/// Has a new machine on a published disk begin as if it had been suspended when the disk was made, if the host can have it go
/// on from there.
///
/// # Errors
///
/// When that cannot be noted.
pub(super) async fn begin_suspended(
    project: &Project,
    host: &Host,
    spec: &Spec,
    record: &Record,
) -> Result<(), MachineError> {
    let disk = project.disk();
    let path = &record.image.path;
    let Some(memory) = prepared::memory(path) else {
        return Ok(());
    };
    if !is_given(record) || Suspended::exists(project) || !image::is_fresh(&disk, record.disk) {
        return Ok(());
    }
    let suspended = Suspended {
        schema: Suspended::schema(),
        since: SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .as_secs(),
        disk: Stamp::of(&disk)?,
        memory,
        from: Some(prepared::memory_path(path)),
    };
    let accelerator = host.accelerator(spec.accel).await?;
    match restore::obstacle(project, host, spec, record, &suspended, accelerator)? {
        None => suspended.save(project)?,
        Some(reason) => tracing::info!("the guest boots, for its memory is not prepared: {reason}"),
    }
    Ok(())
}

/// Whether the guest that goes on like this, or boots when nothing was suspended, asks who it is.
pub(super) fn asks(project: &Project, record: &Record, suspended: Option<&Suspended>) -> bool {
    match suspended {
        // A template's guest knows from its beginning.
        None => is_due(project, record) && !prepared::is_template(&record.image.path),
        Some(it) => visible::has_port(&it.memory.origin.arguments, command_line::WORD_PORT),
    }
}

/// The guest waits with a disk and a memory that hold what all machines have in common: what it writes from now on goes to
/// its own overlay. What is to be known of the memory, if the disk can be published.
///
/// # Errors
///
/// When QEMU does not do as it is told; the machine goes on then as it was.
pub(super) async fn take(
    project: &Project,
    record: &Record,
    process: &Process,
) -> Result<Option<Taken>, MachineError> {
    let mut monitor = Monitor::connect(&project.monitor_socket()).await?;
    // While it is paused it cannot go on by itself, and what it has said until then is all.
    monitor.execute(qmp::stop {}).await?;
    let taken = match waits(project) {
        Ok(true) => {
            let taken = put_overlay(project, record, &mut monitor, process).await;
            taken.map(Some)
        }
        Ok(false) => Ok(None),
        Err(error) => Err(error.into()),
    };
    monitor.execute(qmp::cont {}).await?;
    taken
}

fn waits(project: &Project) -> Result<bool, FileError> {
    let path = project.stages_log();
    let reports = StageLog::new(path.clone())
        .poll()
        .map_err(FileError::on("read", &path))?;
    Ok(reports.last().is_some_and(|it| it.stage == Stage::Prepared))
}

/// What was taken: the disk for certain, and perhaps the memory.
pub(super) type Taken = Option<Origin>;

/// Saves the paused guest's memory beside the disk. Others boot where that cannot be.
async fn keep_memory(
    record: &Record,
    monitor: &mut Monitor<UnixStream>,
    process: &Process,
) -> Taken {
    let path = prepared::memory_path(&record.image.path);
    let saved = async {
        let origin = memory::origin(monitor, process).await?;
        let needed = memory::needed(monitor, process).await?;
        let folder = path.parent().unwrap_or(&path);
        // The machine itself still grows.
        let room = Size::bytes(needed.as_bytes() + FIRST_SPACE.as_bytes());
        memory::require_room(folder, room, Size::bytes(0))?;
        let file = files::open_in_place(&path, true)?;
        memory::write(monitor, &origin, &path, &file, needed).await?;
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

/// Has a guest that goes on see its disk's size anew: the machine that it was had another disk.
///
/// # Errors
///
/// When QEMU does not do as it is told.
pub(super) async fn resize(project: &Project, record: &Record) -> Result<(), MachineError> {
    let mut monitor = Monitor::connect(&project.monitor_socket()).await?;
    let size = json!({ "node-name": command_line::DISK, "size": record.disk.as_bytes() });
    monitor.raw("block_resize", size).await?;
    Ok(())
}

/// Sends a guest that waits for it its identity, as a tar archive whose last file is `machine` (see prepare.sh).
///
/// # Errors
///
/// When a key cannot be read or QEMU does not pass it on.
pub(super) async fn tell(project: &Project, record: &Record) -> Result<(), MachineError> {
    let entropy: [u8; 64] = rand::random();
    let mut files = make::identity(project, record)?;
    files.push(SeedFile {
        name: "entropy",
        content: entropy.to_vec(),
    });
    files.sort_by_key(|file| file.name == "machine");
    let path = project.identity();
    files::write(&path, &archive(&files), PRIVATE)?;
    let backend = qmp::ChardevFile {
        base: qmp::ChardevCommon {
            logappend: None,
            logfile: None,
        },
        append: None,
        in_: Some(path.to_string_lossy().into_owned()),
        out: "/dev/null".to_owned(),
    };
    let mut monitor = Monitor::connect(&project.monitor_socket()).await?;
    let told = monitor
        .execute(qmp::chardev_change {
            id: command_line::WORDS.to_owned(),
            backend: qmp::ChardevBackend::file(backend.into()),
        })
        .await;
    files::remove_if_exists(&path)?;
    told?;
    Ok(())
}

fn archive(files: &[SeedFile]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let memory = "memory takes what is written to it";
    for SeedFile { name, content } in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(PRIVATE);
        builder
            .append_data(&mut header, name, content.as_slice())
            .expect(memory);
    }
    builder.into_inner().expect(memory)
}

/// Puts the machine's own overlay under a paused guest, and keeps its memory.
///
/// # Errors
///
/// When QEMU does not do as it is told.
pub(super) async fn put_overlay(
    project: &Project,
    record: &Record,
    monitor: &mut Monitor<UnixStream>,
    process: &Process,
) -> Result<Taken, MachineError> {
    let mut overlay = command_line::overlay(OVERLAY, &project.disk());
    // It names its backing file, and is to have the node that is open already.
    overlay["backing"] = serde_json::Value::Null;
    monitor.raw("blockdev-add", overlay).await?;
    let snapshot = json!({ "node": command_line::DISK, "overlay": OVERLAY });
    monitor.raw("blockdev-snapshot", snapshot).await?;
    Ok(keep_memory(record, monitor, process).await)
}

/// Offers the disk that this machine has made to all machines, with the memory. That it cannot is no reason to fail.
pub(super) async fn publish(record: &Record, taken: Taken, identity: Option<Identity>) {
    let path = record.image.path.clone();
    let memory = match taken {
        Some(origin) => memory::sealed(prepared::memory_path(&path), origin)
            .await
            .map(Some),
        None => Ok(None),
    };
    let published = match memory {
        Ok(memory) => spawn_blocking(move || prepared::publish(&path, memory, identity))
            .await
            .expect("neither panics nor is cancelled")
            .map_err(MachineError::from),
        Err(error) => Err(error),
    };
    match published {
        Ok(()) => tracing::debug!("the disk is prepared for other machines"),
        Err(error) => tracing::debug!(%error, "the disk stays this machine's own"),
    }
}
