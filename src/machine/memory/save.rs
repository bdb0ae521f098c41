//! Saves a guest's memory to a file: for a suspended VM, a snapshot or a template.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use qapi::qmp;
use tokio::net::UnixStream;

use crate::{
    base::{Size, files},
    machine::{
        MachineError,
        model::{
            host::{self},
            staging_dir,
        },
    },
    project::suspended::{MachineAbi, Memory},
    qemu::{Layout, MigrationError, Monitor, Process, Version, guest_abi, migration, version},
};

/// The reason why the memory of a VM with mounts cannot be saved.
pub const FOLDERS: &str = "it has mounts, which QEMU cannot save";

type QemuMonitor = Monitor<UnixStream>;

/// The QEMU and the command line that the memory belongs to.
///
/// # Errors
///
/// When QEMU does not tell.
pub(crate) async fn origin(
    monitor: &mut QemuMonitor,
    process: &Process,
) -> Result<MachineAbi, MachineError> {
    let arguments = guest_abi::guest_abi(process.arguments());
    let qemu = version::full_of(&monitor.execute(qmp::query_version {}).await?);
    if arguments.is_empty() || Version::of_full(&qemu).is_none() {
        let reason = format!("QEMU {qemu} does not tell what it runs with");
        return Err(MachineError::Suspend(reason));
    }
    if guest_abi::has_folder(&arguments) {
        return Err(MachineError::Suspend(FOLDERS.to_owned()));
    }
    Ok(MachineAbi {
        processor: host::processor(&arguments),
        qemu,
        arguments,
    })
}

/// The memory that the guest has touched; zero where the host does not tell.
///
/// # Errors
///
/// When QEMU does not answer.
pub(crate) async fn needed(
    monitor: &mut QemuMonitor,
    process: &Process,
) -> Result<Size, MachineError> {
    let memory = monitor.execute(qmp::query_memory_size_summary {}).await?;
    let memory = Size::bytes(memory.base_memory);
    Ok(process.resident(memory).unwrap_or(Size::bytes(0)))
}

/// Requires the space for a file in the directory. The space of `ours`, which is deleted, counts as free.
///
/// # Errors
///
/// [`MachineError::MemorySpace`] when there is not.
pub(crate) fn require_room(folder: &Path, needed: Size, ours: Size) -> Result<(), MachineError> {
    let free = files::free_space(folder)?.bytes;
    let free = Size::bytes(free.as_bytes() + ours.as_bytes());
    if free < needed {
        return Err(MachineError::MemorySpace {
            path: folder.to_owned(),
            free,
            needed,
        });
    }
    Ok(())
}

/// Writes the memory of a paused guest, of the given size, to the empty file at `path`.
///
/// # Errors
///
/// When it cannot be written: QEMU says only that, if that, and here it is said whether there was no room.
pub(crate) async fn write(
    monitor: &mut QemuMonitor,
    origin: &MachineAbi,
    path: &Path,
    file: &File,
    needed: Size,
) -> Result<(), MachineError> {
    let version = Version::of_full(&origin.qemu).expect("an origin has a version");
    match migration::save(monitor, Layout::of(version), path, file).await {
        Ok(()) => Ok(()),
        Err(MigrationError::Monitor(error)) => Err(error.into()),
        Err(MigrationError::Failed(reason)) => {
            let folder = path.parent().unwrap_or(path);
            match require_room(folder, needed, files::allocated(path)) {
                Err(full @ MachineError::MemorySpace { .. }) => Err(full),
                _ => Err(MachineError::Suspend(reason)),
            }
        }
    }
}

/// Flushes the file. Returns its length and checksum.
///
/// # Errors
///
/// When it cannot be read or flushed.
pub(crate) async fn sealed(path: PathBuf, origin: MachineAbi) -> Result<Memory, MachineError> {
    let (length, checksum) = staging_dir::flushed(path).await?;
    Ok(Memory {
        origin,
        length,
        checksum,
    })
}
