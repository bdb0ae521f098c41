//! What makes a setup quick fails, and the machine comes up all the same: with its identity on the seed, by a boot. The
//! tests take turns.
//! On real guests; `cargo test --test it plain_way -- --nocapture`.

use crate::{
    odd_images::doing,
    shared::Qemu,
    support::{has_its_turn, names},
    transcript::{Story, chapter, found},
};

const WARNING: &str = "restarting the guest with its identity on the seed disk";

/// A guest without the port for its identity, and without the port for what the host asks of it.
#[test]
fn a_guest_that_cannot_receive_its_identity() {
    if !has_its_turn(0, 3) {
        return;
    }
    let story = Story::begin("plain").with_changed_qemu(
        "set -- \"${@//org.k3s-vm.identity/org.k3s-vm.none}\"\n\
         set -- \"${@//org.k3s-vm.exec/org.k3s-vm.neither}\"",
    );

    chapter("The first setup restarts the guest, and warns once");
    let flags = Qemu::Host.flags(&story);
    let told = story
        .run(&format!("k3s-vm setup {flags}"))
        .succeeds()
        .says(&format!(
            "{WARNING}: the guest cannot find the port for its identity"
        ));
    assert_eq!(told.ended.stderr.matches("warning: ").count(), 1);
    is_a_node(&story);
    nothing_is_published(&story);

    chapter("It stops and starts as every VM");
    story.run("k3s-vm stop").succeeds().never_says("by force");
    story.run("k3s-vm start").succeeds();
    is_a_node(&story);
}

/// A disk that the host cannot capture, for QEMU has another name for it, and that the guest cannot grow.
#[test]
fn a_disk_that_is_neither_captured_nor_grown() {
    if !has_its_turn(1, 3) {
        return;
    }
    let change = format!(
        "{}\nset -- \"${{@//\\\"disk\\\"/\\\"another\\\"}}\"",
        doing("for tool in sfdisk growpart; do mount --bind /dev/null $(command -v $tool); done")
    );
    let story = Story::begin("plain").with_changed_qemu(&change);
    let flags = Qemu::Host.flags(&story);
    let told = story
        .run(&format!("k3s-vm setup {flags}"))
        .succeeds()
        .says("the image has neither sfdisk nor growpart")
        .never_says(WARNING);
    assert_eq!(told.ended.stderr.matches("warning: ").count(), 1);
    is_a_node(&story);
    nothing_is_published(&story);
}

/// The host cannot send it to a guest that continues from a template's memory.
#[test]
fn an_identity_that_cannot_be_sent() {
    if !has_its_turn(2, 3) {
        return;
    }
    let qemu = Qemu::Host;
    qemu.prepare();
    let story = qemu.story("unsent");
    story.run("mkdir -p .k3s-vm/identity/x").succeeds();
    qemu.setup(&story, "")
        .succeeds()
        .says("instead of resuming: cannot send its identity")
        .never_says("k3s v1.33.5+k3s1 installed");
    is_a_node(&story);
}

#[track_caller]
fn nothing_is_published(story: &Story) {
    let left = names(&story.env.cache.join("prepared"));
    assert!(!left.iter().any(|name| name.ends_with(".json")), "{left:?}");
    found("no template for other VMs");
}

#[track_caller]
fn is_a_node(story: &Story) {
    let status = story.status();
    assert_eq!(status["state"], "running", "{status}");
    let name = status["machine"]["name"].as_str().expect("a text");
    story.run("k3s-vm ssh hostname").succeeds().prints(name);
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(&format!("{name} "))
        .says(" Ready ");
}
