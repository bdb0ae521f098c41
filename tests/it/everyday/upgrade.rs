//! A newer k3s in a machine that is there, and the machine as it was when that does not come up.

use std::fs;

use super::{
    internet::Internet,
    snapshots::{BOOT, boot, has, make, names_of},
    story_of,
};
use crate::{
    support::VERSION,
    transcript::{Story, chapter, found},
};

const NEXT: &str = "v1.34.1+k3s1";
const AFTER_NEXT: &str = "v1.35.0+k3s1";
const BEFORE_NEXT: &str = "before-v1.34.1-k3s1";

/// A machine with the release of all tests, and a mirror that has newer ones.
fn story_with_releases(project: &str) -> Story {
    let story = story_of(project);
    story.env.release(NEXT, "");
    story.env.release(AFTER_NEXT, "k3s-stand-in-crashes=1000\n");
    story
}

fn upgrade(story: &Story, version: &str) -> crate::transcript::Told {
    story.run(&format!("k3s-vm upgrade --k3s-version {version}"))
}

/// The node, the record and the config have that release, and the node is Ready.
#[track_caller]
fn runs(story: &Story, version: &str) {
    story
        .run("k3s-vm kubectl get nodes --no-headers")
        .succeeds()
        .says(" Ready ")
        .says(version);
    let status = story.status();
    assert_eq!(status["machine"]["k3s"], version);
    assert_eq!(status["cluster"]["nodes"][0]["version"], version);
    let config = fs::read_to_string(story.file("config")).expect("a config");
    assert!(
        config.contains(&format!("k3s_version = \"{version}\"")),
        "{config}"
    );
    story
        .run("k3s-vm ssh 'ls /usr/local/bin /var/lib/rancher/k3s/agent'")
        .succeeds()
        .never_says(".new");
}

#[test]
fn upgrade_or_rollback() {
    let story = story_with_releases("upgrade");
    make(&story, "before");
    let boot = boot(&story);
    refused(&story);
    to_the_next(&story, &boot);
    to_a_broken_one(&story, &boot);

    chapter("Back to what was before the upgrade");
    story
        .run(&format!("k3s-vm snapshot restore {BEFORE_NEXT} --yes"))
        .succeeds()
        .says("resuming ");
    has(&story, "configmap/before");
    runs(&story, VERSION);
    not_running(&story);
    story.run("k3s-vm reset --yes").succeeds();
}

fn refused(story: &Story) {
    chapter("What cannot be, and changes nothing");
    let qemu = story.qemu();
    upgrade(story, VERSION)
        .succeeds()
        .says(&format!("k3s is already {VERSION}"))
        .says("nothing to do");
    upgrade(story, "v1.33.4+k3s1")
        .exits(2)
        .says("cannot upgrade k3s v1.33.5+k3s1 to v1.33.4+k3s1: it is older")
        .says("hint: restore a snapshot with the older k3s: k3s-vm snapshot list");
    upgrade(story, "v1.36.0+k3s1")
        .exits(2)
        .says("k3s is upgraded one minor version at a time")
        .says("hint: upgrade to the next minor version first: k3s-vm upgrade --channel v1.34");
    upgrade(story, "v2.0.0+k3s1")
        .exits(2)
        .says("it is another major version");
    upgrade(story, "newest")
        .exits(2)
        .says("invalid k3s version");
    upgrade(story, "v1.34.8+k3s1")
        .exits(1)
        .says("/v1.34.8+k3s1/sha256sum-amd64.txt")
        .says("hint: check the address and the version");
    story
        .run(&format!(
            "k3s-vm upgrade --channel stable --k3s-version {NEXT}"
        ))
        .exits(2)
        .says("cannot be used with");
    by_channels(story);
    let mirror = story.env.path("mirror");
    fs::rename(mirror.join(NEXT), mirror.join("v1.34.2+k3s1")).expect("renamed");
    upgrade(story, "v1.34.2+k3s1")
        .exits(1)
        .says("error: the guest cannot install k3s v1.34.2+k3s1: ")
        .says("it says that it is v1.34.1+k3s1");
    fs::rename(mirror.join("v1.34.2+k3s1"), mirror.join(NEXT)).expect("renamed");
    story
        .run(&format!("k3s-vm setup --k3s-version {NEXT}"))
        .exits(2)
        .says(&format!("k3s-vm upgrade --k3s-version {NEXT}"));
    assert_eq!(story.qemu(), qemu);
    assert!(names_of(story).is_empty(), "nothing was kept");
    runs(story, VERSION);
    found("the VM is as it was");
}

fn by_channels(story: &Story) {
    story
        .run("https_proxy=http://127.0.0.1:1 k3s-vm upgrade --channel v1.34")
        .exits(1)
        .says("cannot find the release of the k3s channel v1.34")
        .says("hint: name the release: k3s-vm upgrade --k3s-version ...");
    let named = [
        ("stable", "v1.36.5+k3s1"),
        ("v1.34", NEXT),
        ("v1.33", VERSION),
    ];
    let internet = Internet::of(story);
    internet.channels(&named);
    let asks = internet.reach();
    story
        .run(&format!("{asks} k3s-vm upgrade"))
        .exits(2)
        .says("to v1.36.5+k3s1: k3s is upgraded one minor version at a time")
        .says("hint: upgrade to the next minor version first: k3s-vm upgrade --channel v1.34");
    story
        .run(&format!("{asks} k3s-vm upgrade --channel v1.33"))
        .succeeds()
        .says("nothing to do");
    story
        .run(&format!("{asks} k3s-vm upgrade --channel newest"))
        .exits(2)
        .says("the channels of k3s name no version for \"newest\": expected one of stable, v1.34, v1.33");
}

fn to_the_next(story: &Story, boot: &str) {
    chapter("An upgrade");
    let kubeconfig = story.env.project.join(".kube/config");
    let internet = Internet::of(story);
    internet.channels(&[("stable", NEXT)]);
    let asks = internet.reach();
    story
        .run(&format!("{asks} k3s-vm upgrade"))
        .succeeds()
        .says(&format!("upgraded k3s from {VERSION} to {NEXT}"))
        .says(&format!("k3s-vm snapshot delete {BEFORE_NEXT}"))
        .prints(&kubeconfig.to_string_lossy());
    runs(story, NEXT);
    has(story, "configmap/before");
    story.run(BOOT).succeeds().prints(boot);
    assert_eq!(names_of(story), [BEFORE_NEXT]);
    upgrade(story, NEXT).succeeds().says("nothing to do");
    make(story, "between");
    chapter("It is so for every later start");
    story.run("k3s-vm stop --suspend").succeeds();
    story
        .run("k3s-vm start")
        .succeeds()
        .says("resuming ")
        .never_says("instead of resuming");
    story.run(BOOT).succeeds().prints(boot);
    runs(story, NEXT);
    story.run("k3s-vm restart").succeeds();
    runs(story, NEXT);
    has(story, "configmap/before\nconfigmap/between");
}

fn to_a_broken_one(story: &Story, first_boot: &str) {
    chapter("An upgrade to a release that does not become ready");
    let boot = boot(story);
    assert_ne!(boot, first_boot);
    upgrade(story, AFTER_NEXT)
        .exits(1)
        .says(&format!(
            "k3s {AFTER_NEXT} did not become ready: k3s ended 8 times"
        ))
        .says(&format!("the VM was rolled back to k3s {NEXT}"))
        .says("Failed to initialize CSINode after retrying (as told)")
        .prints("");
    runs(story, NEXT);
    has(story, "configmap/before\nconfigmap/between");
    story.run(BOOT).succeeds().prints(&boot);
    assert_eq!(names_of(story), [BEFORE_NEXT], "the other one is gone");
    found("it is as it was");
}

fn not_running(story: &Story) {
    chapter("A VM that does not run");
    story.run("k3s-vm pause").succeeds();
    upgrade(story, NEXT)
        .exits(5)
        .says("error: the VM is paused")
        .says("hint: resume it: k3s-vm resume");
    story.run("k3s-vm stop --suspend").succeeds();
    upgrade(story, NEXT)
        .exits(3)
        .says("is suspended")
        .says("hint: resume it: k3s-vm start");
    story.run("k3s-vm stop --power-off").succeeds();
    upgrade(story, NEXT)
        .exits(3)
        .says("is stopped")
        .says("hint: start it: k3s-vm start");
}

/// The line, killed when it is about to give a file or folder its name for the `nth` time: the snapshot is the first one,
/// then comes the folder with record and config, then the config, then the record.
fn killed_at(nth: usize, line: &str) -> String {
    format!(
        "strace -f -qq -o ../trace -e trace=rename -e inject=rename:signal=KILL:when={nth} {line}"
    )
}

#[test]
fn a_killed_upgrade_is_completed() {
    let story = story_with_releases("cut");
    make(&story, "before");
    let line = format!("k3s-vm upgrade --k3s-version {NEXT}");

    chapter("Killed before anything is changed");
    story.run(&killed_at(1, &line)).exits(137);
    runs(&story, VERSION);

    chapter("Killed when the node is Ready, and that is not recorded yet");
    story.run(&killed_at(2, &line)).exits(137);
    assert_eq!(story.status()["machine"]["k3s"], VERSION);
    story
        .run("k3s-vm stop --suspend && k3s-vm start")
        .succeeds()
        .says("resuming ");
    story
        .run(&format!("{line} --json"))
        .succeeds()
        .says(&format!("completing an interrupted upgrade to k3s {NEXT}"))
        .says(&format!("k3s-vm snapshot delete {BEFORE_NEXT}"))
        .says("\"event\":\"done\"");
    runs(&story, NEXT);
    has(&story, "configmap/before");

    chapter("Killed between config and record");
    story
        .run(&format!("k3s-vm snapshot restore {BEFORE_NEXT} --yes"))
        .succeeds();
    runs(&story, VERSION);
    story.run(&killed_at(4, &line)).exits(137);
    story
        .run("k3s-vm start")
        .succeeds()
        .says("completing an interrupted command");
    runs(&story, NEXT);
    has(&story, "configmap/before");
    story.run("k3s-vm reset --yes").succeeds();
}
