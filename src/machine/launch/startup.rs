//! The inputs of every step of a start, and the result of a launch.

use std::time::Instant;

use crate::{
    machine::{Limits, Machine, Spec, model::host::Host},
    project::{Project, Record, suspended::MachineAbi},
    qemu::{Accelerator, Process},
};

/// The VM that is started, its host, and the resolved choices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Startup<'a> {
    /// The VM, locked.
    pub(crate) machine: &'a Machine,
    /// QEMU and the host's resources.
    pub(crate) host: &'a Host,
    /// The resolved choices.
    pub(crate) spec: &'a Spec,
    /// The time of the first launch; one limit applies to all launches.
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
    /// The VM's record, with the current API port and disk size.
    pub(crate) record: Record,
    /// Its QEMU.
    pub(crate) process: Process,
    /// The accelerator of the guest.
    pub(crate) accelerator: Accelerator,
    /// The limits of its start.
    pub(crate) limits: Limits,
    /// The memory captured before the guest received its identity, to be published when the VM is ready.
    pub(crate) captured: Option<CapturedMemory>,
}

/// QEMU and its command line when memory was captured; `None` where only the disk was.
pub(crate) type CapturedMemory = Option<MachineAbi>;
