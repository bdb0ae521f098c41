//! What people do every day with a machine that is there, a file a theme. Each story has a copy of one template, kept
//! under `target/`, which is there within seconds: `cargo test --test it everyday -- --nocapture`.

mod answers;
mod carried;
mod desk;
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

use std::path::{Path, PathBuf};

use crate::{
    support::{VERSION, guest_image},
    telling::{Story, chapter},
};

/// A user whose project has a machine that runs, its node Ready.
pub(crate) fn story_of(project: &str) -> Story {
    chapter(&format!("{project}: a machine that runs"));
    let mut story = Story::begin(project);
    story.env.cache = templates();
    story.run(&setup_of(&story)).succeeds();
    story
}

/// The cache that keeps the template from test to test.
pub(crate) fn templates() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("everyday")
}

/// What makes a machine that is a copy of the template.
pub(crate) fn setup_of(story: &Story) -> String {
    let (image, mirror) = (guest_image().display(), story.env.mirror());
    format!(
        "k3s-vm setup --image {image} --k3s-version {VERSION} --k3s-mirror {mirror} \
         --memory 1536MiB --disk 4GiB --accel tcg --share-identity"
    )
}

#[test]
fn a_copy_of_the_template_is_a_machine() {
    let story = story_of("copied");
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    story.run("k3s-vm reset --yes").succeeds();
}
