//! Forwards of 127.0.0.1 to the guest: added and removed while it runs, and saved for later starts.

use serde::Serialize;
use tokio::net::UnixStream;

use crate::{
    base::{Forward, HostPort, Protocol},
    k3s::api::{self as k3s_api, Service},
    machine::{Machine, MachineError, Spec, State, access::api, model::host},
    project::{Config, Project, Record, approval},
    qemu::{Monitor, MonitorError, monitor_of, usernet},
};

/// The forwards to the ingress of k3s (traefik), used where nothing else is chosen and the port is free.
pub const INGRESS: [Forward; 2] = [Forward::tcp(8080, 80), Forward::tcp(8443, 443)];

/// The guest's ports that each VM has forwarded.
const OWN: [(u16, &str); 2] = [(6443, "the API"), (22, "SSH")];

/// The layout of the JSON document.
const SCHEMA: u32 = 1;

/// The result of `port list`; also the JSON document.
#[derive(Debug, Serialize)]
pub struct Ports {
    /// The layout's number.
    pub schema: u32,
    /// By the host's port.
    pub ports: Vec<Port>,
}

/// A forwarded port.
#[derive(Debug, Serialize)]
pub struct Port {
    /// The address on the host.
    pub address: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The guest's port.
    pub guest: u16,
    /// It is forwarded now.
    pub open: bool,
    /// Its purpose, if it is not the user's own.
    pub purpose: Option<&'static str>,
}

/// A Service of the cluster, as `port add` takes one: `svc/NAME` or `svc/NAME:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The number or the name of its port; `None` for its only one.
    pub port: Option<String>,
}

/// Forwards the configured ports, or those of the ingress. Existing forwards are kept. A port that is in use gives a
/// warning only.
pub(crate) async fn open(project: &Project, spec: &Spec) {
    let wanted = spec.ports.as_deref().unwrap_or(&INGRESS);
    let opened = async {
        let mut monitor = monitor_of(project).await?;
        let open = forwards(&mut monitor).await?;
        for forward in wanted.iter().filter(|it| !open.contains(it)) {
            match ensure(&mut monitor, *forward).await {
                Err(MachineError::Monitor(error)) => return Err(error),
                // With several VMs, the first one has the ports of the ingress.
                Err(error) if INGRESS.contains(forward) => {
                    tracing::debug!(%error, "{forward} is not forwarded");
                }
                Err(error) => tracing::warn!("{forward} is not forwarded: {error}"),
                Ok(()) => tracing::debug!("{forward} is forwarded"),
            }
        }
        Ok::<_, MonitorError>(())
    };
    if let Err(error) = opened.await {
        tracing::debug!(%error, "no ports are forwarded");
    }
}

/// Checks that each of the ports is free, or forwarded by this VM already.
///
/// # Errors
///
/// The error of the first port that is neither.
pub(crate) async fn require(project: &Project, asked: &[Forward]) -> Result<(), MachineError> {
    let open = match monitor_of(project).await {
        Ok(mut monitor) if !asked.is_empty() => forwards(&mut monitor).await?,
        _ => Vec::new(),
    };
    let mut missing = asked.iter().filter(|it| !open.contains(it));
    missing.try_for_each(|it| host::check_port(it.host))
}

/// Requires that all `forwards` can be added, so that either all are or none is.
///
/// # Errors
///
/// The error of the first one that cannot be added.
pub async fn require_all(machine: &Machine, forwards: &[Forward]) -> Result<(), MachineError> {
    let (_, saved) = config(machine)?;
    let mut all = saved.clone();
    for forward in forwards {
        require_host_port(&all, *forward)?;
        all.push(*forward);
    }
    all.retain(|it| !saved.contains(it));
    require(&machine.project, &all).await
}

/// Requires that none of `ports` forwards the host's port elsewhere.
fn require_host_port(ports: &[Forward], forward: Forward) -> Result<(), MachineError> {
    let is_other = |it: &&Forward| it.host == forward.host && **it != forward;
    match ports.iter().find(is_other) {
        Some(other) => Err(MachineError::Forwarded(*other)),
        None => Ok(()),
    }
}

/// Requires that all of `hosts` are forwarded.
///
/// # Errors
///
/// [`MachineError::NotForwarded`] for the first one that is not, or that is named twice.
pub fn require_forwarded(machine: &Machine, hosts: &[HostPort]) -> Result<(), MachineError> {
    let (_, mut ports) = config(machine)?;
    for host in hosts {
        let at = ports.iter().position(|it| it.host == *host);
        ports.remove(at.ok_or(MachineError::NotForwarded(*host))?);
    }
    Ok(())
}

/// Adds a forward, to a running VM at once.
///
/// # Errors
///
/// When there is no VM, or the port cannot be had; nothing is changed then.
pub async fn add(machine: &Machine, forward: Forward) -> Result<(), MachineError> {
    let (config, mut ports) = config(machine)?;
    if ports.contains(&forward) && !runs(machine)? {
        return Ok(());
    }
    require_host_port(&ports, forward)?;
    if runs(machine)? {
        let mut monitor = monitor_of(&machine.project).await?;
        ensure(&mut monitor, forward).await?;
    } else {
        host::check_port(forward.host)?;
    }
    if !ports.contains(&forward) {
        ports.push(forward);
    }
    save(machine, config, ports)
}

/// Removes a forward.
///
/// # Errors
///
/// When it is not one of those that can be removed.
pub async fn remove(machine: &Machine, host: HostPort) -> Result<Forward, MachineError> {
    let (config, mut ports) = config(machine)?;
    let Some(at) = ports.iter().position(|it| it.host == host) else {
        return Err(MachineError::NotForwarded(host));
    };
    if runs(machine)? {
        let mut monitor = monitor_of(&machine.project).await?;
        let open = forwards(&mut monitor).await?;
        if open.contains(&ports[at]) {
            monitor.human(&usernet::remove(host)).await?;
        }
    }
    let removed = ports.remove(at);
    save(machine, config, ports)?;
    Ok(removed)
}

/// All forwarded ports, and those of the next start.
///
/// # Errors
///
/// When there is no VM, or its config or QEMU does not tell.
pub async fn list(project: &Project) -> Result<Ports, MachineError> {
    let state = State::observe(project)?;
    let Some(record) = state.record() else {
        return Err(MachineError::absent(project));
    };
    let open = match &state {
        State::Running(..) => forwards(&mut monitor_of(project).await?).await?,
        _ => Vec::new(),
    };
    Ok(Ports {
        schema: SCHEMA,
        ports: described(project, record, &open)?,
    })
}

/// All ports of a VM, with those of `open` forwarded now, sorted by the host's port.
///
/// # Errors
///
/// When the config cannot be read.
pub(crate) fn described(
    project: &Project,
    record: &Record,
    open: &[Forward],
) -> Result<Vec<Port>, MachineError> {
    let chosen = chosen(project)?;
    let mut all: Vec<Forward> = chosen.iter().chain(open).copied().collect();
    if open.is_empty() && record.api_port != 0 {
        all.push(Forward::tcp(record.api_port, 6443));
    }
    all.sort_unstable();
    all.dedup();
    let port = |it: Forward| Port {
        address: it.host.address().to_string(),
        protocol: it.host.protocol,
        guest: it.guest,
        open: open.contains(&it),
        purpose: purpose(it, &chosen),
    };
    Ok(all.into_iter().map(port).collect())
}

fn purpose(forward: Forward, chosen: &[Forward]) -> Option<&'static str> {
    if !chosen.contains(&forward) {
        let own = OWN.iter().find(|(guest, _)| *guest == forward.guest);
        return own.map(|(_, purpose)| *purpose);
    }
    INGRESS.contains(&forward).then_some("the ingress")
}

/// The forward to a Service: its port in the node, and a port of the host.
///
/// # Errors
///
/// When the cluster does not know it, or only the cluster itself reaches it.
pub async fn of_service(project: &Project, asked: &ServicePort) -> Result<Forward, MachineError> {
    let (record, _) = State::observe(project)?.running(project)?;
    let api = api::client_of(&record)?;
    let service = api.service(&asked.namespace, &asked.name).await?;
    let service = service.ok_or_else(|| asked.refused("it does not exist".to_owned()))?;
    let port = asked.port_of(&service)?;
    let Some(guest) = port.node_port else {
        return Err(MachineError::Service {
            name: format!("svc/{}", asked.name),
            namespace: asked.namespace.clone(),
            reason: format!(
                "it is of type {}, which only the cluster reaches",
                service.kind
            ),
            cluster_only: true,
        });
    };
    let protocol = match port.protocol.as_str() {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        other => return Err(asked.refused(format!("cannot forward {other}"))),
    };
    let host = similar_free_port(port.port, protocol)?;
    Ok(Forward { host, guest })
}

impl ServicePort {
    fn refused(&self, reason: String) -> MachineError {
        MachineError::Service {
            name: format!("svc/{}", self.name),
            namespace: self.namespace.clone(),
            reason,
            cluster_only: false,
        }
    }

    /// The port of the Service: the named one, or its only one.
    fn port_of<'a>(&self, service: &'a Service) -> Result<&'a k3s_api::ServicePort, MachineError> {
        let ports = &service.ports;
        let known = || {
            let all: Vec<String> = ports.iter().map(|it| it.port.to_string()).collect();
            format!("its ports are {}", all.join(", "))
        };
        let port = match &self.port {
            None if ports.len() == 1 => ports.first(),
            None => return Err(self.refused(format!("{}: say which", known()))),
            Some(port) => ports
                .iter()
                .find(|it| it.port.to_string() == *port || it.name.as_ref() == Some(port)),
        };
        port.ok_or_else(|| self.refused(known()))
    }
}

/// A free port of the host: the same number, 8080 for 80, 8443 for 443, or any.
fn similar_free_port(port: u16, protocol: Protocol) -> Result<HostPort, MachineError> {
    let near = [Some(port), port.checked_add(8000)].into_iter().flatten();
    let mut near = near.map(|port| HostPort { port, protocol });
    match near.find(|it| host::check_port(*it).is_ok()) {
        Some(host) => Ok(host),
        None => host::free_port(protocol),
    }
}

/// The config, and its forwards or the default ones.
fn config(machine: &Machine) -> Result<(Config, Vec<Forward>), MachineError> {
    if machine.state()?.record().is_none() {
        return Err(MachineError::absent(&machine.project));
    }
    let config = approval::load(&machine.project)?;
    let ports = of(&config);
    Ok((config, ports))
}

/// The ports to forward to the guest, besides those of the API and SSH.
///
/// # Errors
///
/// When the config cannot be read.
pub fn chosen(project: &Project) -> Result<Vec<Forward>, MachineError> {
    Ok(of(&Config::load(&project.config())?))
}

fn of(config: &Config) -> Vec<Forward> {
    config.ports.clone().unwrap_or_else(|| INGRESS.to_vec())
}

fn runs(machine: &Machine) -> Result<bool, MachineError> {
    Ok(matches!(machine.state()?, State::Running(..)))
}

fn save(machine: &Machine, config: Config, ports: Vec<Forward>) -> Result<(), MachineError> {
    let config = Config {
        ports: Some(ports),
        ..config
    };
    Ok(approval::save(&machine.project, &config)?)
}

async fn forwards(monitor: &mut Monitor<UnixStream>) -> Result<Vec<Forward>, MonitorError> {
    Ok(usernet::forwards(&monitor.human("info usernet").await?))
}

/// Adds the forward in QEMU, unless it exists.
async fn ensure(monitor: &mut Monitor<UnixStream>, forward: Forward) -> Result<(), MachineError> {
    if forwards(monitor).await?.contains(&forward) {
        return Ok(());
    }
    host::check_port(forward.host)?;
    let said = monitor.human(&usernet::add(forward)).await?;
    if said.trim().is_empty() {
        return Ok(());
    }
    Err(MachineError::PortRefused {
        port: forward.host.port,
        reason: said.trim().to_owned(),
    })
}
