//! Checks whether saved memory fits this host, this QEMU and this configuration.

use std::fs::{self};

use crate::{
    machine::{
        MachineError,
        guest_config::config_archive,
        launch::{Startup, inputs::LaunchInputs, plan},
        model::host::{self, Host},
    },
    project::{
        Record, Suspended,
        suspended::{FileStamp, MachineAbi},
    },
    qemu::{Accelerator, guest_abi, version},
};

/// The first difference since the save, in words.
///
/// # Errors
///
/// When QEMU does not tell its version.
pub(crate) fn difference(
    host: &Host,
    then: &MachineAbi,
    now: &[String],
) -> Result<Option<String>, MachineError> {
    let qemu = version::full(&host.qemu)?;
    if qemu != then.qemu {
        return Ok(Some(format!("QEMU was {} and is {qemu}", then.qemu)));
    }
    if let Some(difference) = guest_abi::difference(&then.arguments, now) {
        return Ok(Some(format!("it was started differently: {difference}")));
    }
    if host::processor(now) != then.processor {
        return Ok(Some("this host has another CPU".to_owned()));
    }
    Ok(None)
}

/// The reason why the memory is unusable, in words, without reading it.
///
/// # Errors
///
/// When something cannot be looked at.
pub(crate) fn incompatibility(
    startup: Startup<'_>,
    record: &Record,
    suspended: &Suspended,
    accelerator: Accelerator,
) -> Result<Option<String>, MachineError> {
    let Startup { host, spec, .. } = startup;
    let project = startup.project();
    let inputs = LaunchInputs::prepare(startup, record, Some(suspended))?;
    let launch = plan::plan(startup, record, accelerator, inputs);
    // A missing seed is created again.
    let seed = project.seed();
    let mut disks = launch.attachments.iter().map(|it| &it.file);
    if let Some(disk) = disks.find(|it| !it.exists() && **it != seed) {
        return Ok(Some(format!("{} is missing", disk.display())));
    }
    let memory = &suspended.memory;
    let arguments = launch.arguments().into_iter();
    let now = guest_abi::guest_abi(arguments.filter_map(|it| it.into_string().ok()));
    if let Some(difference) = difference(host, &memory.origin, &now)? {
        return Ok(Some(difference));
    }
    if FileStamp::of(&project.disk())? != suspended.disk {
        return Ok(Some("its disk has changed since".to_owned()));
    }
    if suspended.from.is_none() && config_archive::config_changed(project, spec, record)? {
        return Ok(Some("its configuration has changed".to_owned()));
    }
    let path = suspended.path(project);
    Ok(match fs::metadata(&path) {
        Err(_) => Some(format!("{} is missing", path.display())),
        Ok(it) if it.len() != memory.length => {
            Some(format!("{} has another length", path.display()))
        }
        Ok(_) => None,
    })
}
