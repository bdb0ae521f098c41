//! `stop --suspend`: saves memory and devices to a file of the project, and ends QEMU.
//!
//! A VM is suspended while `suspended.json` exists (see [`Suspended`]). The file is written after everything else is on
//! disk, and removed before the guest runs again. So with the file the guest has not run since, whatever was interrupted,
//! and a QEMU that is left can be ended. Without it, the guest continues in its QEMU.

use std::time::SystemTime;

use crate::{
    base::{Size, files},
    machine::{
        Machine, MachineError,
        control::{
            guest,
            terminate::{self, END_TIMEOUT},
            vcpu,
        },
        memory::save,
    },
    project::{Record, Suspended, suspended::FileStamp},
    qemu::{Process, monitor_of},
};

/// Suspends a running VM. QEMU still runs, with a paused guest.
///
/// # Errors
///
/// The first step that fails; [`Machine::cleanup_on_failure`] then continues the guest.
pub(crate) async fn suspend(
    machine: &Machine,
    record: &Record,
    process: &Process,
) -> Result<(), MachineError> {
    if !record.provisioned {
        return Err(MachineError::Unfinished(record.name.clone()));
    }
    match save(machine, record, process).await {
        Err(MachineError::Monitor(_)) if process.ended_within(END_TIMEOUT).await => {
            // The guest is saved, and must not continue.
            machine.keep_qemu();
            terminate::clear(&machine.project)?;
            files::remove_if_exists(&machine.project.memory())?;
            Err(MachineError::QemuEnded {
                during: "the saving of its memory".to_owned(),
            })
        }
        result => result,
    }
}

async fn save(machine: &Machine, record: &Record, process: &Process) -> Result<(), MachineError> {
    let project = &machine.project;
    vcpu::unpause(project).await?;
    tracing::info!("suspending {}", record.name);
    guest::sync(project).await;
    let mut monitor = monitor_of(project).await?;
    let origin = save::origin(&mut monitor, process).await?;
    let needed = save::needed(&mut monitor, process).await?;
    save::require_room(&project.directory(), needed, Size::bytes(0))?;

    let path = project.memory();
    files::remove_if_exists(&path)?;
    let file = files::open_in_place(&path, true)?;
    machine.mark_paused();
    vcpu::pause(&mut monitor).await?;
    tracing::info!("saving the memory ({} in use)", needed.approximate());
    save::write(&mut monitor, &origin, &path, &file, needed).await?;
    let memory = save::sealed(path, origin).await?;
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let suspended = Suspended {
        schema: Suspended::schema(),
        since: now.as_secs(),
        disk: FileStamp::of(&project.disk())?,
        memory,
        from: None,
    };
    suspended.save(project)?;
    machine.keep_qemu();
    Ok(())
}
