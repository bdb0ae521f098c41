//! An idle VM is suspended automatically.
//!
//! A process of its own watches one QEMU, from its start to its end: the same program, detached as QEMU is. It has a lock,
//! so that there is one for a VM, and it believes no file but the config, which it reads again each time. When it dies,
//! the only effect is that the VM is not watched until the next start.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use qapi::qmp::{self, RunState};

use crate::{
    base::{Protocol, causes::with_causes, files},
    machine::{
        Machine, MachineError, Spec, State,
        control::guest,
        lifecycle::stop::{self, StopMode, StopOutcome},
    },
    project::{Project, idle, user},
    qemu::{MonitorError, Process, monitor_of, spawn, usernet},
};

/// The hidden command that watches.
pub const VERB: &str = "idle-watch";

/// The longest time between two checks: the host remembers a closed connection for twice as long.
const LONGEST_INTERVAL: Duration = Duration::from_secs(30);

const SHORTEST_INTERVAL: Duration = Duration::from_millis(200);

/// How long the watch of the VM's former QEMU may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(50);

/// Starts the watch, if the VM has an idle time. A failure is only logged.
pub(crate) fn start_watch(project: &Project, spec: &Spec) {
    if spec.idle_suspend.is_none() {
        return;
    }
    if !spec.mounts.is_empty() {
        tracing::warn!("a VM with mounts is not suspended when idle");
        return;
    }
    let begun = files::open_in_place(&project.used(), false).and_then(|_| {
        let program =
            std::env::current_exe().map_err(files::FileError::on("find", &project.used()))?;
        let alias = project.alias().map_or("", |it| it.as_str());
        let mut command = Command::new(&program);
        command
            .arg("-C")
            .arg(project.root())
            .args([&format!("--name={alias}"), VERB])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        spawn::detach(&mut command, None);
        command
            .spawn()
            .map_err(files::FileError::on("run", &program))
    });
    if let Err(error) = begun {
        tracing::warn!(%error, "the VM will not be suspended when idle: cannot start the idle watch");
    }
}

/// The idle watch of a VM.
#[derive(Debug)]
pub struct Watch {
    project: Project,
    process: Process,
    after: Option<Duration>,
    used: Instant,
    touched: Option<SystemTime>,
    closed: BTreeSet<(u16, u16)>,
    _lock: File,
}

impl Watch {
    /// Starts to watch the running QEMU; `None` without one, or if another process watches it.
    ///
    /// # Errors
    ///
    /// When the VM cannot be looked at.
    pub async fn start(project: &Project) -> Result<Option<Self>, MachineError> {
        let State::Running(_, process) = State::observe(project)? else {
            return Ok(None);
        };
        let lock = files::open_in_place(&project.idle_lock(), false)?;
        let began = Instant::now();
        while lock.try_lock().is_err() {
            if began.elapsed() >= END_TIMEOUT {
                return Ok(None);
            }
            tokio::time::sleep(POLL).await;
        }
        let mut watch = Self {
            project: project.clone(),
            process,
            after: None,
            used: Instant::now(),
            touched: None,
            closed: BTreeSet::new(),
            _lock: lock,
        };
        watch.is_used().await;
        Ok(Some(watch))
    }

    /// Waits until the VM was idle for the configured time, and returns that time; `None` when QEMU has ended, or the
    /// VM has no idle time any more.
    pub async fn until_idle(&mut self) -> Option<Duration> {
        loop {
            match user::chosen(&self.project) {
                Ok(chosen) => self.after = chosen.idle_suspend.and_then(|it| it.0),
                // The config may be being written; the former value applies.
                Err(error) => tracing::debug!(%error, "the config cannot be read"),
            }
            let after = self.after?;
            let pause = (after / 10).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
            if self.process.ends_within(pause).await {
                return None;
            }
            if self.is_at_work() || self.is_used().await {
                self.used = Instant::now();
            }
            if self.used.elapsed() >= after {
                return Some(after);
            }
        }
    }

    /// Suspends the VM, if it is still idle. A failure is noted.
    ///
    /// # Errors
    ///
    /// Those of [`stop::stop`]; [`Machine::cleanup_on_failure`] then continues the guest.
    pub async fn suspend(
        &mut self,
        machine: &Machine,
        after: Duration,
    ) -> Result<(), MachineError> {
        self.used = Instant::now();
        let runs = matches!(machine.state()?, State::Running(_, process) if process.pid() == self.process.pid());
        if !runs || self.is_used().await {
            return Ok(());
        }
        let after = humantime::format_duration(after);
        let ended = stop::stop(machine, StopMode::Suspend, None).await;
        let what = match &ended {
            Ok(StopOutcome::Suspended) => format!("suspended after {after} idle"),
            Ok(_) => return Ok(()),
            Err(error) => format!("not suspended after {after} idle: {}", with_causes(error)),
        };
        idle::note(&self.project, &what)?;
        ended.map(drop)
    }

    /// Returns `true` when a command is changing the VM now.
    fn is_at_work(&self) -> bool {
        files::open_regular(&self.project.lock()).is_ok_and(|lock| lock.try_lock_shared().is_err())
    }

    /// Returns `true` when the VM was used since the last check, or that is unknown.
    async fn is_used(&mut self) -> bool {
        let touched = fs::metadata(self.project.used()).and_then(|it| it.modified());
        let touched = touched.ok();
        let was_touched = std::mem::replace(&mut self.touched, touched) != touched;
        match self.has_connections().await {
            Ok(connections) => was_touched || connections,
            Err(error) => {
                tracing::debug!(%error, "QEMU does not tell of connections");
                true
            }
        }
    }

    /// Returns `true` when there are connections to forwarded ports, or were since the last check. A guest that the
    /// user paused counts as used.
    async fn has_connections(&mut self) -> Result<bool, MonitorError> {
        let told = {
            let mut monitor = monitor_of(&self.project).await?;
            if monitor.execute(qmp::query_status {}).await?.status != RunState::running {
                return Ok(true);
            }
            monitor.human("info usernet").await?
        };
        let forwards = usernet::forwards(&told);
        let datagrams = forwards
            .iter()
            .filter(|it| it.host.protocol == Protocol::Udp)
            .map(|it| it.guest)
            .collect::<Vec<u16>>();
        if !datagrams.is_empty() {
            match guest::exec(&self.project, FLOWS).await {
                Ok(said) if !has_flow(&String::from_utf8_lossy(&said), &datagrams) => {}
                Ok(_) => return Ok(true),
                Err(error) => {
                    tracing::debug!(%error, "the guest does not tell of UDP");
                    return Ok(true);
                }
            }
        }
        let ports: Vec<u16> = forwards.iter().map(|it| it.host.port).collect();
        let closed = closed_connections(&ports);
        let is_new = !closed.is_subset(&self.closed);
        self.closed = closed;
        Ok(is_new || usernet::is_connected(&told))
    }
}

/// The guest's list of UDP flows. QEMU does not report the datagrams that it forwards, and the host's kernel does not
/// count them. The guest's kernel, which translates the addresses for k3s, remembers a flow for at least half a minute.
/// The host is 10.0.2.2 there.
const FLOWS: &str = "cd /proc/net; if [ -r nf_conntrack ]; then grep 'udp .* src=10.0.2.2 ' nf_conntrack; true; \
     else echo unknown; fi";

/// Returns `true` when one of these ports of the guest had a recent datagram, or that is unknown.
fn has_flow(said: &str, ports: &[u16]) -> bool {
    said.lines().any(|line| {
        // The addresses of the answer follow.
        let mut words = line.split_whitespace();
        let port = words.find_map(|it| it.strip_prefix("dport="));
        port.is_none_or(|it| it.parse().is_ok_and(|it| ports.contains(&it)))
    })
}

/// Connections to these ports of 127.0.0.1 that were closed within the last minute, from the host's kernel
/// (proc_pid_net(5)): a short one may start and end between two checks.
fn closed_connections(ports: &[u16]) -> BTreeSet<(u16, u16)> {
    let tables = ["tcp", "tcp6"].map(|it| fs::read_to_string(format!("/proc/self/net/{it}")));
    let tables = tables.map(Result::unwrap_or_default);
    tables
        .iter()
        .flat_map(|it| it.lines())
        .filter_map(|line| closed_connection(line, ports))
        .collect()
}

/// The state TIME_WAIT.
const CLOSED: &str = "06";

/// 127.0.0.1, at the end of both a plain and an IPv6 socket's address.
const LOOPBACK: &str = "0100007F";

fn closed_connection(line: &str, ports: &[u16]) -> Option<(u16, u16)> {
    let mut columns = line.split_whitespace().skip(1);
    let (local, remote) = (columns.next()?, columns.next()?);
    if columns.next()? != CLOSED {
        return None;
    }
    let port = |side: &str| {
        let (address, port) = side.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        address.ends_with(LOOPBACK).then_some(port)
    };
    let (local, remote) = (port(local)?, port(remote)?);
    (ports.contains(&local) || ports.contains(&remote)).then_some((local, remote))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udp_traffic_counts_as_use() {
        let flow = |port: u16, back: u16| {
            format!(
                "ipv4     2 udp      17 28 src=10.0.2.2 dst=10.0.2.15 sport=40000 dport={port} [UNREPLIED] \
                 src=10.42.0.7 dst=10.42.0.1 sport={back} dport=1024 mark=0 zone=0 use=2\n"
            )
        };
        assert!(!has_flow("", &[30053]));
        assert!(has_flow(&flow(30053, 53), &[53, 30053]));
        assert!(!has_flow(&flow(30053, 53), &[53, 1024]));
        assert!(has_flow(&(flow(1, 2) + &flow(30053, 53)), &[30053]));
        assert!(has_flow("unknown\n", &[30053]));
    }

    #[test]
    fn closed_connections_are_read_from_the_kernels_table() {
        let line = |local: &str, remote: &str, state: &str| {
            let line = format!("   3: {local} {remote} {state} 00000000:00000000 03:00001650");
            closed_connection(&line, &[6443])
        };
        // 0x192B is 6443, 0xD431 is 54321.
        assert_eq!(
            line("0100007F:192B", "0100007F:D431", "06"),
            Some((6443, 54321))
        );
        assert_eq!(
            line("0100007F:D431", "0100007F:192B", "06"),
            Some((54321, 6443))
        );
        let mapped = |port: &str| format!("0000000000000000FFFF00000100007F:{port}");
        assert_eq!(
            line(&mapped("D431"), &mapped("192B"), "06"),
            Some((54321, 6443))
        );
        assert_eq!(line("0100007F:192B", "0100007F:D431", "01"), None);
        assert_eq!(line("0100007F:192C", "0100007F:D431", "06"), None);
        assert_eq!(line("0200A8C0:192B", "0100A8C0:D431", "06"), None);
        assert_eq!(
            closed_connection("  sl  local_address rem_address   st", &[6443]),
            None
        );
    }
}
