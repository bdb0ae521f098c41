//! `reset`: deletes the VM; the config and the shared cache are kept.

use std::fs;

use crate::{
    base::{FileError, files},
    guest::exec_channel,
    machine::{
        Machine, MachineError, State, access::kubeconfig, cache::references, control::terminate,
        lifecycle::autostart, template::backing,
    },
    project::Project,
};

/// Stops the VM and deletes it. The record is deleted last, so that an interrupted reset can be run again.
///
/// # Errors
///
/// When QEMU cannot be ended or a file cannot be removed.
pub async fn reset(machine: &Machine) -> Result<(), MachineError> {
    let project = &machine.project;
    // A VM can be deleted even if its record cannot be read.
    match machine.state() {
        Ok(State::Running(record, process)) => {
            terminate::end(project, &process).await?;
            kubeconfig::remove(project, &record.kubeconfig, &record.name)?;
            backing::discard(machine, &record)?;
        }
        Ok(State::Stopped(record)) => {
            backing::discard(machine, &record)?;
            kubeconfig::remove(project, &record.kubeconfig, &record.name)?;
        }
        Ok(State::Absent) | Err(MachineError::Record(_) | MachineError::Unrecorded { .. }) => {
            if let Some(process) = crate::qemu::Process::holder(&project.pidfile())? {
                terminate::end(project, &process).await?;
            }
        }
        Err(error) => return Err(error),
    }
    if let Err(error) = autostart::off(project) {
        tracing::warn!(%error, "cannot remove the VM's systemd unit");
    }
    remove_files(project)?;
    references::unregister(machine);
    Ok(())
}

/// Deletes the VM's directory again if it was created for this command, which was refused.
pub(crate) fn remove_traces(machine: &Machine) {
    let Some(made) = machine.bare_directory() else {
        return;
    };
    if references::is_registered(machine) {
        return;
    }
    if let Err(error) = fs::remove_dir_all(&made) {
        tracing::debug!(%error, "{} stays", made.display());
    }
}

fn remove_files(project: &Project) -> Result<(), MachineError> {
    let keep = [
        project.config(),
        project.approved(),
        project.lock(),
        project.id(),
        project.record(),
        project.own_directory().join(".gitignore"),
        project.machines(),
    ];
    let directory = project.directory();
    let entries = fs::read_dir(&directory).map_err(FileError::on("list", &directory))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if keep.contains(&path) {
            continue;
        }
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        };
        removed.map_err(FileError::on("remove", &path))?;
    }
    files::remove_if_exists(&project.monitor_socket())?;
    exec_channel::remove(&project.exec_socket())?;
    let _ = fs::remove_dir(project.runtime());
    files::remove_if_exists(&project.record())?;
    Ok(files::sync_directory(&directory)?)
}
