//! Stop, start, a crash and reset in the story.

use std::fs;

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::json;

use super::config;
use crate::{
    guest::Guest,
    support::names,
    transcript::{Story, chapter, found},
};

pub(super) fn stop_shuts_down_cleanly(story: &Story) {
    chapter("Stop: k3s first, then the power button");
    let pid = story.qemu();
    // Like many a process that is the first in its container.
    story
        .run("k3s-vm ssh systemd-run --quiet --unit=deaf --slice=kubepods.slice env --ignore-signal=TERM sleep infinity")
        .succeeds();
    story
        .run("k3s-vm stop")
        .succeeds()
        .says("stopping k3s")
        .says("shutting down the guest")
        .never_says("by force");
    assert!(!is_qemu(pid), "QEMU is gone");
    assert!(!story.file("qemu.pid").exists(), "so is its pidfile");
    assert!(
        names(&story.env.path("run/k3s-vm")).is_empty(),
        "and its socket's directory"
    );
    found("QEMU, its pidfile and its socket are gone");
    story.run("k3s-vm status").exits(3).says("stopped");
    for line in [
        "k3s-vm kubectl get nodes",
        ".k3s-vm/bin/kubectl get nodes",
        "k3s-vm ssh true",
        "k3s-vm logs k3s",
    ] {
        story
            .run(line)
            .exits(3)
            .says("is stopped")
            .says("hint: start it: k3s-vm start");
    }
    story
        .run("k3s-vm logs console | tail -n 2")
        .succeeds()
        .says("Power down");
    story.run("k3s-vm stop").succeeds().says("already");
}

pub(super) fn start_keeps_the_cluster(story: &Story, guest: &Guest) {
    chapter("Start: everything is as it was, but for what the config says now");
    let kubeconfig = story.env.project.join(".kube/config");
    let less = guest.less_memory;
    let line = format!("memory = \"{less}\" # less is enough");
    story
        .run(&format!("sed -i 's/^memory = .*/{line}/' .k3s-vm/config"))
        .succeeds();
    story
        .run("k3s-vm start")
        .succeeds()
        .prints(&kubeconfig.to_string_lossy())
        .says(&format!("{less} of memory"))
        .never_says("installed");
    story
        .run("k3s-vm kubectl get configmap proof -o 'jsonpath={.data.a}'")
        .succeeds()
        .prints("b");
    story
        .run("k3s-vm ssh journalctl --boot=-1 --unit=deaf")
        .succeeds()
        .says("Failed with result 'signal'")
        .never_says("timed out");
    story
        .run("k3s-vm status")
        .says(&format!("{} memory", less.approximate()));
    assert_eq!(story.status()["machine"]["memory"], json!(less.as_bytes()));
    assert!(config(story).contains(&line));
    found("the config is as it was edited");
}

pub(super) fn start_recovers_from_a_killed_qemu(story: &Story) {
    chapter("QEMU is killed: status sees it, start recovers");
    let pid = story.qemu();
    let process = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let process = process.expect("QEMU's process");
    story.run(&format!("kill -KILL {pid}")).succeeds();
    poll(&mut [PollFd::new(&process, PollFlags::IN)], None).expect("it ends");
    assert!(story.file("qemu.pid").exists(), "the pidfile is stale");
    story.run("k3s-vm status").exits(3).says("stopped");
    story
        .run("LOG_FILE=../everything.log k3s-vm start --debug")
        .succeeds();
    story
        .run("k3s-vm kubectl get configmap proof -o 'jsonpath={.data.a}'")
        .succeeds()
        .prints("b");
}

pub(super) fn reset_keeps_config_and_cache(story: &Story) {
    chapter("Stop by force, and reset");
    let (pid, config, cached) = (story.qemu(), config(story), names(&story.env.cache));
    story
        .run("k3s-vm stop --force")
        .succeeds()
        .says("stopped by force");
    assert!(!is_qemu(pid), "QEMU is gone");
    story.run("k3s-vm status").exits(3);
    story
        .run("k3s-vm reset")
        .exits(2)
        .says("stdin is not a terminal")
        .says("hint: to go ahead without asking: k3s-vm reset --yes");
    story.run("k3s-vm reset --yes").succeeds();
    story.run("k3s-vm status").exits(4).says("none in");
    assert_eq!(
        names(&story.file("")),
        [".gitignore", "approved", "config", "id", "lock"]
    );
    assert!(!story.env.project.join(".kube").exists());
    assert_eq!(self::config(story), config);
    assert_eq!(names(&story.env.cache), cached);
    found("the VM and its kubeconfig are gone; the config and the cache are not");
    story.run("git status --porcelain").succeeds().prints("");
}

pub(super) fn setup_again_fetches_nothing(story: &Story, guest: &Guest) {
    chapter("Setup again: the config remembers the choices, the cache has the files");
    let mirror = story.env.path("mirror");
    if mirror.exists() {
        fs::remove_dir_all(mirror).expect("removed");
    }
    story
        .run(&format!(
            "k3s-vm setup --accel auto --memory {} &
             wait_until 'grep -qs disk-grown .k3s-vm/stages.log'
             kill -KILL $!; wait $!",
            guest.memory
        ))
        .exits(137)
        .never_says("fetching");
    story
        .run("k3s-vm setup")
        .succeeds()
        .says("is already running")
        .never_says("fetching");
    found("a setup that is killed in the middle is finished by the next one");
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    story.run("k3s-vm kubectl get configmap proof").exits(1);
    found("it is a new VM");
}

pub(super) fn reset_stops_a_running_vm(story: &Story) {
    let pid = story.qemu();
    story.run("k3s-vm reset --yes").succeeds();
    assert!(!is_qemu(pid), "a running VM is stopped first");
    story.run("k3s-vm status").exits(4);
}

/// Whether the process lives and is a QEMU; a number may belong to another process by now.
fn is_qemu(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.contains("(qemu") && !stat.contains(") Z ")
}
