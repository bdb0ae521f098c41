//! A VM that is suspended and resumed: there and back, elsewhere, and as the usual way to stop.
//!
//! Its guest boots nothing, so that `start` resumes it and then waits in vain for its cluster.

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use k3s_vm::{
    image::template::{self, Level},
    project::{Identity, Project, Record, Suspended},
};
use rustix::process::Signal;

use super::{
    outdated::boots,
    sandbox::{Background, Sandbox, eventually},
    table::record_running_fault,
};
use crate::support::{Ended, finish, mode, names, program};

/// What the saved state is in.
pub(super) const STATE: [&str; 2] = ["memory", "suspended.json"];

impl Sandbox {
    /// A VM that runs after a completed setup: no command is running.
    pub(super) fn runs(&self) {
        self.left_running();
        self.provisioned(".kube/config".as_ref());
    }

    /// The same, suspended.
    #[track_caller]
    pub(super) fn suspended(&self) {
        self.runs();
        let ended = self.suspend();
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(self.is_suspended());
    }

    /// No machine, and in the cache a disk with the memory of a guest: an unprovisioned one, or where the config says so
    /// a template.
    pub(super) fn has_template_memory(&self) {
        let folder = self.env.cache.join("prepared");
        if folder.exists() && names(&folder).len() == 3 {
            return;
        }
        self.suspended();
        let disk = self.status()["machine"]["image_path"].clone();
        let disk = Path::new(disk.as_str().expect("told"));
        let text = fs::read_to_string(self.file("suspended.json")).expect("there");
        let note = Suspended::parse(&text).expect("sound");
        fs::copy(self.file("memory"), template::memory_path(disk)).expect("copied");
        let project = Project::at(&self.env.project);
        let record = Record::read(&project).expect("sound").expect("there").0;
        let identity = Identity::of(&project, &record).expect("readable");
        let identity = identity.filter(|_| template::level(disk) == Level::Ready);
        template::publish(disk, Some(note.memory), identity).expect("published");
        self.env.ok(&["reset", "--yes"]);
        assert_eq!(names(&folder).len(), 3);
    }

    pub(super) fn suspend(&self) -> Ended {
        finish(self.inside(self.env.command(&["stop", "--suspend"])))
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.status()["state"] == "suspended"
    }

    /// `start` of the suspended VM, whose guest does not answer.
    pub(super) fn resume(&self) -> Command {
        self.inside(self.env.command(&["start", "--timeout", "2s"]))
    }

    /// The guest continues where it was, and does not boot.
    #[track_caller]
    pub(super) fn resumes_from_memory(&self, command: Command) -> Ended {
        let ended = finish(command);
        assert_eq!(ended.code, 1, "{ended:?}");
        for words in ["resuming ", "not done within 2s: the guest's kubeconfig"] {
            assert!(ended.stderr.contains(words), "{ended:?}");
        }
        assert!(!ended.stderr.contains("instead of resuming"), "{ended:?}");
        self.is_in_memory();
        ended
    }

    /// Its QEMU runs on memory that was saved, and no saved memory is left.
    #[track_caller]
    pub(super) fn is_in_memory(&self) {
        let status = self.status();
        assert_eq!(status["process"]["run_state"], "running", "{status}");
        assert!(self.processes().iter().any(|it| it.contains(" -incoming ")));
        self.state_is_gone();
    }

    #[track_caller]
    pub(super) fn state_is_gone(&self) {
        for name in STATE {
            assert!(!self.file(name).exists(), "{name}");
        }
    }
}

/// The whole way there and back, twice, for a machine that still has the disks of its setup.
fn there_and_back(sandbox: &Sandbox) {
    sandbox.runs();
    for _ in 0..2 {
        let ended = sandbox.suspend();
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.stderr.contains("suspended; to resume: k3s-vm start"));
        sandbox.nothing_runs();
        for name in STATE {
            assert_eq!(mode(&sandbox.file(name)), 0o600, "{name}");
        }
        let used = fs::metadata(sandbox.file("memory"))
            .expect("there")
            .blocks()
            * 512;
        assert!(used < 128 << 20, "{used} of 1 GiB");
        let status = sandbox.status();
        assert_eq!(status["suspended"]["memory_used"], used);
        sandbox.resumes_from_memory(sandbox.resume());
    }
    sandbox.env.ok(&["stop", "--force"]);
    assert_eq!(sandbox.status()["state"], "stopped");
}

#[test]
fn a_suspended_vm_is_resumed() {
    there_and_back(&Sandbox::new());
}

#[test]
#[ignore = "needs QEMU 10 under target/qemu10, where tests/run.sh unpacks it"]
fn with_qemu_10() {
    let mut sandbox = Sandbox::new();
    let hosts = sandbox.env.programs.clone();
    let target = program().ancestors().nth(2).expect("target/").to_owned();
    sandbox.env.programs = target.join("qemu10/bin").into();
    sandbox.env.programs.push(":");
    sandbox.env.programs.push(&hosts);
    there_and_back(&sandbox);
    // What it saved is of no use to the host's own.
    sandbox.suspended_again();
    sandbox.env.programs = hosts;
    let fault = "suspended by another QEMU than the PATH has now";
    boots(
        &sandbox,
        fault,
        sandbox.env.command(&["start"]),
        "QEMU was 10.",
    );
}

#[test]
fn answers_of_a_suspended_vm() {
    let sandbox = Sandbox::new();
    sandbox.suspended();
    for arguments in [
        &["ssh", "true"][..],
        &["kubectl", "get", "nodes"],
        &["logs", "k3s"],
    ] {
        let fault = format!("{} on a suspended VM", arguments.join(" "));
        let words = ["is suspended", "hint: resume it: k3s-vm start"];
        sandbox.fails(&fault, sandbox.env.command(arguments), 3, &words);
    }
    let status = sandbox.env.run(&["status", "--verbose"]);
    assert_eq!(status.code, 3);
    for words in [
        "state        suspended\n",
        "suspended    since 20",
        "/.k3s-vm/memory (",
    ] {
        assert!(status.stdout.contains(words), "{}", status.stdout);
    }
    for arguments in [
        &["stop"][..],
        &["stop", "--suspend"],
        &["stop", "--timeout", "1s"],
    ] {
        let said = sandbox.env.ok(arguments).stderr;
        assert!(said.contains("the VM is already suspended"), "{said}");
    }
    let said = sandbox.env.ok(&["stop", "--power-off"]).stderr;
    assert!(
        said.contains("discarded the saved memory; the next start boots"),
        "{said}"
    );
    sandbox.state_is_gone();
    let said = sandbox.env.ok(&["stop"]).stderr;
    assert!(said.contains("the VM is already stopped"), "{said}");
    sandbox.suspended_again();
    sandbox.env.ok(&["reset", "--yes"]);
    sandbox.state_is_gone();
}

impl Sandbox {
    /// A machine that was stopped is suspended.
    fn suspended_again(&self) {
        let start = Background::start(self, self.env.command(&["start", "--timeout", "5m"]));
        eventually("the VM runs", || {
            self.status()["process"]["run_state"] == "running"
        });
        start.signal(Signal::KILL);
        drop(start);
        assert_eq!(self.suspend().code, 0);
    }
}

/// The guest does not see where the host keeps its files.
#[test]
fn a_suspended_project_is_moved_and_copied() {
    let mut sandbox = Sandbox::new();
    sandbox.suspended();
    let copy = sandbox.env.path("copy");
    let careless = sandbox.env.path("careless");
    for (flags, to) in [("-aT", &copy), ("-rT", &careless)] {
        let mut cp = Command::new("cp");
        let status = cp.arg(flags).args([&sandbox.env.project, to]).status();
        assert!(status.expect("cp runs").success());
    }
    let there = sandbox.env.path("moved");
    fs::rename(&sandbox.env.project, &there).expect("moved");
    sandbox.env.project = there;
    sandbox.resumes_from_memory(sandbox.resume());
    let other = sandbox.elsewhere(copy);
    let ended = other.run(&["start", "--timeout", "2s"]);
    assert!(
        ended
            .stderr
            .contains("not done within 2s: the guest's kubeconfig"),
        "{ended:?}"
    );
    assert_eq!(other.status()["process"]["run_state"], "running");
    drop(other);
    let other = sandbox.elsewhere(careless);
    let ended = other.run(&["start", "--timeout", "2s"]);
    let word = " instead of resuming: its disk has changed since";
    assert!(ended.stderr.contains(word), "{ended:?}");
}

#[test]
fn suspend_by_default() {
    let sandbox = Sandbox::new();
    let setup = sandbox.booting();
    setup.signal(Signal::KILL);
    drop(setup);
    let words = [
        "its setup is not complete",
        "hint: complete it: k3s-vm setup; or power off: k3s-vm stop --power-off",
    ];
    let ended = sandbox.suspend();
    record_running_fault(&sandbox, "stop --suspend before the end of setup", &ended);
    assert_eq!(ended.code, 1);
    for word in words {
        assert!(ended.stderr.contains(word), "{ended:?}");
    }
    let config = fs::read_to_string(sandbox.file("config")).expect("there");
    fs::write(sandbox.file("config"), format!("{config}suspend = true\n")).expect("written");
    // It would power it off now.
    sandbox.provisioned(".kube/config".as_ref());
    sandbox.env.ok(&["stop"]);
    assert!(sandbox.is_suspended());
    sandbox.resumes_from_memory(sandbox.resume());
    sandbox.env.ok(&["stop", "--timeout", "1s"]);
    assert_eq!(
        sandbox.status()["state"],
        "stopped",
        "who waits wants it off"
    );
}

/// A template's memory from which a setup that was interrupted was to start: the VM is not suspended.
#[test]
fn memory_that_an_interrupted_setup_has_adopted() {
    let sandbox = Sandbox::new();
    sandbox.stopped();
    fs::write(sandbox.file("suspended.json"), "{}").expect("written");
    assert_eq!(sandbox.status()["state"], "stopped");
    let stop = sandbox.env.ok(&["stop"]);
    assert!(
        stop.stderr.contains("the VM is already stopped"),
        "{stop:?}"
    );
    for verb in ["resume", "kubectl get nodes", "ssh true"] {
        let words: Vec<&str> = verb.split(' ').collect();
        let ended = sandbox.env.run(&words);
        assert!(ended.stderr.contains("is stopped"), "{verb}: {ended:?}");
    }

    // What is left of a VM that is gone is not that of the next one.
    for name in ["record.json", "disk.qcow2"] {
        fs::remove_file(sandbox.file(name)).expect("removed");
    }
    let ended = sandbox.survives(
        "memory of a VM that is gone, setup",
        sandbox.setup(&[]),
        &[],
    );
    assert!(!ended.stderr.contains("instead of resuming"), "{ended:?}");
    assert!(!sandbox.file("suspended.json").exists());
}
