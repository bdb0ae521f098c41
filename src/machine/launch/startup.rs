//! What every step of a start needs, and what comes of a launch.

use std::time::Instant;

use crate::{
    machine::{Limits, Machine, Spec, model::host::Host},
    project::{Project, Record, suspended::MachineAbi},
    qemu::{Accelerator, Process},
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

/// A VM whose QEMU was launched, by this command or by an earlier one.
#[derive(Debug)]
pub(crate) struct Launched {
    /// The VM's record, with the API's port and the disk's size that it was launched with.
    pub(crate) record: Record,
    /// Its QEMU.
    pub(crate) process: Process,
    /// The accelerator of the guest.
    pub(crate) accelerator: Accelerator,
    /// The time that its start may take.
    pub(crate) limits: Limits,
    /// The memory captured before the guest received its identity, to be published when the VM is ready.
    pub(crate) captured: Option<CapturedMemory>,
}

/// QEMU and its command line when memory was captured; `None` where only the disk was.
pub(crate) type CapturedMemory = Option<MachineAbi>;
