//! `status`: the observed state of a VM. Takes no lock. Changes nothing, except that it saves the guest's logs.

use std::{path::PathBuf, time::Duration};

use qapi::qmp;
use serde::Serialize;

use crate::{
    base::{Forward, MachineAlias, Name, causes::with_causes, files::allocated},
    guest::{BootState, StageLog},
    image,
    k3s::{Api, Node},
    machine::{
        MachineError, Spec, State,
        access::{
            api,
            ports::{self, Port},
        },
        control::guest_logs,
    },
    project::{Project, Record, Suspended, idle, user},
    qemu::{
        MonitorError, Process, monitor_of,
        usernet::{self, forwarded_port},
    },
};

/// The layout of the JSON document.
const SCHEMA: u32 = 1;

/// How long the API may take to answer. An emulated guest that has just started takes seconds.
const API_TIMEOUT_KVM: Duration = Duration::from_secs(3);

const API_TIMEOUT_TCG: Duration = Duration::from_secs(10);

/// The result of `status`; also the JSON document.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The layout's number.
    pub schema: u32,
    /// Running, suspended, stopped or absent.
    pub state: MachineState,
    /// QEMU runs, the API is ready, and so are its nodes.
    pub healthy: bool,
    /// The project's directory.
    pub project: PathBuf,
    /// The name of an additional VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<MachineAlias>,
    /// The VM; `None` for an absent one.
    pub machine: Option<MachineDetails>,
    /// The running QEMU.
    pub process: Option<Running>,
    /// The saved memory of a suspended VM.
    pub suspended: Option<SavedState>,
    /// The forwarded ports: now, or from the next start.
    pub ports: Vec<Port>,
    /// The cluster.
    pub cluster: Option<Cluster>,
}

/// The state of the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineState {
    /// QEMU runs.
    Running,
    /// The VM's memory is saved, and QEMU does not run.
    Suspended,
    /// QEMU does not run.
    Stopped,
    /// There is no VM.
    Absent,
}

/// A VM as its record and config describe it.
#[derive(Debug, Serialize)]
pub struct MachineDetails {
    /// Its name.
    pub name: Name,
    /// Its SMBIOS UUID.
    pub uuid: String,
    /// The base image as the user named it.
    pub image: String,
    /// The k3s release.
    pub k3s: String,
    /// BIOS or UEFI.
    pub firmware: String,
    /// A setup was completed.
    pub provisioned: bool,
    /// The time without use after which it is suspended, like `30m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_suspend: Option<String>,
    /// CPUs: of the running guest, else of the next start.
    pub cpus: u64,
    /// Memory in bytes: of the running guest, else of the next start.
    pub memory: u64,
    /// The disk's size in bytes.
    pub disk: u64,
    /// The space of the overlay on the host, in bytes.
    pub disk_used: u64,
    /// The kubeconfig.
    pub kubeconfig: PathBuf,
    /// The overlay.
    pub disk_path: PathBuf,
    /// The base image or template.
    pub image_path: PathBuf,
    /// The console's log.
    pub console_log: PathBuf,
}

/// A running QEMU.
#[derive(Debug, Serialize)]
pub struct Running {
    /// The process id.
    pub pid: i32,
    /// QEMU's run state: `running`, `paused`, ...
    pub run_state: String,
    /// `kvm` or `tcg`.
    pub accelerator: Option<&'static str>,
    /// Seconds since its start.
    pub uptime: Option<u64>,
    /// The host port of the API.
    pub api_port: Option<u16>,
    /// The host port of SSH.
    pub ssh_port: Option<u16>,
    /// The monitor's socket.
    pub monitor: PathBuf,
    /// The ports that are forwarded into the guest.
    #[serde(skip)]
    pub forwards: Vec<Forward>,
}

/// The saved memory of a suspended VM.
#[derive(Debug, Serialize)]
pub struct SavedState {
    /// The time of the suspend, in seconds since 1970; `None` if the file is damaged.
    pub since: Option<u64>,
    /// The reason, if the idle watch suspended it: `suspended after 30m idle`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The space of the memory on the host, in bytes.
    pub memory_used: u64,
    /// The memory file.
    pub memory_path: PathBuf,
}

/// The cluster, by its API.
#[derive(Debug, Serialize)]
pub struct Cluster {
    /// The API's address.
    pub server: String,
    /// `/readyz` reports ok.
    pub ready: bool,
    /// The reason why it is not ready.
    pub reason: Option<String>,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
}

/// A node.
#[derive(Debug, Serialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// It is Ready.
    pub ready: bool,
    /// The version of its k3s.
    pub version: String,
    /// Its address in the guest's network.
    pub address: Option<String>,
}

/// Observes the VM of a project.
///
/// # Errors
///
/// When its record or config is damaged. That QEMU or the API does not answer is a status, not an error.
pub async fn status(project: &Project) -> Result<Status, MachineError> {
    let (state, record, process) = state_of(project)?;
    let mut machine = record
        .as_ref()
        .map(|record| describe(project, record))
        .transpose()?;
    let mut running = None;
    let mut cluster = None;
    if let (Some(record), Some(process)) = (&record, process) {
        let (observed, seen) = tokio::join!(
            observe(project, &process),
            query_cluster(project, record, &process)
        );
        if let (Some(machine), Some((cpus, memory))) = (&mut machine, observed.1) {
            (machine.cpus, machine.memory) = (cpus, memory);
        }
        running = Some(observed.0);
        cluster = Some(seen);
    }
    let open = running.as_ref().map_or(&[][..], |it| &it.forwards);
    let ports = match &record {
        Some(record) => ports::described(project, record, open)?,
        None => Vec::new(),
    };
    let runs = running.as_ref().is_some_and(|it| it.run_state == "running");
    let ready = cluster
        .as_ref()
        .is_some_and(|it| it.ready && it.nodes.iter().any(|node| node.ready));
    Ok(Status {
        schema: SCHEMA,
        state,
        healthy: runs && ready,
        project: project.root().to_owned(),
        vm: project.alias().cloned(),
        machine,
        process: running,
        suspended: (state == MachineState::Suspended)
            .then(|| saved_state(project))
            .transpose()?,
        ports,
        cluster,
    })
}

fn state_of(
    project: &Project,
) -> Result<(MachineState, Option<Record>, Option<Process>), MachineError> {
    Ok(match State::observe(project)? {
        State::Absent => (MachineState::Absent, None, None),
        State::Stopped(record) if Suspended::holds(project, &record) => {
            (MachineState::Suspended, Some(record), None)
        }
        State::Stopped(record) => (MachineState::Stopped, Some(record), None),
        State::Running(record, process) => (MachineState::Running, Some(record), Some(process)),
    })
}

fn saved_state(project: &Project) -> Result<SavedState, MachineError> {
    let suspended = Suspended::load(project)?.and_then(Result::ok);
    let path = suspended
        .as_ref()
        .map_or_else(|| project.memory(), |it| it.path(project));
    let since = suspended.map(|it| it.since);
    Ok(SavedState {
        since,
        reason: since.and_then(|since| idle::noted(project, since)),
        memory_used: allocated(&path).as_bytes(),
        memory_path: path,
    })
}

fn describe(project: &Project, record: &Record) -> Result<MachineDetails, MachineError> {
    let spec = Spec::resolve(&user::chosen(project)?, Some(record), project)?;
    Ok(MachineDetails {
        name: record.name.clone(),
        uuid: record.uuid.clone(),
        image: record.image.source.clone(),
        k3s: record.release.version.clone(),
        firmware: record.firmware.clone(),
        provisioned: record.provisioned,
        idle_suspend: spec
            .idle_suspend
            .map(|after| humantime::format_duration(after).to_string()),
        cpus: spec.cpus.into(),
        memory: spec.memory.as_bytes(),
        disk: record.disk.as_bytes(),
        disk_used: image::disk_use(&project.disk())
            .map(crate::base::Size::as_bytes)
            .unwrap_or_default(),
        kubeconfig: record.kubeconfig.clone(),
        disk_path: project.disk(),
        image_path: record.image.path.clone(),
        console_log: project.console_log(),
    })
}

/// The state of QEMU, and the guest's CPUs and memory.
pub(crate) async fn observe(project: &Project, process: &Process) -> (Running, Option<(u64, u64)>) {
    let mut running = Running {
        pid: process.pid(),
        run_state: "unresponsive".to_owned(),
        accelerator: None,
        uptime: process.uptime().map(|uptime| uptime.as_secs()),
        api_port: None,
        ssh_port: None,
        monitor: project.monitor_socket(),
        forwards: Vec::new(),
    };
    match query_qemu(project, &mut running).await {
        Ok(resources) => (running, Some(resources)),
        Err(error) => {
            running.ssh_port = Record::load(project)
                .ok()
                .flatten()
                .and_then(|it| it.ssh_port);
            if matches!(
                error,
                MonitorError::Foreign { .. } | MonitorError::Directory(_)
            ) {
                tracing::warn!("cannot query QEMU: {error}");
            } else {
                tracing::debug!(%error, "QEMU does not tell");
            }
            (running, None)
        }
    }
}

async fn query_qemu(project: &Project, running: &mut Running) -> Result<(u64, u64), MonitorError> {
    let mut monitor = monitor_of(project).await?;
    let state = monitor.execute(qmp::query_status {}).await?.status;
    running.run_state = serde_json::to_value(state)
        .ok()
        .and_then(|it| it.as_str().map(str::to_owned))
        .unwrap_or_default();
    running.accelerator = Some(if monitor.execute(qmp::query_kvm {}).await?.enabled {
        "kvm"
    } else {
        "tcg"
    });
    let usernet = monitor.human("info usernet").await?;
    running.api_port = forwarded_port(&usernet, 6443);
    running.ssh_port = forwarded_port(&usernet, 22);
    running.forwards = usernet::forwards(&usernet);
    let cpus = monitor.execute(qmp::query_cpus_fast {}).await?.len();
    let memory = monitor
        .execute(qmp::query_memory_size_summary {})
        .await?
        .base_memory;
    Ok((u64::try_from(cpus).unwrap_or_default(), memory))
}

/// The guest's own report of a fault.
async fn fault(project: &Project) -> Option<String> {
    guest_logs::collect(project).await;
    let mut course = BootState::default();
    for report in StageLog::new(project.stages_log()).poll().ok()? {
        course.add(report);
    }
    course.fault().map(ToString::to_string)
}

async fn query_cluster(project: &Project, record: &Record, process: &Process) -> Cluster {
    let timeout = if process.arguments().iter().any(|it| it == "-enable-kvm") {
        API_TIMEOUT_KVM
    } else {
        API_TIMEOUT_TCG
    };
    let server = format!("https://127.0.0.1:{}", record.api_port);
    let asked = async {
        let api: Api = api::client_of(record)?;
        api.ready().await?;
        Ok::<Vec<Node>, MachineError>(api.nodes().await?)
    };
    let answer = match tokio::time::timeout(timeout, asked).await {
        Ok(answer) => answer.map_err(|error| with_causes(&error)),
        Err(_) => Err(format!("no answer within {} s", timeout.as_secs())),
    };
    match answer {
        Ok(nodes) => Cluster {
            server,
            ready: true,
            reason: None,
            nodes: nodes.into_iter().map(NodeStatus::from).collect(),
        },
        Err(reason) => Cluster {
            server,
            ready: false,
            reason: Some(fault(project).await.unwrap_or(reason)),
            nodes: Vec::new(),
        },
    }
}

impl From<Node> for NodeStatus {
    fn from(node: Node) -> Self {
        Self {
            name: node.name,
            ready: node.ready,
            version: node.version,
            address: node.address,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Protocol;

    #[test]
    fn the_json_matches_its_snapshot() {
        let node = NodeStatus {
            name: "k3s-shop-1a2b3c".to_owned(),
            ready: true,
            version: "v1.33.5+k3s1".to_owned(),
            address: Some("10.0.2.15".to_owned()),
        };
        let machine = MachineDetails {
            name: "k3s-shop-1a2b3c".parse().expect("sound"),
            uuid: "4bcc0bb8-8d54-455f-90ad-1de650375771".to_owned(),
            image: "debian-13".to_owned(),
            k3s: "v1.33.5+k3s1".to_owned(),
            firmware: "bios".to_owned(),
            provisioned: true,
            idle_suspend: None,
            cpus: 2,
            memory: 4 << 30,
            disk: 20 << 30,
            disk_used: 23 << 20,
            kubeconfig: "/p/.kube/config".into(),
            disk_path: "/p/.k3s-vm/disk.qcow2".into(),
            image_path: "/c/images/a.img".into(),
            console_log: "/p/.k3s-vm/console.log".into(),
        };
        let process = Running {
            pid: 7,
            run_state: "running".to_owned(),
            accelerator: Some("kvm"),
            uptime: Some(96),
            api_port: Some(6443),
            ssh_port: Some(42527),
            monitor: "/run/qmp.sock".into(),
            forwards: Vec::new(),
        };
        let port = Port {
            address: "127.0.0.1:8080".to_owned(),
            protocol: Protocol::Tcp,
            guest: 80,
            open: true,
            purpose: Some("the ingress"),
        };
        let status = Status {
            schema: SCHEMA,
            state: MachineState::Running,
            healthy: true,
            project: "/p".into(),
            vm: None,
            machine: Some(machine),
            process: Some(process),
            suspended: Some(SavedState {
                since: Some(1_795_000_000),
                reason: None,
                memory_used: 1 << 30,
                memory_path: "/p/.k3s-vm/memory".into(),
            }),
            ports: vec![port],
            cluster: Some(Cluster {
                server: "https://127.0.0.1:6443".to_owned(),
                ready: true,
                reason: None,
                nodes: vec![node],
            }),
        };
        let json = serde_json::to_string_pretty(&status).expect("JSON");
        insta::assert_snapshot!(json);
    }
}
