//! What a command costs, seen from outside: time, processor, memory, bytes written; and what lies on the disk.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};

/// The kernel's unit in /proc/PID/stat, and the block of `getrusage`, on all Linux that k3s-vm runs on.
const TICKS: f64 = 100.0;
const BLOCK: u64 = 512;

/// What one run of a command took, in seconds and bytes; its children count as far as it waited for them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) took: f64,
    pub(crate) processor: f64,
    pub(crate) written: f64,
}

/// Runs a command that succeeds.
pub(crate) fn cost(command: &mut Command) -> Cost {
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    cost_of(command.spawn().expect("it starts"))
}

/// The same, and the most memory that the process itself had.
pub(crate) fn cost_and_memory(command: &mut Command) -> (Cost, f64) {
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let pid = child.id();
    let watcher = thread::spawn(move || {
        let mut most = 0.0;
        while let Some(memory) = peak_memory(pid) {
            most = memory;
            thread::sleep(Duration::from_millis(50));
        }
        most
    });
    (cost_of(child), watcher.join().expect("the watcher ends"))
}

fn cost_of(child: Child) -> Cost {
    let (began, before) = (Instant::now(), getrusage(UsageWho::RUSAGE_CHILDREN));
    let output = child.wait_with_output().expect("it ends");
    let took = began.elapsed().as_secs_f64();
    let (before, after) = (
        before.expect("Linux"),
        getrusage(UsageWho::RUSAGE_CHILDREN).expect("Linux"),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let processor = |usage: &nix::sys::resource::Usage| {
        usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
    };
    let blocks = (after.block_writes() - before.block_writes()).unsigned_abs();
    Cost {
        took,
        processor: (processor(&after) - processor(&before)) as f64 / 1e6,
        written: (blocks * BLOCK) as f64,
    }
}

/// Runs `work` once to warm up and then `runs` times; in seconds.
pub(crate) fn times(runs: usize, mut work: impl FnMut()) -> Vec<f64> {
    work();
    let timed = |_| {
        let began = Instant::now();
        work();
        began.elapsed().as_secs_f64()
    };
    (0..runs).map(timed).collect()
}

/// The most memory that a living process has had, in bytes.
pub(crate) fn peak_memory(pid: u32) -> Option<f64> {
    let kib: u64 = line(&format!("/proc/{pid}/status"), "VmHWM:")?
        .strip_suffix(" kB")?
        .parse()
        .ok()?;
    Some((kib * 1024) as f64)
}

/// The bytes that a living process has had written to disks.
pub(crate) fn written(pid: u32) -> f64 {
    let bytes = line(&format!("/proc/{pid}/io"), "write_bytes:");
    bytes
        .and_then(|bytes| bytes.parse().ok())
        .expect("QEMU runs")
}

/// When a living process was started, in seconds since the host's boot, and the seconds of processor that it has had.
pub(crate) fn started_and_processor(pid: u32) -> (f64, f64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("QEMU runs");
    // The second field is the program's name, which may have spaces. proc(5) counts from one.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: Vec<f64> = fields
        .split_whitespace()
        .map(|field| field.parse().unwrap_or_default())
        .collect();
    let field = |number: usize| ticks[number - 3] / TICKS;
    (field(22), field(14) + field(15))
}

/// Seconds since the host's boot.
pub(crate) fn uptime() -> f64 {
    first_number(&fs::read_to_string("/proc/uptime").expect("Linux"))
}

/// How many processes of the host want a processor, over the last minute.
pub(crate) fn load() -> f64 {
    first_number(&fs::read_to_string("/proc/loadavg").expect("Linux"))
}

/// The number that a text begins with.
pub(crate) fn first_number(text: &str) -> f64 {
    let number = text
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("a number, not {text:?}"))
}

/// The value of the line of a file of the kernel's that begins with `key`.
pub(crate) fn line(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(value.trim().to_owned())
}

/// The blocks that a directory takes, not the lengths of its files.
pub(crate) fn disk_used(directory: &Path) -> f64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(it) if it.is_dir() => disk_used(&entry.path()),
            Ok(it) => allocated(&it),
            Err(_) => 0.0,
        })
        .sum()
}

/// The blocks that a file takes, in bytes.
pub(crate) fn allocated(file: &Metadata) -> f64 {
    (file.blocks() * BLOCK) as f64
}
