//! The settings of a running VM, and which of them its next start changes.

use qapi::qmp;

use crate::{
    base::Size,
    machine::{Machine, MachineError, Spec, guest_config::config_archive},
    project::{Project, Record, config_values::AccelChoice},
    qemu::{Accelerator, MonitorError, monitor_of},
};

/// The settings of a running VM, as QEMU reports them.
pub(crate) struct RunningSettings {
    pub(crate) accelerator: Accelerator,
    cpus: usize,
    memory: Size,
}

impl RunningSettings {
    /// Queries QEMU.
    pub(crate) async fn query(machine: &Machine) -> Result<Self, MonitorError> {
        let mut monitor = monitor_of(&machine.project).await?;
        let kvm = monitor.execute(qmp::query_kvm {}).await?.enabled;
        Ok(Self {
            accelerator: if kvm {
                Accelerator::Kvm
            } else {
                Accelerator::Tcg
            },
            cpus: monitor.execute(qmp::query_cpus_fast {}).await?.len(),
            memory: Size::bytes(
                monitor
                    .execute(qmp::query_memory_size_summary {})
                    .await?
                    .base_memory,
            ),
        })
    }

    /// The choices that it does not run with.
    ///
    /// # Errors
    ///
    /// When its settings name something that cannot be used.
    pub(crate) fn pending(
        &self,
        project: &Project,
        spec: &Spec,
        record: &Record,
    ) -> Result<Vec<String>, MachineError> {
        let mut pending = Vec::new();
        let mut differ = |what: &str, chosen: String, has: String| {
            if chosen != has {
                pending.push(format!("{what} = {chosen} instead of {has}"));
            }
        };
        differ("cpus", spec.cpus.to_string(), self.cpus.to_string());
        differ("memory", spec.memory.to_string(), self.memory.to_string());
        differ("disk", spec.disk.to_string(), record.disk.to_string());
        if let Some(port) = spec.api_port {
            differ("api_port", port.to_string(), record.api_port.to_string());
        }
        if spec.accel != AccelChoice::Auto {
            let name = spec.accel.name().to_owned();
            differ("accel", name, self.accelerator.to_string());
        }
        if config_archive::config_changed(project, spec, record)? {
            pending.push("the settings of k3s and network, and the mounts".to_owned());
        }
        Ok(pending)
    }
}
