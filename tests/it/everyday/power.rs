//! `restart`, `pause` and `resume`.

use super::story_of;
use crate::transcript::{Story, chapter, found};

/// What tells one boot of the guest from the next.
const BOOT: &str = "k3s-vm ssh cat /proc/sys/kernel/random/boot_id";

#[test]
fn restart_pause_and_resume() {
    let story = story_of("power");
    story
        .run("k3s-vm kubectl create configmap kept --from-literal=k=v")
        .succeeds();
    let boot = boot(&story);
    pauses(&story, &boot);
    resumes_a_suspended_vm(&story, &boot);
    restarts(&story, &boot);
    trims(&story);
    chapter("A VM that is stopped");
    story
        .run("k3s-vm pause")
        .exits(3)
        .says("is stopped")
        .says("hint: start it: k3s-vm start");
    story
        .run("k3s-vm resume")
        .exits(3)
        .says("is stopped")
        .says("hint: start it: k3s-vm start");
    story.run("k3s-vm trim").exits(3).says("is stopped");
    story.run("k3s-vm reset --yes").succeeds();
}

/// More than the guest writes meanwhile without a command.
const MUCH: u64 = 64 << 20;

fn trims(story: &Story) {
    chapter("What was removed in the guest");
    let used = || {
        story.status()["machine"]["disk_used"]
            .as_u64()
            .expect("told")
    };
    let write_and_remove =
        "k3s-vm ssh 'head -c 100M /dev/zero >/root/much && sync && rm /root/much'";
    story.run("k3s-vm pause").succeeds();
    story
        .run("k3s-vm trim")
        .exits(5)
        .says("error: the VM is paused");
    story.run("k3s-vm resume").succeeds();
    let before = used();
    story.run(write_and_remove).succeeds();
    let full = used();
    assert!(full > before + MUCH, "{before} {full}");
    story
        .run("k3s-vm trim")
        .succeeds()
        .prints("")
        .says("the disk uses ");
    let trimmed = used();
    assert!(trimmed + MUCH < full, "{full} {trimmed}");
    story.run(write_and_remove).succeeds();
    assert!(used() > trimmed + MUCH);
    story.run("k3s-vm stop --power-off").succeeds();
    assert!(used() < trimmed + MUCH, "a stop does the same");
    found("the host has its room again");
}

fn boot(story: &Story) -> String {
    let told = story.run(BOOT).succeeds();
    told.ended.stdout.trim().to_owned()
}

fn pauses(story: &Story, boot: &str) {
    chapter("A pause");
    let qemu = story.qemu();
    story
        .run("k3s-vm pause")
        .succeeds()
        .prints("")
        .says("paused; to resume: k3s-vm resume");
    story
        .run("k3s-vm pause")
        .succeeds()
        .says("the VM is already paused");
    story
        .run("k3s-vm status")
        .exits(5)
        .says("state        running (paused)");
    assert_eq!(story.status()["process"]["run_state"], "paused");
    for line in ["k3s-vm ssh true", "k3s-vm kubectl get nodes"] {
        story
            .run(line)
            .exits(5)
            .says("error: the VM is paused")
            .says("hint: resume it: k3s-vm resume");
    }
    story
        .run("k3s-vm resume --timeout nonsense")
        .exits(2)
        .says("nonsense");
    story
        .run("k3s-vm resume")
        .succeeds()
        .says("resumed the paused VM")
        .says("/.kube/config");
    assert_eq!(story.status()["healthy"], true);
    assert_eq!(story.qemu(), qemu);
    story.run(BOOT).succeeds().prints(boot);
    story.knows_the_time();
    found("the same guest continues");
    story
        .run("k3s-vm resume")
        .succeeds()
        .says("is running and healthy; nothing to do");
}

fn resumes_a_suspended_vm(story: &Story, boot: &str) {
    chapter("A suspended VM");
    story.run("k3s-vm stop --suspend").succeeds();
    for line in ["k3s-vm pause", "k3s-vm restart", "k3s-vm restart --force"] {
        story.run(line).exits(3).says("is suspended");
    }
    assert_eq!(story.status()["state"], "suspended");
    story.run("k3s-vm resume").succeeds().says("resuming ");
    story.run(BOOT).succeeds().prints(boot);
}

fn restarts(story: &Story, boot: &str) {
    chapter("A restart");
    let port = |story: &Story| story.status()["process"]["api_port"].clone();
    let (qemu, before) = (story.qemu(), port(story));
    // Also a paused one, and where the config has suspend = true.
    story
        .run("echo 'suspend = true' >>.k3s-vm/config")
        .succeeds();
    story.run("k3s-vm pause").succeeds();
    story
        .run("k3s-vm restart --timings")
        .succeeds()
        .says("stopping k3s")
        .says("shutting down the guest")
        .says("k3s started")
        .says("of it k3s-vm's own")
        .never_says("resuming");
    assert_ne!(self::boot(story), boot);
    assert_ne!(story.qemu(), qemu);
    assert_eq!(port(story), before);
    story
        .run("k3s-vm kubectl get configmap kept -o jsonpath={.data.k}")
        .succeeds()
        .prints("v");
    found("a new boot, on the same port");
}
