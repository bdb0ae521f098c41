//! The main job from its beginning to its end, on a real guest: setup, kubectl, stop, start, a crash, reset, setup again.
//!
//! It is one test, for each boot of an emulated guest takes a minute or two, and it prints its steps:
//! `cargo test --test it story -- --nocapture`.

mod access;
mod power;
mod private;

use std::fs;

use serde_json::json;

use crate::{
    guest::Guest,
    identity::{differs, identity, is_in_nothing_published},
    prepared::made,
    shared::Qemu,
    support::{VERSION, guest_image, names},
    transcript::{Story, Told, chapter, found},
};

#[test]
fn setup_stop_start_and_reset() {
    let qemu = Qemu::Host;
    let mut story = Story::begin("shop");
    let guest = Guest::stand_in(&story);
    no_vm_yet(&story);
    let lock = qemu.lock();
    if !qemu.is_prepared() {
        // Other tests begin from what this setup leaves.
        story.env.cache = qemu.cache();
    }
    setup_creates_a_cluster(&story, &guest);
    drop(lock);
    lives_through_all_commands(&story, &guest);
}

/// What follows a setup from nothing, with any guest. It ends with no machine, and with what that setup has left in the
/// cache.
pub(crate) fn lives_through_all_commands(story: &Story, guest: &Guest) {
    let identity = identity(story);
    private::files_are_private_and_ignored_by_git(story);
    access::kubectl_works(story, guest);
    access::links_work_as_kubectl_and_k9s(story);
    status_shows_the_vm(story, guest);
    a_second_setup_has_nothing_to_do(story);
    access::ssh_runs_commands(story);
    private::secrets_in_the_guest_are_private(story);
    access::logs_show_the_start(story);
    private::only_loopback_listens(story);
    power::stop_shuts_down_cleanly(story);
    is_in_nothing_published(story, &identity);
    power::start_keeps_the_cluster(story, guest);
    assert_eq!(self::identity(story), identity);
    power::start_recovers_from_a_killed_qemu(story);
    private::secrets_are_in_no_output(story);
    power::reset_keeps_config_and_cache(story);
    power::setup_again_fetches_nothing(story, guest);
    let mut again = self::identity(story);
    // Both are called after the project.
    again.remove("name");
    differs(&again, &identity);
    power::reset_stops_a_running_vm(story);
}

/// The second QEMU that has to do, for users of newer distributions.
#[test]
#[ignore = "needs QEMU 10 under target/qemu10, where tests/run.sh unpacks it"]
fn with_qemu_10() {
    let qemu = Qemu::Newer;
    let lock = qemu.lock();
    let mut story = qemu.story("newer");
    if qemu.is_prepared() {
        story.env.cache = story.env.path("cache");
    }
    chapter("QEMU 10 does as well, and UEFI boots, too");
    story
        .run("qemu-system-x86_64 --version")
        .succeeds()
        .says("version 10.");
    let setup = format!("k3s-vm setup {}", qemu.flags(&story));
    made(&story, &setup).says("guest booted");
    drop(lock);
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    story.run("k3s-vm ssh test -d /sys/firmware/efi").succeeds();
    story
        .run("k3s-vm ssh 'echo kept >/run/mark' && k3s-vm stop --suspend")
        .succeeds()
        .says("suspended; to resume: k3s-vm start");
    story.run("k3s-vm status").exits(3).says("suspended");
    story
        .run("k3s-vm start")
        .succeeds()
        .says("resuming")
        .never_says("instead of resuming");
    story
        .run("k3s-vm ssh cat /run/mark")
        .succeeds()
        .prints("kept");
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    story.run("k3s-vm stop").succeeds().never_says("by force");
    story.run("k3s-vm reset --yes").succeeds();
    second_setup_resumes_the_template(&story, &setup);
}

/// From what the first setup has left in the cache.
fn second_setup_resumes_the_template(story: &Story, setup: &str) {
    story
        .run(setup)
        .succeeds()
        .says("from a template")
        .never_says("boot");
    story.run("k3s-vm ssh hostname").prints(&name(story));
    story.run("k3s-vm reset --yes").succeeds();
}

/// Guests whose systemd takes no units from the firmware: QEMU does not hand them over.
#[test]
fn an_older_guest_boots_with_cloud_init() {
    let story = Story::begin("older").with_changed_qemu("set -- \"${@/#type=11,*/type=11}\"");
    chapter("An older systemd, and cloud-init does the same");
    let (image, mirror) = (guest_image().display(), story.env.mirror());
    let setup = format!(
        "k3s-vm setup --image {image} --k3s-version {VERSION} --k3s-mirror {mirror} --memory 2GiB"
    );
    story.run(&setup).succeeds();
    story
        .run("k3s-vm ssh grep -c bootcmd /var/log/cloud-init.log")
        .succeeds();
    story.run("k3s-vm ssh hostname").prints(&name(&story));
    // IPv6's is made of the card's address.
    let addresses = || {
        let told = story.run("k3s-vm ssh hostname -I").succeeds();
        told.says("10.0.2.15").says("fec0::").ended.stdout
    };
    let before = addresses();
    story.run("k3s-vm stop").succeeds().never_says("by force");
    story.run("k3s-vm start").succeeds().never_says("installed");
    assert_eq!(addresses(), before, "the node's addresses stay");
    story.run("k3s-vm reset --yes").succeeds();
    second_setup_resumes_the_template(&story, &setup);
}

pub(crate) fn no_vm_yet(story: &Story) {
    chapter("A project, and no VM yet");
    story.run("git init --quiet").succeeds();
    story.run("k3s-vm status").exits(4).says("none in");
    story
        .run("k3s-vm kubectl get nodes")
        .exits(4)
        .says("hint: create it: k3s-vm setup");
    assert_eq!(names(&story.env.project), [".git"]);
    found("looking has left nothing behind");
}

pub(crate) fn setup_creates_a_cluster(story: &Story, guest: &Guest) -> Told {
    chapter("From nothing to a node that is Ready");
    let kubeconfig = story.env.project.join(".kube/config");
    made(story, &format!("k3s-vm setup {} --timings", guest.flags()))
        .prints(&kubeconfig.to_string_lossy())
        .says("guest booted")
        .says(&format!("k3s {} installed", guest.version(story)))
        .never_says("cannot read the stable channel of k3s; using")
        .says("is Ready")
        .says("of it k3s-vm's own")
}

fn status_shows_the_vm(story: &Story, guest: &Guest) {
    chapter("Status: one screen, all details, or JSON");
    let version = guest.version(story);
    story
        .run("k3s-vm status")
        .succeeds()
        .says("running, healthy")
        .says(&format!(
            "2 CPUs, {} memory, 20 GiB disk",
            guest.memory.approximate()
        ))
        .says("API ")
        .says(&version);
    let pid = story.qemu();
    let accelerator = guest.accelerator(story);
    story
        .run("k3s-vm status --verbose")
        .succeeds()
        .says(&format!("process      {pid}"))
        .says(&format!("accel        {accelerator}"))
        .says("uptime")
        .says("qmp.sock")
        .says("10.0.2.15");
    let told = story.run("k3s-vm status --json").succeeds();
    let status: serde_json::Value =
        serde_json::from_str(&told.ended.stdout).expect("one JSON document");
    for (pointer, value) in [
        ("/schema", json!(1)),
        ("/state", json!("running")),
        ("/healthy", json!(true)),
        ("/machine/k3s", json!(version)),
        ("/machine/cpus", json!(2)),
        ("/machine/memory", json!(guest.memory.as_bytes())),
        ("/machine/disk", json!(20_u64 << 30)),
        ("/process/pid", json!(pid)),
        ("/process/run_state", json!("running")),
        ("/process/accelerator", json!(accelerator)),
        ("/cluster/ready", json!(true)),
        ("/cluster/nodes/0/name", status["machine"]["name"].clone()),
        ("/cluster/nodes/0/ready", json!(true)),
    ] {
        assert_eq!(status.pointer(pointer), Some(&value), "{pointer}");
    }
}

fn a_second_setup_has_nothing_to_do(story: &Story) {
    chapter("A second setup, and choices that contradict the VM");
    let (pid, config) = (story.qemu(), config(story));
    let kubeconfig = story.env.project.join(".kube/config");
    story
        .run("k3s-vm setup")
        .succeeds()
        .prints(&kubeconfig.to_string_lossy())
        .says("nothing to do");
    story.run("k3s-vm start").succeeds().says("nothing to do");
    story
        .run("k3s-vm setup --disk 10GiB")
        .exits(2)
        .says("20GiB")
        .says("10GiB")
        .says("hint: ");
    story
        .run("VM_NAME=other k3s-vm setup")
        .exits(2)
        .says(&name(story))
        .says("other");
    assert_eq!(
        (story.qemu(), self::config(story)),
        (pid, config),
        "nothing has changed"
    );
}

fn name(story: &Story) -> String {
    let status = story.status();
    status["machine"]["name"].as_str().expect("a name").into()
}

fn config(story: &Story) -> String {
    fs::read_to_string(story.file("config")).expect("a config")
}
