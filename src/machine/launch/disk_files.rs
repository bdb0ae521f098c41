//! The files of a VM: keys, disk, seed. Each is created atomically when it is missing.

use std::{fs, path::Path};

use crate::{
    base::{
        FileError,
        files::{self, PRIVATE},
        trust,
    },
    guest::exec_channel,
    machine::MachineError,
    project::Project,
    qemu::firmware::Uefi,
};

/// Creates the disk with this content if it is missing.
///
/// # Errors
///
/// When it cannot be written.
pub fn ensure_disk(project: &Project, overlay: &[u8]) -> Result<(), MachineError> {
    let disk = project.disk();
    if disk.exists() {
        return Ok(());
    }
    Ok(files::write(&disk, overlay, PRIVATE)?)
}

/// The host's UEFI firmware, with the VM's own variables.
///
/// # Errors
///
/// When the host has no UEFI firmware or the variables cannot be copied.
pub fn ensure_uefi(project: &Project, qemu: &Path) -> Result<Uefi, MachineError> {
    let found = crate::qemu::firmware::find_uefi(qemu).ok_or(MachineError::NoUefi)?;
    let variables = project.uefi_variables();
    let template = files::read(&found.variables)?;
    // QEMU cannot use a truncated copy, and a fresh one boots as well.
    let length = fs::metadata(&variables).map_or(0, |it| it.len());
    if length != template.len() as u64 {
        files::write(&variables, &template, PRIVATE)?;
    }
    Ok(Uefi {
        code: found.code,
        variables,
    })
}

/// Creates the logs of a new start, empty and private before QEMU opens them, and the directory of the sockets.
///
/// # Errors
///
/// When they cannot be made, or the runtime directory is not the user's own.
pub fn prepare_start(project: &Project) -> Result<(), MachineError> {
    for log in [
        project.console_log(),
        project.stages_log(),
        project.qemu_log(),
    ] {
        files::open_in_place(&log, true)?;
    }
    prepare_runtime(project)
}

/// Creates the directory of the sockets only: a resumed guest appends to its logs.
///
/// # Errors
///
/// Those of [`prepare_start`].
pub fn prepare_runtime(project: &Project) -> Result<(), MachineError> {
    // QEMU would write its process id through a link; no QEMU runs now.
    files::remove_if_exists(&project.pidfile())?;
    project.ensure_id()?;
    let runtime = project.runtime();
    let base = runtime.parent().unwrap_or(&runtime);
    // Nothing is created in a directory before its owner is checked.
    files::create_private_dir(base)?;
    trust::require_private_dir(base)?;
    files::create_private_dir(&runtime)?;
    Ok(exec_channel::make(&project.exec_socket())?)
}

/// The links in `.k3s-vm/bin/` that make this program kubectl and k9s.
///
/// # Errors
///
/// When they cannot be made.
pub fn ensure_links(project: &Project, program: &Path) -> Result<(), MachineError> {
    let bin = project.bin();
    trust::own_private_dir(&bin)?;
    for name in ["kubectl", "k9s"] {
        let link = bin.join(name);
        if fs::read_link(&link).ok().as_deref() != Some(program) {
            files::remove_if_exists(&link)?;
            std::os::unix::fs::symlink(program, &link).map_err(FileError::on("link", &link))?;
        }
    }
    Ok(())
}
