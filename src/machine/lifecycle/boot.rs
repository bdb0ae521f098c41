//! From a stopped VM to a started k3s: launches with KVM, or with emulation if KVM does not run the guest.

use std::path::Path;

use crate::{
    machine::{
        Machine, MachineError, Timings,
        guest_config::host_dns,
        launch::{CapturedMemory, Launched, Startup, disk_files, spawn},
        lifecycle::{
            boot_checks::Failure,
            boot_progress::{BootEvent, BootProgress},
        },
        model::{host::warn_of_emulation, timings::TimeSpentIn},
        template::capture,
    },
    project::{Record, config_values::AccelChoice},
    qemu::{
        Accelerator,
        kvm::{self, Kvm},
    },
};

/// How often a guest is restarted after a crash of the emulator.
const MAX_EMULATOR_RETRIES: usize = 2;

/// Starts the VM and returns when k3s has started.
///
/// # Errors
///
/// [`MachineError::Boot`] with the last stage and the end of the log that explains it.
pub(crate) async fn boot(
    startup: Startup<'_>,
    record: &Record,
    timings: &mut Timings,
) -> Result<Launched, MachineError> {
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
        timings.lap("query the host's DNS servers", TimeSpentIn::Network);
    }
    if let (Accelerator::Tcg, AccelChoice::Auto) = (accelerator, spec.accel) {
        warn_of_emulation(host.kvm().await);
    }
    let mut boot = Boot {
        startup,
        record,
        timings,
        captured: None,
    };
    let booted = match boot.with_retries(accelerator).await {
        Err(Failure::AcceleratorFailed(reason)) => {
            // Not remembered: a disk that does not boot is as silent as a KVM that does not run.
            let kvm = Kvm::Broken(reason);
            machine.cleanup_on_failure().await;
            if spec.accel == AccelChoice::Kvm {
                return Err(MachineError::Kvm(kvm));
            }
            warn_of_emulation(&kvm);
            boot.with_retries(Accelerator::Tcg).await
        }
        result => result,
    };
    let launched = booted.map_err(Failure::into_error)?;
    Ok(Launched {
        captured: boot.captured,
        ..launched
    })
}

/// The launches of one boot.
struct Boot<'a> {
    startup: Startup<'a>,
    record: &'a Record,
    timings: &'a mut Timings,
    /// The capture of the guest, which stays valid when the guest is restarted.
    captured: Option<CapturedMemory>,
}

impl Boot<'_> {
    /// Launches the VM until k3s has started; again if the emulator crashed, or the guest did not receive its identity.
    async fn with_retries(&mut self, accelerator: Accelerator) -> Result<Launched, Failure> {
        let machine = self.startup.machine;
        for _ in 0..MAX_EMULATOR_RETRIES {
            match self.once(accelerator).await {
                Err(Failure::EmulatorCrash(error)) => {
                    machine.cleanup_on_failure().await;
                    tracing::warn!(
                        "starting the guest again after a fault of the emulator: {error}"
                    );
                }
                Err(Failure::IdentityNotReceived(error)) => {
                    end_without_identity(machine, &error).await;
                    self.captured = None;
                }
                result => return result,
            }
        }
        self.once(accelerator).await
    }

    async fn once(&mut self, accelerator: Accelerator) -> Result<Launched, Failure> {
        let Startup { machine, spec, .. } = self.startup;
        disk_files::prepare_start(&machine.project)?;
        machine.adopt_qemu();
        tracing::info!(
            "starting {} ({} CPUs, {} of memory, {accelerator})",
            self.record.name,
            spec.cpus,
            spec.memory
        );
        let launched = match spawn::launch(self.startup, self.record, accelerator, None).await {
            Err(MachineError::Process(error))
                if accelerator == Accelerator::Kvm
                    && blames_kvm(&error.to_string(), machine.project.root()) =>
            {
                return Err(Failure::AcceleratorFailed(error.to_string()));
            }
            launched => launched?,
        };
        self.timings.lap("start QEMU", TimeSpentIn::Own);
        let mut progress = BootProgress::of_boot(&machine.project, &launched);
        while let BootEvent::IdentityRequested = progress.next(self.timings).await? {
            self.capture(&launched).await;
            progress.send_identity(&launched.record).await?;
        }
        Ok(launched)
    }

    /// Captures the guest as a template. A failure is only logged.
    async fn capture(&mut self, launched: &Launched) {
        let project = self.startup.project();
        match capture::capture(project, &launched.record, &launched.process).await {
            Ok(captured) => self.captured = captured.or(self.captured.take()),
            Err(error) => tracing::debug!(%error, "the guest is not captured as a template"),
        }
    }
}

/// Ends a guest that did not receive its identity. Its next start is an ordinary boot with the identity on the seed. It
/// has written to its disk, so its disk and memory are not published.
pub(crate) async fn end_without_identity(machine: &Machine, error: &MachineError) {
    tracing::warn!("restarting the guest with its identity on the seed disk: {error}");
    machine.cleanup_on_failure().await;
}

/// QEMU's messages about a KVM that does not work (accel/kvm/kvm-all.c, target/i386/kvm/kvm.c).
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

/// Returns `true` for a message of QEMU about KVM. The letters in a path do not count.
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
    fn a_path_with_kvm_is_no_kvm_error() {
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
