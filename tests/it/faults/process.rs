//! QEMU itself: killed, frozen, cut off from its socket, or somebody else on the socket.

use std::{fs, os::unix::net::UnixListener, path::PathBuf};

use rustix::process::Signal;

use super::{
    durable::survives,
    scene::{Scene, eventually, send},
    table::{first_line, row, tell},
};
use crate::support::finish;

fn socket(scene: &Scene) -> PathBuf {
    let status = scene.status();
    PathBuf::from(status["process"]["monitor"].as_str().expect("told"))
}

#[test]
fn a_qemu_that_is_killed_while_nobody_looks() {
    let scene = Scene::new();
    for verb in [&["stop"][..], &["start", "--timeout", "2s"]] {
        let qemu = scene.left_running();
        send(Signal::KILL, qemu);
        eventually("the status tells", || scene.env.run(&["status"]).code == 3);
        assert!(scene.file("qemu.pid").exists(), "the pidfile is stale");
        let ended = scene.env.run(verb);
        tell(&scene, &format!("QEMU was killed, {}", verb[0]), &ended);
        assert_eq!(ended.code, i32::from(verb[0] == "start"), "{ended:?}");
        assert!(!scene.file("qemu.pid").exists());
    }
    scene.goes_on(scene.env.command(&["start"]));
}

#[test]
fn a_qemu_that_is_frozen() {
    let scene = Scene::new();
    for verb in [&["stop", "--force"][..], &["reset", "--yes"]] {
        send(Signal::STOP, scene.left_running());
        let status = scene.status();
        assert_eq!(status["process"]["run_state"], "unresponsive");
        assert_eq!(status["healthy"], false);
        let ended = scene.env.run(verb);
        tell(
            &scene,
            &format!("QEMU is frozen, {}", verb.join(" ")),
            &ended,
        );
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(
            ended
                .stderr
                .contains("QEMU does not answer; killing process"),
            "{ended:?}"
        );
    }
}

#[test]
fn a_runtime_directory_that_is_gone_while_qemu_runs() {
    let scene = Scene::new();
    for verb in [&["stop"][..], &["stop", "--force"], &["reset", "--yes"]] {
        scene.left_running();
        fs::remove_dir_all(scene.env.path("run/k3s-vm")).expect("removed");
        let status = scene.env.run(&["status"]);
        assert_eq!(status.code, 5, "{status:?}");
        assert!(
            status.stdout.contains("running (unresponsive)"),
            "{status:?}"
        );
        let ended = scene.env.run(verb);
        tell(
            &scene,
            &format!("no runtime directory, {}", verb.join(" ")),
            &ended,
        );
        assert_eq!(ended.code, 0, "{ended:?}");
        scene.goes_on(scene.setup(&[]));
    }
}

#[test]
fn a_qemu_without_its_socket_that_an_unfinished_setup_left() {
    let scene = Scene::new();
    for (verb, command) in [
        ("setup", scene.setup(&[])),
        ("start", scene.env.command(&["start"])),
    ] {
        let qemu = scene.left_running();
        fs::remove_dir_all(scene.env.path("run/k3s-vm")).expect("removed");
        let fault = format!("an unfinished setup's QEMU without its socket, {verb}");
        survives(&scene, &fault, command);
        assert_ne!(scene.env.pid().map(i32::cast_unsigned), Some(qemu));
    }
}

/// A listener on the socket that says nothing holds nobody up.
#[test]
fn somebody_else_on_the_socket() {
    let scene = Scene::new();
    scene.left_running();
    let socket = socket(&scene);
    fs::remove_file(&socket).expect("removed");
    let _silent = UnixListener::bind(&socket).expect("bound");
    assert_eq!(scene.status()["process"]["run_state"], "unresponsive");
    let ended = scene.env.run(&["stop", "--force"]);
    tell(
        &scene,
        "a stranger on the monitor's socket, stop --force",
        &ended,
    );
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[test]
fn a_record_that_is_gone_while_qemu_runs() {
    let scene = Scene::new();
    let qemu = scene.left_running();
    fs::remove_file(scene.file("record.json")).expect("removed");
    let gone = format!("QEMU runs here (process {qemu}), and its machine's record");
    for (verb, command) in [
        ("status", scene.env.command(&["status"])),
        ("setup", scene.setup(&[])),
        ("start", scene.env.command(&["start"])),
        ("stop", scene.env.command(&["stop"])),
    ] {
        let ended = finish(command);
        let fault = format!("no record while QEMU runs, {verb}");
        row(
            &fault,
            ended.code,
            &first_line(&scene.env, &ended.stderr),
            &[],
        );
        assert_eq!(ended.code, 1, "{ended:?}");
        for word in [
            gone.as_str(),
            "hint: end it, and begin anew: k3s-vm reset && k3s-vm setup",
        ] {
            assert!(ended.stderr.contains(word), "{ended:?}");
        }
        assert_eq!(
            scene.env.pid().map(i32::cast_unsigned),
            Some(qemu),
            "nobody ended it"
        );
    }
    let ended = scene.env.ok(&["reset", "--yes"]);
    tell(&scene, "no record while QEMU runs, reset --yes", &ended);
    scene.goes_on(scene.setup(&[]));
}
