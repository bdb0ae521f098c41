//! Other choices for a machine that is there: taken where nothing is lost, kept for later where it runs.

use std::fs;

use rustix::process::Signal;

use super::scene::{Background, Scene};
use crate::support::dead_image;

#[test]
fn other_choices_for_a_machine_that_never_booted() {
    let scene = Scene::new();
    scene.stopped();
    let first = scene.status()["machine"].clone();
    let other = dead_image(&scene.env.path("other.img"));
    let image = other.display().to_string();
    scene.goes_on(scene.setup(&["--image", &image, "--disk", "30GiB"]));
    let second = scene.status()["machine"].clone();
    assert_eq!(second["image"], image);
    assert_ne!(second["uuid"], first["uuid"]);
    // As soon as a guest has written anything, it is somebody's.
    let disk = fs::OpenOptions::new()
        .append(true)
        .open(scene.file("disk.qcow2"));
    disk.and_then(|disk| disk.set_len(1 << 20))
        .expect("written");
    let words = [
        "was made with a disk of 30GiB",
        "k3s-vm reset && k3s-vm setup",
    ];
    scene.fails(
        "other choices for a disk that was written to",
        scene.setup(&["--disk", "40GiB"]),
        2,
        &words,
    );
}

#[test]
fn choices_that_a_running_machine_cannot_take() {
    let scene = Scene::new();
    scene.left_running();
    let setup = Background::start(&scene, scene.setup(&["--cpus", "3", "--memory", "2GiB"]));
    setup.says("runs already");
    let later = "from the next start on (k3s-vm restart)";
    for choice in ["cpus = 3 instead of 2", "memory = 2GiB instead of 1GiB"] {
        let line = format!("{choice}: {later}");
        assert!(setup.said().contains(&line), "{}", setup.said());
    }
    assert_eq!(scene.status()["machine"]["cpus"], 2);
    setup.signal(Signal::INT);
    assert_eq!(setup.end().code, 130);
    let start = Background::start(&scene, scene.env.command(&["start"]));
    start.says("(3 CPUs, 2GiB of memory, tcg)");
}
