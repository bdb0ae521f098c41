//! Two ways to the same cluster, measured alike: what a way is, and how long each phase of its boot takes.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::measure::{
    Cost, cost_and_memory, first_number, peak_memory, started_and_processor, uptime, written,
};

/// A way to a machine with k3s.
pub(crate) trait Way {
    /// The command that does `setup`, `start` or `stop`.
    fn command(&self, verb: &str) -> Command;
    /// The command that has the guest's shell run a script.
    fn in_guest(&self, script: &str) -> Command;
    /// Where QEMU writes its process id.
    fn pidfile(&self) -> PathBuf;
}

/// From the command to the node that the host sees Ready, one after the other.
pub(crate) const PHASES: [&str; 6] = [
    "before QEMU runs",
    "firmware and loader",
    "kernel and initrd",
    "user space until k3s",
    "k3s until it says so",
    "until the host sees Ready",
];

/// The seconds of each phase.
pub(crate) type Phases = [f64; PHASES.len()];

/// A machine that was brought up, and what that took. The bytes include those of QEMU.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) cost: Cost,
    /// The most that the command itself had.
    pub(crate) memory: f64,
    /// The most that QEMU has had.
    pub(crate) qemu_memory: f64,
    /// The seconds of processor that QEMU has had: what is left of a boot's time when others keep the host busy.
    pub(crate) qemu_processor: f64,
    pub(crate) phases: Phases,
}

/// `setup` or `start`, to the node that is Ready.
pub(crate) fn bring_up(way: &impl Way, verb: &str) -> Up {
    let began = uptime();
    let (mut cost, memory) = cost_and_memory(&mut way.command(verb));
    let pid = fs::read_to_string(way.pidfile()).expect("QEMU runs");
    let pid = first_number(&pid) as u32;
    cost.written += written(pid);
    let (started, qemu_processor) = started_and_processor(pid);
    Up {
        phases: phases(way, [began, started, began + cost.took]),
        qemu_processor,
        qemu_memory: peak_memory(pid).expect("QEMU runs"),
        cost,
        memory,
    }
}

/// What the guest knows: its uptime now, and when PID 1 and k3s began and k3s told that it had started.
const ASK: &str = "cat /proc/uptime
    systemctl show --property=UserspaceTimestampMonotonic
    systemctl show --property=ExecMainStartTimestampMonotonic,ActiveEnterTimestampMonotonic k3s";

/// Between what the host knows (the command's begin, QEMU's, the command's end) lies what the guest knows.
fn phases(way: &impl Way, [began, started, ended]: [f64; 3]) -> Phases {
    let mut asked = way
        .in_guest(ASK)
        .stdout(Stdio::piped())
        .spawn()
        .expect("ssh runs");
    let mut answer = BufReader::new(asked.stdout.take().expect("a pipe"));
    let mut first = String::new();
    answer.read_line(&mut first).expect("the guest answers");
    // The moment that both clocks know; the guest's began with its kernel.
    let kernel = uptime() - first_number(&first);
    let mut rest = String::new();
    answer.read_to_string(&mut rest).expect("the guest answers");
    assert!(asked.wait().is_ok_and(|status| status.success()), "{rest}");
    let at = |key: &str| {
        let micros = rest.lines().find_map(|line| line.strip_prefix(key));
        kernel + first_number(micros.unwrap_or_else(|| panic!("{key} in {rest}"))) / 1e6
    };
    let mut moments = [
        began,
        started,
        kernel,
        at("UserspaceTimestampMonotonic="),
        at("ExecMainStartTimestampMonotonic="),
        at("ActiveEnterTimestampMonotonic="),
        ended,
    ];
    // The phases before QEMU began are in the memory from which the guest continued.
    for at in 1..moments.len() {
        moments[at] = moments[at].max(moments[at - 1]);
    }
    std::array::from_fn(|phase| moments[phase + 1] - moments[phase])
}
