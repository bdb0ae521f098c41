//! `restart`, `pause` and `resume`.

use std::time::Duration;

use crate::{
    machine::{
        Machine, MachineError, State,
        control::vcpu,
        lifecycle::{
            setup::{self, Summary},
            stop::{self, StopMode},
        },
        recover::interrupted,
    },
    project::{Config, Suspended},
    qemu::monitor_of,
};

/// Shuts the guest down, or ends QEMU, and boots it. A stopped VM is booted. The API keeps its port, unless another
/// program uses it in between.
///
/// # Errors
///
/// [`MachineError::Suspended`] when there is memory that would be lost; else those of [`stop::stop`] and
/// [`setup::start`].
pub async fn restart(
    machine: &Machine,
    force: bool,
    within: Option<Duration>,
    flags: Config,
) -> Result<Summary, MachineError> {
    match interrupted::recover_interrupted(machine).await? {
        State::Stopped(record) if Suspended::holds(&machine.project, &record) => {
            return Err(MachineError::Suspended(record.name));
        }
        State::Running(..) => {
            let way = if force {
                StopMode::Force
            } else {
                StopMode::PowerOff
            };
            stop::stop(machine, way, within).await?;
        }
        State::Absent | State::Stopped(_) => {}
    }
    setup::start(machine, flags, false).await
}

/// Pauses the guest. Its memory stays in QEMU. Returns `true` if it ran before.
///
/// # Errors
///
/// When the VM does not run, or QEMU refuses.
pub async fn pause(machine: &Machine) -> Result<bool, MachineError> {
    let project = &machine.project;
    interrupted::recover_interrupted(machine)
        .await?
        .running(project)?;
    if vcpu::is_paused(project).await? {
        return Ok(false);
    }
    let mut monitor = monitor_of(project).await?;
    vcpu::pause(&mut monitor).await?;
    Ok(true)
}

/// Continues a paused or suspended guest, and waits until its node is Ready.
///
/// # Errors
///
/// [`MachineError::Stopped`] when the VM is stopped; else those of [`setup::start`].
pub async fn resume(machine: &Machine, flags: Config) -> Result<Summary, MachineError> {
    let project = &machine.project;
    match interrupted::recover_interrupted(machine).await? {
        State::Stopped(record) if !Suspended::holds(project, &record) => {
            Err(MachineError::Stopped(record.name))
        }
        _ => setup::start(machine, flags, false).await,
    }
}
