//! `status`: a table or a JSON document. The exit code is a summary.

use std::{
    fmt::Write,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use tokio::time::MissedTickBehavior;

use crate::{
    base::{Protocol, Size},
    cli::{
        context::Context,
        error::{CommandError, code},
        interrupt::Signals,
        terminal::{output::Output, sanitize::sanitize, screen::Screen},
    },
    machine::{
        access::ports::Port,
        report::status::{self, Cluster, MachineDetails, MachineState, Status},
    },
};

/// The arguments of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm status\n  \
    k3s-vm status --verbose\n  \
    k3s-vm status --json | jq .cluster.nodes\n  \
    k3s-vm status --watch\n  \
    k3s-vm status -q || k3s-vm start\n\n\
    When it fails:\n  \
    Exit code 1 means that the record or the config of the VM is damaged; the error names the file. `k3s-vm logs k3s` \
    and `k3s-vm logs console` show why a running VM is not healthy (5).")]
pub struct Args {
    /// Print one JSON document with a "schema" number
    #[arg(long)]
    json: bool,
    /// Refresh every second, until Ctrl-C; with --json, print one document a line
    #[arg(long, short)]
    watch: bool,
}

pub(crate) async fn run(
    args: &Args,
    verbose: bool,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    if args.watch {
        return watch(args.json, verbose, context, output).await;
    }
    let status = status::status(&context.project).await?;
    if args.json {
        output.document(&status)?;
    } else {
        output.data(&sanitize(&screen(&status, verbose)));
    }
    Ok(exit_code(&status))
}

fn exit_code(status: &Status) -> ExitCode {
    ExitCode::from(match status.state {
        MachineState::Running if status.healthy => 0,
        MachineState::Running => code::UNHEALTHY,
        MachineState::Stopped | MachineState::Suspended => code::STOPPED,
        MachineState::Absent => code::ABSENT,
    })
}

const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The exit code of Ctrl-C, the usual end of watching.
const CTRL_C: u8 = 130;

/// Watches until a signal. The exit code is that of the last status.
async fn watch(
    json: bool,
    verbose: bool,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let mut signals = Signals::listen()?;
    let live_screen = if json { None } else { Some(Screen::open()?) };
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = ExitCode::SUCCESS;
    let mut shown = String::new();
    loop {
        let look = async {
            ticks.tick().await;
            status::status(&context.project).await
        };
        let status = tokio::select! {
            status = look => status?,
            code = signals.next() => match code {
                CTRL_C => break,
                code => return Err(CommandError::interrupted(code)),
            },
        };
        last = exit_code(&status);
        match &live_screen {
            Some(live_screen) => {
                shown = screen(&status, verbose);
                live_screen.draw(&shown);
            }
            None => output.document_line(&status),
        }
        if output.is_closed() {
            break;
        }
    }
    drop(live_screen);
    output.data(&sanitize(&shown));
    Ok(last)
}

/// Two columns, the keys padded.
#[derive(Default)]
struct StatusScreen(String);

impl StatusScreen {
    fn row(&mut self, key: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{key:<12} {value}");
    }
}

fn screen(status: &Status, verbose: bool) -> String {
    let mut screen = StatusScreen::default();
    let Some(machine) = &status.machine else {
        let vm = status.vm.as_ref();
        let which = vm.map_or_else(|| "none".to_owned(), |it| format!("none called {it}"));
        let project = status.project.display();
        screen.row("VM", format_args!("{which} in {project}"));
        return screen.0;
    };
    screen.row("VM", &machine.name);
    screen.row("state", state(status));
    screen.row("resources", resources(machine));
    if let Some(after) = &machine.idle_suspend {
        screen.row("idle", format_args!("suspends after {after} without use"));
    }
    screen.row("image", &machine.image);
    screen.row("k3s", &machine.k3s);
    if let Some(process) = &status.process {
        let port = |port: Option<u16>| {
            port.map_or_else(|| "none".to_owned(), |port| format!("127.0.0.1:{port}"))
        };
        screen.row(
            "ports",
            format_args!(
                "API {}, SSH {}",
                port(process.api_port),
                port(process.ssh_port)
            ),
        );
    }
    if let Some(forwarded) = forwarded(status, verbose) {
        screen.row("forwarded", forwarded);
    }
    if let Some(cluster) = &status.cluster {
        cluster_rows(&mut screen, cluster);
    }
    screen.row("kubeconfig", machine.kubeconfig.display());
    if verbose {
        details(&mut screen, status, machine);
    }
    screen.0
}

fn cluster_rows(screen: &mut StatusScreen, cluster: &Cluster) {
    match &cluster.reason {
        None => screen.row("API", format_args!("ready on {}", cluster.server)),
        Some(reason) => screen.row("API", format_args!("not ready: {reason}")),
    }
    for node in &cluster.nodes {
        let ready = if node.ready { "Ready" } else { "NotReady" };
        screen.row(
            "node",
            format_args!("{} {ready} {}", node.name, node.version),
        );
    }
}

/// The ports besides those of the API and SSH. Ports of the ingress that another VM has are shown only with
/// `--verbose`.
fn forwarded(status: &Status, verbose: bool) -> Option<String> {
    let runs = status.state == MachineState::Running;
    let told = |it: &&Port| match it.purpose {
        None => true,
        Some("the ingress") => verbose || it.open || !runs,
        Some(_) => false,
    };
    let ports = status.ports.iter().filter(told).map(|port| {
        let protocol = match port.protocol {
            Protocol::Tcp => "",
            Protocol::Udp => "/udp",
        };
        let closed = if runs && !port.open { " (closed)" } else { "" };
        format!("{} to {}{protocol}{closed}", port.address, port.guest)
    });
    let ports = ports.collect::<Vec<_>>().join(", ");
    match (ports.is_empty(), runs) {
        (true, _) => None,
        (false, true) => Some(ports),
        (false, false) => Some(format!("{ports} (from the next start on)")),
    }
}

fn state(status: &Status) -> String {
    match (&status.state, &status.process) {
        (MachineState::Running, Some(process)) if process.run_state != "running" => {
            format!("running ({})", process.run_state)
        }
        (MachineState::Running, _) if status.healthy => "running, healthy".to_owned(),
        (MachineState::Running, _) => "running, not healthy".to_owned(),
        (MachineState::Stopped, _) if status.machine.as_ref().is_some_and(|it| !it.provisioned) => {
            "stopped, setup not finished".to_owned()
        }
        (MachineState::Stopped, _) => "stopped".to_owned(),
        (MachineState::Suspended, _) => {
            let kept = status.suspended.as_ref();
            let reason = kept.and_then(|it| it.reason.clone());
            reason.unwrap_or_else(|| "suspended".to_owned())
        }
        (MachineState::Absent, _) => "absent".to_owned(),
    }
}

/// In UTC.
pub(crate) fn time(seconds: u64) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    // The formatter fails with years of more than four digits, and a file may have any number.
    match time {
        Some(time) if seconds < 1 << 37 => humantime::format_rfc3339_seconds(time).to_string(),
        _ => format!("{seconds} s after 1970"),
    }
}

fn resources(machine: &MachineDetails) -> String {
    let size = |bytes| Size::bytes(bytes).approximate();
    let cpus = if machine.cpus == 1 {
        "1 CPU".to_owned()
    } else {
        format!("{} CPUs", machine.cpus)
    };
    format!(
        "{cpus}, {} memory, {} disk ({} used)",
        size(machine.memory),
        size(machine.disk),
        size(machine.disk_used)
    )
}

fn details(screen: &mut StatusScreen, status: &Status, machine: &MachineDetails) {
    screen.row("uuid", &machine.uuid);
    screen.row("firmware", &machine.firmware);
    if let Some(process) = &status.process {
        screen.row("process", process.pid);
        screen.row("accel", process.accelerator.unwrap_or("unknown"));
        if let Some(uptime) = process.uptime {
            screen.row(
                "uptime",
                humantime::format_duration(Duration::from_secs(uptime)),
            );
        }
        screen.row("monitor", process.monitor.display());
    }
    if let Some(kept) = &status.suspended {
        if let Some(since) = kept.since {
            screen.row("suspended", format_args!("since {}", time(since)));
        }
        let used = Size::bytes(kept.memory_used).approximate();
        let path = kept.memory_path.display();
        screen.row("memory", format_args!("{path} ({used})"));
    }
    for node in status.cluster.iter().flat_map(|cluster| &cluster.nodes) {
        if let Some(address) = &node.address {
            screen.row(
                "address",
                format_args!("{address} (in the guest's network)"),
            );
        }
    }
    screen.row("project", status.project.display());
    screen.row("disk", machine.disk_path.display());
    screen.row("base image", machine.image_path.display());
    screen.row("console", machine.console_log.display());
}
