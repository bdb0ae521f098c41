//! From a stopped machine to a started k3s: the launch, by KVM or, where that does not run the guest, by emulation.

use super::{
    Limits, Machine, MachineError, Spec, Timings,
    host::Host,
    host_dns, kubeconfig, make, mounts, prepare, settings,
    timings::Whose,
    watch::{Failure, watch},
};
use crate::{
    project::{Project, Record, Suspended, config::AccelChoice},
    qemu::{Accelerator, Launch, Process, command_line::Attachment, kvm::Kvm, visible},
};

/// How QEMU ends when a forwarded port is taken (net/slirp.c).
const PORT_TAKEN: &str = "Could not set up host forwarding rule";
const PORT_TRIES: usize = 10;
/// How often a guest may die of the emulator.
const STUMBLES: usize = 2;

/// Starts the machine and returns when k3s has told its systemd that it started.
///
/// # Errors
///
/// [`MachineError::Boot`] with the last stage and the end of the log that explains it.
pub async fn boot(
    machine: &Machine,
    host: &Host,
    spec: &Spec,
    record: &mut Record,
    timings: &mut Timings,
) -> Result<(Process, Limits), MachineError> {
    let accelerator = host.accelerator(spec.accel).await?;
    if record.provisioned {
        // The host may be in another network than at the last start.
        host_dns::follow(&machine.project, spec).await?;
        timings.end_of("ask the host's DNS servers", Whose::Network);
    }
    if let (Accelerator::Tcg, AccelChoice::Auto) = (accelerator, spec.accel) {
        super::host::warn_of_emulation(host.kvm().await);
    }
    match launch_and_watch(machine, host, spec, record, accelerator, timings).await {
        Err(Failure::NotRunning(reason)) => {
            // Not remembered: a disk that boots nothing is as silent as a KVM that runs nothing.
            let kvm = Kvm::Broken(reason);
            machine.abandon().await;
            if spec.accel == AccelChoice::Kvm {
                return Err(MachineError::Kvm(kvm));
            }
            super::host::warn_of_emulation(&kvm);
            let emulated =
                launch_and_watch(machine, host, spec, record, Accelerator::Tcg, timings).await;
            emulated.map_err(Failure::into_error)
        }
        other => other.map_err(Failure::into_error),
    }
}

/// Until the guest is up, or does not come up for a reason of its own.
async fn launch_and_watch(
    machine: &Machine,
    host: &Host,
    spec: &Spec,
    record: &mut Record,
    accelerator: Accelerator,
    timings: &mut Timings,
) -> Result<(Process, Limits), Failure> {
    for _ in 0..STUMBLES {
        match launch_once(machine, host, spec, record, accelerator, timings).await {
            Err(Failure::Stumbled(_)) => {
                machine.abandon().await;
                tracing::warn!(
                    "the guest's kernel panicked because of the emulator (stale code or a late timer); it is started once more"
                );
            }
            Err(Failure::Handover(error)) => restart_plainly(machine, &error).await,
            other => return other,
        }
    }
    launch_once(machine, host, spec, record, accelerator, timings).await
}

/// Ends a guest that did not receive its identity. It has written to its disk by now, so its next start is an ordinary
/// boot with the identity on the seed. Its disk and memory are not published for other machines.
pub(super) async fn restart_plainly(machine: &Machine, error: &MachineError) {
    tracing::warn!("restarting the guest with its identity on the seed disk: {error}");
    machine.abandon().await;
    machine.prepared();
}

async fn launch_once(
    machine: &Machine,
    host: &Host,
    spec: &Spec,
    record: &mut Record,
    accelerator: Accelerator,
    timings: &mut Timings,
) -> Result<(Process, Limits), Failure> {
    let limits = Limits::for_start(accelerator, spec.timeout);
    make::prepare_start(&machine.project)?;
    machine.mark_launched();
    tracing::info!(
        "starting {} ({} CPUs, {} of memory, {accelerator})",
        record.name,
        spec.cpus,
        spec.memory
    );
    let process = match launch(machine, host, spec, record, accelerator, None).await {
        Err(MachineError::Process(error))
            if accelerator == Accelerator::Kvm && blames_kvm(&error) =>
        {
            return Err(Failure::NotRunning(error.to_string()));
        }
        other => other?,
    };
    timings.end_of("start QEMU", Whose::Own);
    watch(machine, record, &process, accelerator, limits, timings).await?;
    Ok((process, limits))
}

/// Launches QEMU, to go on with the guest that was `suspended` if there is one; when another program was quicker to take the
/// API's port, with another port, unless the user chose it.
pub(super) async fn launch(
    machine: &Machine,
    host: &Host,
    spec: &Spec,
    record: &mut Record,
    accelerator: Accelerator,
    suspended: Option<&Suspended>,
) -> Result<Process, MachineError> {
    let grows = suspended.is_none() && record.provisioned && spec.disk > record.disk;
    if grows {
        record.disk = spec.disk;
    }
    make_seed(machine, spec, record, suspended)?;
    for _ in 0..PORT_TRIES {
        let launch = plan(&machine.project, host, spec, record, accelerator, suspended)?;
        match Process::spawn(&host.qemu, &launch, &machine.project.qemu_log()).await {
            Err(error) if !error.to_string().contains(PORT_TAKEN) => return Err(error.into()),
            Err(_) if spec.api_port.is_none() => {
                record.api_port = super::host::api_port(None, None)?;
                kubeconfig::announce(&machine.project, record)?;
            }
            Err(_) => break,
            Ok(process) => {
                if grows {
                    // Long before the guest looks at its disk.
                    prepare::resize(&machine.project, record).await?;
                    tracing::info!("the disk grows to {}", record.disk);
                }
                return Ok(process);
            }
        }
    }
    Err(MachineError::PortTaken {
        port: record.api_port,
    })
}

/// What the guest is to find, if it looks: one that goes on does not.
fn make_seed(
    machine: &Machine,
    spec: &Spec,
    record: &Record,
    suspended: Option<&Suspended>,
) -> Result<(), MachineError> {
    let project = &machine.project;
    let looks = settings::given(project)?.is_some();
    if !record.provisioned || (suspended.is_none() && looks) {
        settings::lay(project, spec, record)?;
    } else if !looks && spec.has_settings() {
        tracing::warn!(
            "{} was made by an older k3s-vm, and does not take the settings of [k3s] and [network], nor mounts",
            record.name
        );
    }
    if !record.provisioned || (suspended.is_none() && looks) || !project.seed().exists() {
        let asks = prepare::asks(project, record, suspended);
        make::ensure_seed(project, record, asks)?;
    }
    Ok(())
}

fn blames_kvm(error: &crate::qemu::ProcessError) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    text.contains("kvm") || text.contains("msr") || text.contains("vcpu")
}

/// What QEMU is given; the guest that was `suspended` finds the disks that it had.
pub(super) fn plan(
    project: &Project,
    host: &Host,
    spec: &Spec,
    record: &Record,
    accelerator: Accelerator,
    suspended: Option<&Suspended>,
) -> Result<Launch, MachineError> {
    let mut attachments = vec![Attachment {
        name: "seed",
        file: project.seed(),
    }];
    // What was suspended goes on with the devices that it had.
    let asks = prepare::asks(project, record, suspended);
    let installs = match suspended {
        None => !record.provisioned && !prepare::is_given(record),
        Some(it) => visible::has_disk(&it.memory.origin.arguments, "k3s"),
    };
    if installs {
        let release = record.installed_from();
        attachments.push(Attachment {
            name: "k3s",
            file: release.binary.clone(),
        });
        attachments.extend(release.airgap.clone().map(|file| Attachment {
            name: "airgap",
            file,
        }));
    }
    if spec.restore_datastore {
        // The guest looks for the disk's name (see k3s-starting.sh), not into it.
        attachments.push(Attachment {
            name: "restore-datastore",
            file: project.seed(),
        });
    }
    Ok(Launch {
        name: record.name.clone(),
        uuid: (!asks).then(|| record.uuid.clone()),
        serial: match settings::given(project)? {
            Some(settings) if !asks => Some(settings::serial(&settings, record.disk)),
            _ => None,
        },
        accelerator,
        cpu_model: spec.cpu_model.clone(),
        version: host.version,
        cpus: spec.cpus,
        memory: spec.memory,
        uefi: (record.firmware == "uefi")
            .then(|| make::ensure_uefi(project, &host.qemu))
            .transpose()?,
        disk: if suspended.is_none() && prepare::is_due(project, record) {
            record.image.path.clone()
        } else {
            project.disk()
        },
        attachments,
        folders: mounts::folders(project, spec)?,
        credentials: if installs {
            &make::FIRST_BOOT_CREDENTIALS
        } else {
            &[]
        },
        asks,
        api_port: record.api_port,
        isolated: spec.isolated,
        incoming: suspended.is_some(),
        monitor: project.monitor_socket(),
        requests: project.requests(),
        console_log: project.console_log(),
        stages_log: project.stages_log(),
        pidfile: project.pidfile(),
    })
}
