//! What every step of a start needs.

use std::time::Instant;

use crate::{
    machine::{Limits, Machine, Spec, model::host::Host},
    project::Project,
    qemu::Accelerator,
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
    /// When the first launch began; the time limit is one for all of them.
    pub(crate) began: Instant,
}

impl<'a> Startup<'a> {
    /// The files of the VM's project.
    pub(crate) fn project(self) -> &'a Project {
        &self.machine.project
    }

    /// The limits of the whole start, if its guest runs by `accelerator`.
    pub(crate) fn limits(self, accelerator: Accelerator) -> Limits {
        Limits::since(self.began, accelerator, self.spec.timeout)
    }
}
