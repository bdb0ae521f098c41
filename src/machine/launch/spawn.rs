//! Spawns QEMU, with another API port if another program took the first one.

use serde_json::json;

use crate::{
    base::Forward,
    machine::{
        Machine, MachineError, Spec,
        access::kubeconfig,
        guest_config::{cidata, config_archive},
        launch::{Launched, Startup, disk_state, inputs::LaunchInputs, plan},
        model::host,
    },
    project::{Project, Record, Suspended},
    qemu::{Accelerator, Process, ProcessError, command_line, monitor_of},
};

/// QEMU's message when a forwarded port is in use (net/slirp.c).
const PORT_TAKEN: &str = "Could not set up host forwarding rule";

const PORT_TRIES: usize = 10;

/// Launches QEMU, and resumes the guest if it was `suspended`. If another program uses the API's port by now, the VM
/// gets another one, unless the user chose the port.
///
/// # Errors
///
/// When QEMU does not start, or a file that it needs cannot be written.
pub(crate) async fn launch(
    startup: Startup<'_>,
    record: &Record,
    accelerator: Accelerator,
    suspended: Option<&Suspended>,
) -> Result<Launched, MachineError> {
    let Startup { machine, spec, .. } = startup;
    let limits = startup.limits(accelerator);
    let mut record = record.clone();
    let grows = suspended.is_none() && record.provisioned && spec.disk > record.disk;
    if grows {
        record.disk = spec.disk;
    }
    make_seed(machine, spec, &record, suspended)?;
    let mut failed = None;
    for _ in 0..PORT_TRIES {
        let inputs = LaunchInputs::prepare(startup, &record, suspended)?;
        let launch = plan::plan(startup, &record, accelerator, inputs);
        match Process::spawn(&startup.host.qemu, &launch, &machine.project.qemu_log()).await {
            Err(error) if !error.to_string().contains(PORT_TAKEN) => return Err(error.into()),
            Err(error) if spec.api_port.is_none() => {
                failed = Some(error);
                record.api_port = host::api_port(None, None)?;
                kubeconfig::announce(&machine.project, &record)?;
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
            Ok(process) => {
                if grows {
                    // Long before the guest reads its disk's size.
                    resize(&machine.project, &record).await?;
                    tracing::info!("growing the disk to {}", record.disk);
                }
                return Ok(Launched {
                    record,
                    process,
                    accelerator,
                    limits,
                    captured: None,
                });
            }
        }
    }
    Err(port_error(failed, record.api_port))
}

/// The error of a launch whose port is in use. QEMU prints the same when it may open no more files.
fn port_error(failed: Option<ProcessError>, port: u16) -> MachineError {
    match failed {
        Some(error) if host::check_port(Forward::tcp(port, 6443).host).is_ok() => error.into(),
        _ => MachineError::PortTaken { port },
    }
}

/// Writes the files that a booting guest reads. A resumed guest does not read them.
fn make_seed(
    machine: &Machine,
    spec: &Spec,
    record: &Record,
    suspended: Option<&Suspended>,
) -> Result<(), MachineError> {
    let project = &machine.project;
    let looks = config_archive::current_config_archive(project)?.is_some();
    if !record.provisioned || (suspended.is_none() && looks) {
        config_archive::write_config_archive(project, spec, record)?;
    } else if !looks && spec.has_settings() {
        tracing::warn!(
            "{} was created by an older k3s-vm: the settings of [k3s] and [network] and mounts have no effect",
            record.name
        );
    }
    if !record.provisioned || (suspended.is_none() && looks) || !project.seed().exists() {
        let is_unprovisioned = disk_state::is_unprovisioned(project, record, suspended);
        cidata::ensure_seed(project, record, is_unprovisioned)?;
    }
    Ok(())
}

/// Makes a resumed guest read its disk's size again: the VM of the template had another one.
///
/// # Errors
///
/// When QEMU refuses.
pub(crate) async fn resize(project: &Project, record: &Record) -> Result<(), MachineError> {
    let mut monitor = monitor_of(project).await?;
    let size = json!({ "node-name": command_line::DISK, "size": record.disk.as_bytes() });
    monitor.raw("block_resize", size).await?;
    Ok(())
}
