//! From a stopped VM to a started k3s: the launch, by KVM or, where that does not run the guest, by emulation.

use std::path::Path;

use crate::{
    machine::{
        Limits, Machine, MachineError, Timings,
        guest_config::host_dns,
        launch::{Startup, disk_files, spawn},
        lifecycle::boot_progress::{Failure, watch},
        model::timings::TimeSpentIn,
    },
    project::{Record, config::AccelChoice},
    qemu::{
        Accelerator, Process,
        kvm::{self, Kvm},
    },
};

/// How often a guest may die of the emulator.
const MAX_EMULATOR_RETRIES: usize = 2;

/// Starts the VM and returns when k3s has told its systemd that it started.
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
        ..
    } = startup;
    let accelerator = host.accelerator(spec.accel).await?;
    if record.provisioned {
        // The host may be in another network than at the last start.
        host_dns::follow(&machine.project, spec).await?;
        timings.lap("ask the host's DNS servers", TimeSpentIn::Network);
    }
    if let (Accelerator::Tcg, AccelChoice::Auto) = (accelerator, spec.accel) {
        crate::machine::model::host::warn_of_emulation(host.kvm().await);
    }
    match launch_and_watch(startup, record, accelerator, timings).await {
        Err(Failure::AcceleratorFailed(reason)) => {
            // Not remembered: a disk that boots nothing is as silent as a KVM that runs nothing.
            let kvm = Kvm::Broken(reason);
            machine.cleanup_on_failure().await;
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
    for _ in 0..MAX_EMULATOR_RETRIES {
        match launch_once(startup, record, accelerator, timings).await {
            Err(Failure::EmulatorCrash(error)) => {
                machine.cleanup_on_failure().await;
                tracing::warn!("starting the guest again after a fault of the emulator: {error}");
            }
            Err(Failure::IdentityNotReceived(error)) => restart_plainly(machine, &error).await,
            other => return other,
        }
    }
    launch_once(startup, record, accelerator, timings).await
}

/// Ends a guest that did not receive its identity. It has written to its disk by now, so its next start is an ordinary
/// boot with the identity on the seed. Its disk and memory are not published for other VMs.
pub(crate) async fn restart_plainly(machine: &Machine, error: &MachineError) {
    tracing::warn!("restarting the guest with its identity on the seed disk: {error}");
    machine.cleanup_on_failure().await;
    machine.take_captured();
}

async fn launch_once(
    startup: Startup<'_>,
    record: &mut Record,
    accelerator: Accelerator,
    timings: &mut Timings,
) -> Result<(Process, Limits), Failure> {
    let Startup { machine, spec, .. } = startup;
    let limits = startup.limits(accelerator);
    disk_files::prepare_start(&machine.project)?;
    machine.adopt_qemu();
    tracing::info!(
        "starting {} ({} CPUs, {} of memory, {accelerator})",
        record.name,
        spec.cpus,
        spec.memory
    );
    let process = match spawn::launch(startup, record, accelerator, None).await {
        Err(MachineError::Process(error))
            if accelerator == Accelerator::Kvm
                && blames_kvm(&error.to_string(), machine.project.root()) =>
        {
            return Err(Failure::AcceleratorFailed(error.to_string()));
        }
        other => other?,
    };
    timings.lap("start QEMU", TimeSpentIn::Own);
    watch(machine, record, &process, accelerator, limits, timings).await?;
    Ok((process, limits))
}

/// What QEMU says of a KVM that does not do what it should (accel/kvm/kvm-all.c, target/i386/kvm/kvm.c).
const OF_KVM: [&str; 10] = [
    "kvm kernel module",
    "initialize kvm",
    "requires kvm",
    "kvm run failed",
    "kvm_init",
    "kvm_buf_set",
    "ioctl(kvm_",
    "set msr",
    "get msr",
    "vcpu ioctl",
];

/// Whether QEMU's words are about KVM. A path in them may have the same letters.
fn blames_kvm(text: &str, project: &Path) -> bool {
    let text = text.replace(&*project.to_string_lossy(), "");
    let is_path = |word: &&str| word.contains('/') && !word.contains(kvm::DEVICE);
    let words: Vec<&str> = text.split(' ').filter(|it| !is_path(it)).collect();
    let text = words.join(" ").to_ascii_lowercase();
    OF_KVM.iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_not_a_complaint_of_kvm() {
        for (said, blamed) in [
            (
                "Could not access KVM kernel module: No such file or directory",
                true,
            ),
            (
                "-accel kvm: failed to initialize kvm: Device or resource busy",
                true,
            ),
            ("error: failed to set MSR 0x10a to 0x0", true),
            (
                "kvm_init_vcpu: kvm_get_vcpu failed (0): Invalid argument",
                true,
            ),
            (
                "-drive file=/home/ada/kvm-lab/disk.qcow2: Could not open it",
                false,
            ),
            (
                "Could not open '/home/kvm/vcpu/msr.img': Permission denied",
                false,
            ),
            (
                "-drive file=/srv/kvm_init/disk.qcow2: Could not open '/srv/kvm_init/disk.qcow2'",
                false,
            ),
            (
                "Could not open '/home/ada/set msr/.k3s-vm/disk.qcow2': No such file or directory",
                false,
            ),
        ] {
            let project = Path::new("/home/ada/set msr");
            assert_eq!(blames_kvm(said, project), blamed, "{said}");
        }
    }
}
