//! What people do every day with a machine that is there, a file a theme. Each story has a copy of one template (see
//! [`crate::shared`]), which is there within seconds: `cargo test --test it everyday -- --nocapture`.

mod answers;
mod cache_archive;
mod idle;
mod images;
mod internet;
mod logs;
mod machines;
mod mounts;
mod network;
mod ports;
mod power;
mod reach;
mod settings;
mod snapshot_kills;
mod snapshots;
mod upgrade;
mod workflow;

use crate::{
    shared::Qemu,
    transcript::{Story, chapter},
};

/// A user whose project has a machine that runs, its node Ready.
pub(crate) fn story_of(project: &str) -> Story {
    chapter(&format!("{project}: a VM that runs"));
    let qemu = Qemu::newest();
    let story = qemu.story(project);
    qemu.setup(&story, "--share-identity").succeeds();
    story
}

/// What makes a machine that is a copy of the template.
pub(crate) fn setup_of(story: &Story) -> String {
    let flags = Qemu::newest().flags(story);
    format!("k3s-vm setup {flags} --share-identity")
}

#[test]
fn a_clone_is_a_vm_of_its_own() {
    let story = story_of("copied");
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    story.run("k3s-vm reset --yes").succeeds();
}
