//! A project is moved or copied: the machine goes with the directory, and a copy is a machine of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;

use super::{
    sandbox::{Background, Sandbox, eventually, program},
    table::record_stopped_fault,
};
use crate::support::{dead_image, finish};

/// The old path begins with the new one, so that the scene sees the processes of both.
const BEFORE: &str = "shop-before";

fn moved(sandbox: &mut Sandbox) -> PathBuf {
    let new = sandbox.env.path("shop");
    let old = std::mem::replace(&mut sandbox.env.project, new);
    fs::rename(&old, &sandbox.env.project).expect("moved");
    old
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp runs");
}

#[test]
fn a_project_that_was_moved() {
    let mut sandbox = Sandbox::named(BEFORE);
    sandbox.finished(".kube/config".as_ref());
    let before = sandbox.status();
    let old = moved(&mut sandbox);
    let kubeconfig = sandbox.env.project.join(".kube/config");
    let after = sandbox.status();
    for same in ["name", "uuid"] {
        assert_eq!(after["machine"][same], before["machine"][same]);
    }
    assert_eq!(
        after["machine"]["kubeconfig"],
        kubeconfig.to_str().expect("text")
    );

    let start = Background::start(&sandbox, sandbox.env.command(&["start"]));
    eventually("the VM runs", || {
        sandbox.status()["process"]["run_state"] == "running"
    });
    // A kubectl that prints its arguments.
    let mut kubectl = sandbox.env.command(&["kubectl", "get", "nodes"]);
    kubectl.env(
        "PATH",
        program(&sandbox, "kubectl", "echo \"$* by $KUBECONFIG\""),
    );
    let told = finish(kubectl).stdout;
    assert_eq!(
        told.trim(),
        format!("get nodes by {}", kubeconfig.display())
    );
    let text = fs::read_to_string(&kubeconfig).expect("there");
    assert!(text.contains(&format!(
        "https://127.0.0.1:{}",
        sandbox.status()["process"]["api_port"]
    )));
    start.signal(Signal::INT);
    record_stopped_fault(
        &sandbox,
        "a start after the project was moved, interrupted",
        &start.end(),
    );

    let ended = sandbox.env.ok(&["reset", "--yes"]);
    record_stopped_fault(&sandbox, "reset after the project was moved", &ended);
    assert!(!kubeconfig.exists() && !old.exists());
    sandbox.continues(sandbox.setup(&[]));
}

/// What of the project its config and record name is found at the new place as well.
#[test]
fn a_moved_project_with_an_image_and_a_kubeconfig_in_it() {
    let mut sandbox = Sandbox::named(BEFORE);
    dead_image(&sandbox.env.project.join("own.img"));
    sandbox.continues(sandbox.setup(&["--image", "./own.img", "--kubeconfig", "kube.yaml"]));
    moved(&mut sandbox);
    let machine = sandbox.status()["machine"].clone();
    assert_eq!(machine["image"], "./own.img");
    let kubeconfig = sandbox.env.project.join("kube.yaml");
    assert_eq!(machine["kubeconfig"], kubeconfig.to_str().expect("text"));
    for again in [&["--image", "own.img"][..], &["--image", "./own.img"]] {
        sandbox.continues(sandbox.setup(again));
    }
    sandbox.continues(sandbox.env.command(&["start"]));
}

#[test]
fn a_project_that_is_moved_while_its_vm_runs() {
    for verb in [&["stop", "--force"][..], &["reset", "--yes"]] {
        let mut sandbox = Sandbox::named(BEFORE);
        sandbox.left_running();
        let before = sandbox.status()["process"].clone();
        let old = moved(&mut sandbox);
        let process = sandbox.status()["process"].clone();
        for same in ["pid", "run_state", "api_port", "ssh_port", "monitor"] {
            assert_eq!(process[same], before[same], "{same}");
        }
        fs::create_dir(&old).expect("created");
        let at_the_old_place = sandbox.elsewhere(old);
        assert_eq!(at_the_old_place.run(&["status"]).code, 4);
        assert_eq!(at_the_old_place.run(&["stop"]).code, 4);
        let fault = format!("moved while the VM runs, {}", verb.join(" "));
        let ended = sandbox.env.run(verb);
        record_stopped_fault(&sandbox, &fault, &ended);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert!(!ended.stderr.contains("killing"), "{}", ended.stderr);
        sandbox.continues(sandbox.setup(&[]));
    }
}

#[test]
fn two_copies_run_side_by_side() {
    let sandbox = Sandbox::named("shop");
    let kubeconfig = sandbox.finished(".kube/config".as_ref());
    let original = Background::start(&sandbox, sandbox.env.command(&["start"]));
    eventually("the original runs", || {
        sandbox.status()["process"]["api_port"].is_u64()
    });
    // Made while the original runs: with its pidfile, and with a kubeconfig that leads to the original.
    let copy_of = sandbox.elsewhere(sandbox.env.path("shop-copy"));
    copy(&sandbox.env.project, &copy_of.project);
    assert_eq!(copy_of.status()["state"], "stopped");
    for verb in [&["stop"][..], &["stop", "--force"]] {
        let ended = copy_of.run(verb);
        assert!(ended.stderr.contains("already stopped"), "{ended:?}");
    }
    let start = Background::start(&sandbox, copy_of.command(&["start"]));
    eventually("the copy runs", || {
        copy_of.status()["process"]["api_port"].is_u64()
    });
    let (first, second) = (sandbox.status(), copy_of.status());
    for own in ["pid", "api_port", "ssh_port", "monitor"] {
        assert_ne!(first["process"][own], second["process"][own], "{own}");
    }
    for (project, status) in [(&sandbox.env.project, &first), (&copy_of.project, &second)] {
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
    let after = sandbox.status();
    for same in ["pid", "api_port", "ssh_port", "monitor", "run_state"] {
        assert_eq!(after["process"][same], first["process"][same], "{same}");
    }
    original.signal(Signal::INT);
    record_stopped_fault(
        &sandbox,
        "a copied project, reset while the original runs",
        &original.end(),
    );
    assert!(kubeconfig.exists());
}

#[test]
fn copies_that_share_one_place_for_the_kubeconfig() {
    let mut sandbox = Sandbox::named("shop");
    let place = sandbox.env.path("shared/kubeconfig");
    sandbox.finished(&place);
    fs::write(
        sandbox.file("config"),
        format!(
            "{}kubeconfig = {place:?}\n",
            fs::read_to_string(sandbox.file("config")).expect("there")
        ),
    )
    .expect("written");
    sandbox.trusted();
    let text = fs::read(&place).expect("there");
    let copy_of = sandbox.elsewhere(sandbox.env.path("shop-copy"));
    copy(&sandbox.env.project, &copy_of.project);
    let words = [
        "shared/kubeconfig is the kubeconfig of the VM in",
        "hint: use another path: k3s-vm setup --kubeconfig PATH",
    ];
    for (verb, command) in [
        ("start", copy_of.command(&["start"])),
        ("setup", copy_of.here(sandbox.setup(&[]))),
    ] {
        let fault = format!("the kubeconfig of the project that this is a copy of, {verb}");
        sandbox.fails(&fault, command, 1, &words);
    }
    assert_eq!(copy_of.run(&["reset", "--yes"]).code, 0);
    assert_eq!(
        fs::read(&place).expect("there"),
        text,
        "it is the original's"
    );
    drop(copy_of);
    // The same file is the machine's own, wherever that moves.
    let away = sandbox.env.path("shop-away");
    fs::rename(&sandbox.env.project, &away).expect("moved");
    sandbox.env.project = away;
    sandbox.continues(sandbox.env.command(&["start"]));
    sandbox.env.ok(&["reset", "--yes"]);
    assert!(!place.exists());
}
