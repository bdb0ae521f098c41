//! An idle VM and its idle watch, with a real guest.

use super::story_of;
use crate::transcript::{Story, chapter, found};

/// The processes that watch the project's machine.
const WATCHERS: &str = "pgrep -f -- \"-C $PWD --name= idle-watch\"";

#[test]
fn an_idle_vm_is_suspended() {
    let story = story_of("idle");
    chapter("Without idle_suspend there is no idle watch");
    story.run(WATCHERS).exits(1);
    story
        .run("k3s-vm start --idle-suspend soon")
        .exits(2)
        .says("expected e.g. 30m or 2h, or off");
    used_and_left(&story);
    watched_by_one(&story);
    story.run("k3s-vm reset --yes").succeeds();
}

const SUSPENDED: &str = "k3s-vm list | grep '/idle$' | grep -q ' suspended '";

fn used_and_left(story: &Story) {
    chapter("An open connection keeps it awake");
    // The connection is there before anybody watches. Who watches looks ten times within the idle time and reads the config
    // each time; the start itself reads it a few times.
    let port = story.status()["process"]["ssh_port"].to_string();
    story
        .run(&format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port}\n\
             is_suspended() {{ {SUSPENDED}; }}\n\
             strace -f -qq -o ../looks -e trace=openat k3s-vm start --idle-suspend 4s >/dev/null 2>&1 3>&- &\n\
             : >../looks; looks() {{ grep -c '/\\.k3s-vm/config\"' ../looks; }}\n\
             wait_until '(($(looks) > 40)) || is_suspended'\n\
             grep idle_suspend .k3s-vm/config | tail -n 1; k3s-vm list | grep '/idle$'"
        ))
        .succeeds()
        .says("idle_suspend = \"4s\"\n")
        .says(" running ");
    found("it is awake after 30 looks");

    chapter("Without one, the idle watch suspends it");
    story.until(SUSPENDED);
    // It says why, and ends.
    story.until(&format!("! {WATCHERS}"));
    found("who watched has gone with QEMU");
    story
        .run("k3s-vm status")
        .exits(3)
        .says("state        suspended after 4s idle");
    assert_eq!(
        story.status()["suspended"]["reason"],
        "suspended after 4s idle"
    );
    for kubectl in ["k3s-vm kubectl", ".k3s-vm/bin/kubectl"] {
        story
            .run(&format!("{kubectl} get nodes"))
            .exits(3)
            .says("is suspended")
            .says("hint: resume it: k3s-vm start");
    }

    chapter("A start resumes it, and starts the idle watch again");
    story
        .run("k3s-vm start --idle-suspend 1h && k3s-vm status")
        .succeeds()
        .says("resuming ")
        .says("idle         suspends after 1h without use");
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
}

fn watched_by_one(story: &Story) {
    chapter("One watches, however often it is started");
    for _ in 0..3 {
        story.run("k3s-vm start").succeeds();
    }
    story.until(&format!("[ $({WATCHERS} | wc -l) = 1 ]"));
    story.run("flock -n .k3s-vm/idle.lock true").exits(1);

    chapter("It is killed");
    let qemu = story.qemu();
    story.run(&format!("kill -9 $({WATCHERS})")).succeeds();
    story.until("flock -n .k3s-vm/idle.lock true");
    story.run("k3s-vm status").succeeds();
    story.run("k3s-vm start").succeeds();
    story.until("! flock -n .k3s-vm/idle.lock true");
    assert_eq!(story.qemu(), qemu);

    chapter("Off, and on from the next start on");
    story
        .run("k3s-vm start --idle-suspend off && k3s-vm status")
        .succeeds()
        .never_says("without use");
    // It looks at the config as often as at the machine, and ends with QEMU in any case.
    story.run("k3s-vm stop --suspend").succeeds();
    story.until(&format!("! {WATCHERS}"));
    story
        .run("k3s-vm status")
        .exits(3)
        .says("state        suspended\n");
    story.run("k3s-vm start").succeeds();
    story.run(WATCHERS).exits(1);

    chapter("QEMU is killed");
    story.run("k3s-vm start --idle-suspend 1h").succeeds();
    story.until("! flock -n .k3s-vm/idle.lock true");
    story.run("kill -9 $(cat .k3s-vm/qemu.pid)").succeeds();
    story.until(&format!("! {WATCHERS}"));
    story.run("k3s-vm status").exits(3).says("stopped");
}
