//! All checks that can refuse a command, before anything is written, downloaded or started.

use crate::{
    base::{Name, files::free_space},
    machine::{
        Machine, MachineError, Spec,
        access::kubeconfig,
        guest_config::{config_archive, mounts},
        launch::{Startup, disk_state::FIRST_SPACE},
        model::host,
    },
    project::seal,
};

/// Checks the choices for the VM `name` against this host.
///
/// # Errors
///
/// The first choice that cannot be met: the user's key, the kubeconfig's place, the memory, the API's port, a mount, a
/// file that the guest's configuration is made of.
pub(crate) fn require(startup: Startup<'_>, name: &Name) -> Result<(), MachineError> {
    let spec = startup.spec;
    seal::require_key(&startup.project().record())?;
    host::check_memory(spec.memory)?;
    host::api_port(spec.api_port, None)?;
    require_choices(startup.machine, spec, name)
}

/// Checks what the choices name: the amount of memory, the kubeconfig's path, a CPU model, mounts, files of the guest's
/// configuration.
///
/// # Errors
///
/// The first one that cannot be used.
pub(crate) fn require_choices(
    machine: &Machine,
    spec: &Spec,
    name: &Name,
) -> Result<(), MachineError> {
    let project = &machine.project;
    host::require_memory(spec.memory)?;
    host::check_cpu_model(spec.cpu_model.as_deref(), spec.accel)?;
    kubeconfig::check_place(project, &spec.kubeconfig, name)?;
    config_archive::archive(project, spec, name)?;
    mounts::host_shares(machine, spec)?;
    Ok(())
}

/// Checks that the project's file system has space for a new VM.
///
/// # Errors
///
/// [`MachineError::Space`] when it has not.
pub(crate) fn require_space(machine: &Machine) -> Result<(), MachineError> {
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
