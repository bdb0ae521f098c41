//! All VMs of this user on this host, as registered in the shared cache by each setup and start. Takes no lock, changes
//! nothing and sends no request to an API. A VM that cannot be examined is listed with the reason.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::join_all;
use serde::Serialize;

use crate::{
    base::{MachineAlias, Name, Size, causes::with_causes, files},
    image,
    machine::{
        Spec, State,
        cache::references::{self, RegisteredProject},
        report::status,
    },
    project::{Project, Record, Suspended, user},
    qemu::Process,
};

/// The layout of the JSON document.
const SCHEMA: u32 = 1;

/// How long QEMU may take to report its ports.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The result of `list`; also the JSON document.
#[derive(Debug, Serialize)]
pub struct List {
    /// The layout's number.
    pub schema: u32,
    /// Sorted by project.
    pub machines: Vec<MachineSummary>,
}

/// The summary of a VM.
#[derive(Debug, Clone, Serialize)]
pub struct MachineSummary {
    /// Its name, if known.
    pub name: Option<Name>,
    /// Its state.
    pub state: MachineState,
    /// Its project's directory; the former one if it was moved.
    pub project: PathBuf,
    /// The name of an additional VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<MachineAlias>,
    /// CPUs: of the running guest, else of the next start.
    pub cpus: Option<u64>,
    /// Memory in bytes: of the running guest, else of the next start.
    pub memory: Option<u64>,
    /// The space of its disk, and of the memory of a suspended one, on the host, in bytes.
    pub disk_used: Option<u64>,
    /// The host port of the API: of the running guest, else that of the last start.
    pub api_port: Option<u16>,
    /// The host port of SSH, of a running guest.
    pub ssh_port: Option<u16>,
    /// The reason why details are missing.
    pub reason: Option<String>,
}

/// The state of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineState {
    /// QEMU runs.
    Running,
    /// The memory is saved.
    Suspended,
    /// QEMU does not run.
    Stopped,
    /// Its record or config cannot be read.
    Damaged,
    /// The project was moved; its next start registers the new place.
    Moved,
}

/// Summarises every registered VM.
pub async fn list(cache: &Path) -> List {
    let summaries = references::known(cache).into_iter().map(summarize);
    let mut machines: Vec<MachineSummary> =
        join_all(summaries).await.into_iter().flatten().collect();
    machines.sort_by(|one, other| (&one.project, &one.vm).cmp(&(&other.project, &other.vm)));
    List {
        schema: SCHEMA,
        machines,
    }
}

impl MachineSummary {
    fn new(state: MachineState, known: RegisteredProject) -> Self {
        Self {
            name: known.name,
            state,
            project: known.project.root().to_owned(),
            vm: known.project.alias().cloned(),
            cpus: None,
            memory: None,
            disk_used: None,
            api_port: None,
            ssh_port: None,
            reason: None,
        }
    }
}

/// The summary; `None` for a project without a VM.
async fn summarize(known: RegisteredProject) -> Option<MachineSummary> {
    if known.is_elsewhere {
        return Some(MachineSummary::new(MachineState::Moved, known));
    }
    let project = known.project.clone();
    let (record, process) = match State::observe(&project) {
        Ok(State::Absent) => return None,
        Ok(State::Stopped(record)) => (record, None),
        Ok(State::Running(record, process)) => (record, Some(process)),
        Err(error) => {
            return Some(MachineSummary {
                reason: Some(with_causes(&error)),
                ..MachineSummary::new(MachineState::Damaged, known)
            });
        }
    };
    let state = match process {
        Some(_) => MachineState::Running,
        None if Suspended::holds(&project, &record) => MachineState::Suspended,
        None => MachineState::Stopped,
    };
    let mut listed = described(state, known, &project, &record);
    if let Some(process) = process {
        add_qemu_state(&mut listed, &project, &process).await;
    }
    Some(listed)
}

fn described(
    state: MachineState,
    known: RegisteredProject,
    project: &Project,
    record: &Record,
) -> MachineSummary {
    let disk = image::disk_use(&project.disk()).map(Size::as_bytes);
    let memory = files::allocated(&project.memory()).as_bytes();
    let mut listed = MachineSummary {
        name: Some(record.name.clone()),
        disk_used: Some(disk.unwrap_or_default() + memory),
        api_port: (record.api_port != 0).then_some(record.api_port),
        ..MachineSummary::new(state, known)
    };
    let spec = user::chosen(project)
        .map_err(crate::machine::MachineError::from)
        .and_then(|config| Spec::resolve(&config, Some(record), project));
    match spec {
        Ok(spec) => {
            listed.cpus = Some(spec.cpus.into());
            listed.memory = Some(spec.memory.as_bytes());
        }
        Err(error) => {
            listed.reason = Some(with_causes(&error));
            if state != MachineState::Running {
                listed.state = MachineState::Damaged;
            }
        }
    }
    listed
}

async fn add_qemu_state(listed: &mut MachineSummary, project: &Project, process: &Process) {
    let Ok((running, resources)) =
        tokio::time::timeout(ANSWER_TIMEOUT, status::observe(project, process)).await
    else {
        listed.reason = Some("QEMU does not answer".to_owned());
        return;
    };
    match running.run_state.as_str() {
        "running" => {}
        "unresponsive" => listed.reason = Some("QEMU does not answer".to_owned()),
        other => listed.reason = Some(other.to_owned()),
    }
    listed.api_port = running.api_port.or(listed.api_port);
    listed.ssh_port = running.ssh_port;
    if let Some((cpus, memory)) = resources {
        (listed.cpus, listed.memory) = (Some(cpus), Some(memory));
    }
}
