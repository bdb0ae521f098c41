//! From a stopped machine to a started k3s: the launch, by KVM or, where that does not run the guest, by emulation.

use crate::{
    machine::{
        Limits, Machine, MachineError, Timings,
        guest_config::host_dns,
        launch::{Startup, disk_files, spawn},
        lifecycle::boot_progress::{Failure, watch},
        model::timings::Whose,
    },
    project::{Record, config::AccelChoice},
    qemu::{Accelerator, Process, kvm::Kvm},
};

/// How often a guest may die of the emulator.
const STUMBLES: usize = 2;

/// Starts the machine and returns when k3s has told its systemd that it started.
///
/// # Errors
///
/// [`MachineError::Boot`] with the last stage and the end of the log that explains it.
pub(crate) async fn boot(
    startup: Startup<'_>,
    record: &mut Record,
    timings: &mut Timings,
) -> Result<(Process, Limits), MachineError> {
    let Startup {
        machine,
        host,
        spec,
    } = startup;
    let accelerator = host.accelerator(spec.accel).await?;
    if record.provisioned {
        // The host may be in another network than at the last start.
        host_dns::follow(&machine.project, spec).await?;
        timings.end_of("ask the host's DNS servers", Whose::Network);
    }
    if let (Accelerator::Tcg, AccelChoice::Auto) = (accelerator, spec.accel) {
        crate::machine::model::host::warn_of_emulation(host.kvm().await);
    }
    match launch_and_watch(startup, record, accelerator, timings).await {
        Err(Failure::NotRunning(reason)) => {
            // Not remembered: a disk that boots nothing is as silent as a KVM that runs nothing.
            let kvm = Kvm::Broken(reason);
            machine.abandon().await;
            if spec.accel == AccelChoice::Kvm {
                return Err(MachineError::Kvm(kvm));
            }
            crate::machine::model::host::warn_of_emulation(&kvm);
            let emulated = launch_and_watch(startup, record, Accelerator::Tcg, timings).await;
            emulated.map_err(Failure::into_error)
        }
        other => other.map_err(Failure::into_error),
    }
}

/// Until the guest is up, or does not come up for a reason of its own.
async fn launch_and_watch(
    startup: Startup<'_>,
    record: &mut Record,
    accelerator: Accelerator,
    timings: &mut Timings,
) -> Result<(Process, Limits), Failure> {
    let machine = startup.machine;
    for _ in 0..STUMBLES {
        match launch_once(startup, record, accelerator, timings).await {
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
    launch_once(startup, record, accelerator, timings).await
}

/// Ends a guest that did not receive its identity. It has written to its disk by now, so its next start is an ordinary
/// boot with the identity on the seed. Its disk and memory are not published for other machines.
pub(crate) async fn restart_plainly(machine: &Machine, error: &MachineError) {
    tracing::warn!("restarting the guest with its identity on the seed disk: {error}");
    machine.abandon().await;
    machine.prepared();
}

async fn launch_once(
    startup: Startup<'_>,
    record: &mut Record,
    accelerator: Accelerator,
    timings: &mut Timings,
) -> Result<(Process, Limits), Failure> {
    let Startup { machine, spec, .. } = startup;
    let limits = Limits::for_start(accelerator, spec.timeout);
    disk_files::prepare_start(&machine.project)?;
    machine.mark_launched();
    tracing::info!(
        "starting {} ({} CPUs, {} of memory, {accelerator})",
        record.name,
        spec.cpus,
        spec.memory
    );
    let process = match spawn::launch(startup, record, accelerator, None).await {
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

fn blames_kvm(error: &crate::qemu::ProcessError) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    text.contains("kvm") || text.contains("msr") || text.contains("vcpu")
}
