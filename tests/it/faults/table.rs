//! The table of faults: what was done to the program, how it ended, what it said, and what it left behind. A row is
//! written when it is known, before anything is asserted of it, so that a fault that was not survived is in it as well.
//! `tests/faults-table.sh` makes tests/faults.md of it.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    panic::Location,
    path::{Path, PathBuf},
};

use regex::Regex;

use super::sandbox::Sandbox;
use crate::support::{Ended, TestEnv, names};

/// The rows of this run: area, fault, exit code, first line said, what is left.
fn file() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults.tsv")
}

/// Writes the row of a command that met a fault, and expects that nothing of it is left: no process, no socket, no
/// temporary file, no held lock.
#[track_caller]
pub(super) fn record_stopped_fault(sandbox: &Sandbox, fault: &str, ended: &Ended) {
    told(sandbox, fault, ended, &sandbox.left());
}

/// The same for a VM that keeps running: its QEMU and socket do not count as left behind.
#[track_caller]
pub(super) fn record_running_fault(sandbox: &Sandbox, fault: &str, ended: &Ended) {
    let mut left = sandbox.left();
    let sockets = names(&sandbox.env.path("run/k3s-vm"));
    left.retain(|it| !it.contains("qemu-system-x86_64 ") && !sockets.contains(it));
    told(sandbox, fault, ended, &left);
}

#[track_caller]
fn told(sandbox: &Sandbox, fault: &str, ended: &Ended, left: &[String]) {
    let said = first_line(&sandbox.env, &ended.stderr);
    let root = sandbox.env.path("");
    let fault = fault.replace(root.to_string_lossy().as_ref(), "~/");
    row(&fault, ended.code, &said, left);
    assert!(left.is_empty(), "left behind by {fault}: {left:?}");
}

/// A row for those who watch, and for tests/faults.md.
#[track_caller]
pub(super) fn row(fault: &str, code: i32, said: &str, left: &[String]) {
    let file_of_test = Path::new(Location::caller().file());
    let area = file_of_test
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    let left = if left.is_empty() {
        "nothing".to_owned()
    } else {
        left.join(", ")
    };
    super::sandbox::say(&format!("  {fault} | {code} | {said} | {left}"));
    let line = [&area, fault, &code.to_string(), said, &left]
        .map(|cell| cell.replace(['\t', '\n'], " "))
        .join("\t");
    // One write to the end of the file: tests may run side by side.
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(file())
        .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
        .expect("the table can be written");
}

/// The message: an error, else a warning, else the last word; without what differs from run to run.
pub(super) fn first_line(env: &TestEnv, stderr: &str) -> String {
    let starting = |word: &str| stderr.lines().find(|line| line.starts_with(word));
    let line = starting("error:")
        .or_else(|| starting("warning:"))
        .or_else(|| stderr.lines().last())
        .unwrap_or_default();
    let root = env.path("");
    let mut line = line.replace(root.to_string_lossy().as_ref(), "~/");
    for (pattern, word) in [
        (r"^ *[0-9]+\.[0-9]s  ", ""),
        (r"process [0-9]+", "process N"),
        (r"(127\.0\.0\.1|localhost):[0-9]+", "$1:PORT"),
        (r"[0-9a-f]{64}", "DIGEST"),
        (r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]+ UTC", "TIME"),
        (r"k3s-vm/[0-9a-f]{16}/", "k3s-vm/ID/"),
        (r"cache/users/[0-9a-f]{16}", "cache/users/ID"),
        (r"(k3s-[a-z]+)-[0-9a-f]{6}", "$1-HASH"),
        (r"port [0-9]{4,5} on", "port N on"),
        (
            r"[0-9.]+ [KMG]iB free, the guest's memory needs [0-9.]+ MiB",
            "FREE free, the guest's memory needs NEEDED",
        ),
        (r"[0-9]+\.[0-9]+\.[0-9]+ \(Debian [^)]+\)", "VERSION"),
        (
            r"/tmp/(k3s-vm-tests\.[A-Za-z0-9]+/)?k3s-vm-it-[A-Za-z0-9]+/",
            "~/",
        ),
    ] {
        line = Regex::new(pattern)
            .expect("sound")
            .replace_all(&line, word)
            .into_owned();
    }
    line
}

/// The unfinished files below `directory`.
pub(super) fn temporary_files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(temporary_files(&path));
        } else if entry.file_name().to_string_lossy().starts_with(".tmp-") {
            found.push(path.display().to_string());
        }
    }
    found
}
