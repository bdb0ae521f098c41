//! A project is moved or copied: the machine goes with the directory, and a copy is a machine of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;

use super::{
    scene::{Background, Scene, eventually, program},
    table::tell,
};
use crate::support::{dead_image, finish};

/// The old path begins with the new one, so that the scene sees the processes of both.
const BEFORE: &str = "shop-before";

fn moved(scene: &mut Scene) -> PathBuf {
    let new = scene.env.path("shop");
    let old = std::mem::replace(&mut scene.env.project, new);
    fs::rename(&old, &scene.env.project).expect("moved");
    old
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp runs");
}

#[test]
fn a_project_that_was_moved() {
    let mut scene = Scene::named(BEFORE);
    scene.finished(".kube/config".as_ref());
    let before = scene.status();
    let old = moved(&mut scene);
    let kubeconfig = scene.env.project.join(".kube/config");
    let after = scene.status();
    for same in ["name", "uuid"] {
        assert_eq!(after["machine"][same], before["machine"][same]);
    }
    assert_eq!(
        after["machine"]["kubeconfig"],
        kubeconfig.to_str().expect("text")
    );

    let start = Background::start(&scene, scene.env.command(&["start"]));
    eventually("the machine runs", || {
        scene.status()["process"]["run_state"] == "running"
    });
    // A kubectl that tells what it was given.
    let mut kubectl = scene.env.command(&["kubectl", "get", "nodes"]);
    kubectl.env(
        "PATH",
        program(&scene, "kubectl", "echo \"$* by $KUBECONFIG\""),
    );
    let told = finish(kubectl).stdout;
    assert_eq!(
        told.trim(),
        format!("get nodes by {}", kubeconfig.display())
    );
    let text = fs::read_to_string(&kubeconfig).expect("there");
    assert!(text.contains(&format!(
        "https://127.0.0.1:{}",
        scene.status()["process"]["api_port"]
    )));
    start.signal(Signal::INT);
    tell(
        &scene,
        "a start after the project was moved, interrupted",
        &start.end(),
    );

    let ended = scene.env.ok(&["reset", "--yes"]);
    tell(&scene, "reset after the project was moved", &ended);
    assert!(!kubeconfig.exists() && !old.exists());
    scene.goes_on(scene.setup(&[]));
}

/// What of the project its config and record name is found at the new place, too.
#[test]
fn a_moved_project_with_an_image_and_a_kubeconfig_in_it() {
    let mut scene = Scene::named(BEFORE);
    dead_image(&scene.env.project.join("own.img"));
    scene.goes_on(scene.setup(&["--image", "./own.img", "--kubeconfig", "kube.yaml"]));
    moved(&mut scene);
    let machine = scene.status()["machine"].clone();
    assert_eq!(machine["image"], "./own.img");
    let kubeconfig = scene.env.project.join("kube.yaml");
    assert_eq!(machine["kubeconfig"], kubeconfig.to_str().expect("text"));
    for again in [&["--image", "own.img"][..], &["--image", "./own.img"]] {
        scene.goes_on(scene.setup(again));
    }
    scene.goes_on(scene.env.command(&["start"]));
}

#[test]
fn a_project_that_is_moved_while_its_machine_runs() {
    for verb in [&["stop", "--force"][..], &["reset", "--yes"]] {
        let mut scene = Scene::named(BEFORE);
        scene.left_running();
        let before = scene.status()["process"].clone();
        let old = moved(&mut scene);
        let process = scene.status()["process"].clone();
        for same in ["pid", "run_state", "api_port", "ssh_port", "monitor"] {
            assert_eq!(process[same], before[same], "{same}");
        }
        fs::create_dir(&old).expect("created");
        let at_the_old_place = scene.elsewhere(old);
        assert_eq!(at_the_old_place.run(&["status"]).code, 4);
        assert_eq!(at_the_old_place.run(&["stop"]).code, 4);
        let fault = format!("moved while the machine runs, {}", verb.join(" "));
        let ended = scene.env.run(verb);
        tell(&scene, &fault, &ended);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert!(!ended.stderr.contains("killing"), "{}", ended.stderr);
        scene.goes_on(scene.setup(&[]));
    }
}

#[test]
fn two_copies_run_side_by_side() {
    let scene = Scene::named("shop");
    let kubeconfig = scene.finished(".kube/config".as_ref());
    let original = Background::start(&scene, scene.env.command(&["start"]));
    eventually("the original runs", || {
        scene.status()["process"]["api_port"].is_u64()
    });
    // Made while the original runs: with its pidfile, and with a kubeconfig that leads to the original.
    let copy_of = scene.elsewhere(scene.env.path("shop-copy"));
    copy(&scene.env.project, &copy_of.project);
    assert_eq!(copy_of.status()["state"], "stopped");
    for verb in [&["stop"][..], &["stop", "--force"]] {
        let ended = copy_of.run(verb);
        assert!(ended.stderr.contains("stopped already"), "{ended:?}");
    }
    let start = Background::start(&scene, copy_of.command(&["start"]));
    eventually("the copy runs", || {
        copy_of.status()["process"]["api_port"].is_u64()
    });
    let (first, second) = (scene.status(), copy_of.status());
    for own in ["pid", "api_port", "ssh_port", "monitor"] {
        assert_ne!(first["process"][own], second["process"][own], "{own}");
    }
    for (project, status) in [(&scene.env.project, &first), (&copy_of.project, &second)] {
        let text = fs::read_to_string(project.join(".kube/config")).expect("there");
        let server = format!("https://127.0.0.1:{}", status["process"]["api_port"]);
        assert!(text.contains(&server), "{text} leads to {server}");
        assert_eq!(status["cluster"]["server"], server);
    }
    start.signal(Signal::INT);
    assert_eq!(start.end().code, 130);
    assert!(original.is_running(), "{}", original.said());
    let ended = copy_of.run(&["reset", "--yes"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(!copy_of.project.join(".kube").exists() && kubeconfig.exists());
    let after = scene.status();
    for same in ["pid", "api_port", "ssh_port", "monitor", "run_state"] {
        assert_eq!(after["process"][same], first["process"][same], "{same}");
    }
    original.signal(Signal::INT);
    tell(
        &scene,
        "a copied project, reset while the original runs",
        &original.end(),
    );
    assert!(kubeconfig.exists());
}

#[test]
fn copies_that_share_one_place_for_the_kubeconfig() {
    let mut scene = Scene::named("shop");
    let place = scene.env.path("shared/kubeconfig");
    scene.finished(&place);
    fs::write(
        scene.file("config"),
        format!(
            "{}kubeconfig = {place:?}\n",
            fs::read_to_string(scene.file("config")).expect("there")
        ),
    )
    .expect("written");
    let text = fs::read(&place).expect("there");
    let copy_of = scene.elsewhere(scene.env.path("shop-copy"));
    copy(&scene.env.project, &copy_of.project);
    let words = [
        "shared/kubeconfig is the kubeconfig of the machine in",
        "hint: write this machine's elsewhere: k3s-vm setup --kubeconfig PATH",
    ];
    for (verb, command) in [
        ("start", copy_of.command(&["start"])),
        ("setup", copy_of.here(scene.setup(&[]))),
    ] {
        let fault = format!("the kubeconfig of the project that this is a copy of, {verb}");
        scene.fails(&fault, command, 1, &words);
    }
    assert_eq!(copy_of.run(&["reset", "--yes"]).code, 0);
    assert_eq!(
        fs::read(&place).expect("there"),
        text,
        "it is the original's"
    );
    drop(copy_of);
    // The same file is the machine's own, wherever that moves.
    let away = scene.env.path("shop-away");
    fs::rename(&scene.env.project, &away).expect("moved");
    scene.env.project = away;
    scene.goes_on(scene.env.command(&["start"]));
    scene.env.ok(&["reset", "--yes"]);
    assert!(!place.exists());
}
