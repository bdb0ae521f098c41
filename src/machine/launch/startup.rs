//! What every step of a start needs.

use crate::{
    machine::{Machine, Spec, model::host::Host},
    project::Project,
};

/// The VM that is started, the host that it starts on, and the choices that hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Startup<'a> {
    /// The VM, locked.
    pub(crate) machine: &'a Machine,
    /// QEMU and what the host offers it.
    pub(crate) host: &'a Host,
    /// The resolved choices.
    pub(crate) spec: &'a Spec,
}

impl<'a> Startup<'a> {
    /// The files of the VM's project.
    pub(crate) fn project(self) -> &'a Project {
        &self.machine.project
    }
}
