//! Other choices for a machine that is there: taken where nothing is lost, kept for later where it runs.

use std::fs;

use rustix::process::Signal;

use super::sandbox::{Background, Sandbox};
use crate::support::dead_image;

#[test]
fn other_choices_for_a_vm_that_never_booted() {
    let sandbox = Sandbox::new();
    sandbox.stopped();
    let first = sandbox.status()["machine"].clone();
    let other = dead_image(&sandbox.env.path("other.img"));
    let image = other.display().to_string();
    sandbox.continues(sandbox.setup(&["--image", &image, "--disk", "30GiB"]));
    let second = sandbox.status()["machine"].clone();
    assert_eq!(second["image"], image);
    assert_ne!(second["uuid"], first["uuid"]);
    // As soon as a guest has written anything, the disk has data of the user.
    let disk = fs::OpenOptions::new()
        .append(true)
        .open(sandbox.file("disk.qcow2"));
    disk.and_then(|disk| disk.set_len(1 << 20))
        .expect("written");
    let words = [
        "cannot change the disk size from 30GiB",
        "k3s-vm reset && k3s-vm setup",
    ];
    sandbox.fails(
        "other choices for a disk that was written to",
        sandbox.setup(&["--disk", "40GiB"]),
        2,
        &words,
    );
}

#[test]
fn choices_that_a_running_vm_cannot_use() {
    let sandbox = Sandbox::new();
    sandbox.left_running();
    let setup = Background::start(
        &sandbox,
        sandbox.setup(&["--cpus", "3", "--memory", "2GiB"]),
    );
    setup.says("is already running");
    let later = "from the next start on (k3s-vm restart)";
    for choice in ["cpus = 3 instead of 2", "memory = 2GiB instead of 1GiB"] {
        let line = format!("{choice}: {later}");
        assert!(setup.said().contains(&line), "{}", setup.said());
    }
    assert_eq!(sandbox.status()["machine"]["cpus"], 2);
    setup.signal(Signal::INT);
    assert_eq!(setup.end().code, 130);
    let start = Background::start(&sandbox, sandbox.env.command(&["start"]));
    start.says("(3 CPUs, 2GiB of memory, tcg)");
}
