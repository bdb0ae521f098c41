//! What a running machine has, which its next start may have otherwise.

use std::time::Duration;

use qapi::qmp;

use super::{Machine, MachineError, Spec, State, settings, stop, suspend};
use crate::{
    base::Size,
    project::{Project, Record, config::AccelChoice},
    qemu::{Accelerator, Monitor, MonitorError},
};

/// How long a new QEMU may take to open its monitor; it takes a tenth of a second when nothing is wrong.
const OPENING: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// The machine's state, without a QEMU that an unfinished setup left behind and that nobody can talk to. One that a
/// command has started and not lived to see gets the time to open its monitor.
///
/// # Errors
///
/// Those of [`Machine::state`], and when that QEMU cannot be ended.
pub(super) async fn reachable(machine: &Machine) -> Result<State, MachineError> {
    if let State::Running(_, process) = suspend::settled(machine).await? {
        while process.uptime().is_some_and(|uptime| uptime < OPENING)
            && process.is_alive()
            && Running::look(machine).await.is_err()
        {
            tokio::time::sleep(POLL).await;
        }
    }
    match machine.state()? {
        State::Running(record, process)
            if !record.provisioned && Running::look(machine).await.is_err() =>
        {
            tracing::info!(
                "ending a QEMU that does not answer (process {}), which an unfinished setup left",
                process.pid()
            );
            stop::end(&machine.project, &process).await?;
            Ok(State::Stopped(record))
        }
        state => Ok(state),
    }
}

/// A running machine as QEMU tells of it.
pub(super) struct Running {
    pub(super) accelerator: Accelerator,
    cpus: usize,
    memory: Size,
}

impl Running {
    /// Asks QEMU.
    pub(super) async fn look(machine: &Machine) -> Result<Self, MonitorError> {
        let mut monitor = Monitor::connect(&machine.project.monitor_socket()).await?;
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
    pub(super) fn pending(
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
        if settings::differ(project, spec, record)? {
            pending.push("the settings of k3s and network, and the mounts".to_owned());
        }
        Ok(pending)
    }
}
