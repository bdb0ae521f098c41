//! QEMU itself: killed, frozen, cut off from its socket, or somebody else on the socket.

use std::{fs, os::unix::net::UnixListener, path::PathBuf};

use rustix::process::Signal;

use super::{
    durable::survives,
    sandbox::{Sandbox, eventually, send},
    table::{first_line, row, tell},
};
use crate::support::finish;

fn socket(sandbox: &Sandbox) -> PathBuf {
    let status = sandbox.status();
    PathBuf::from(status["process"]["monitor"].as_str().expect("told"))
}

#[test]
fn a_qemu_that_is_killed_while_nobody_looks() {
    let sandbox = Sandbox::new();
    for verb in [&["stop"][..], &["start", "--timeout", "2s"]] {
        let qemu = sandbox.left_running();
        send(Signal::KILL, qemu);
        eventually("the status tells", || {
            sandbox.env.run(&["status"]).code == 3
        });
        assert!(sandbox.file("qemu.pid").exists(), "the pidfile is stale");
        let ended = sandbox.env.run(verb);
        tell(&sandbox, &format!("QEMU was killed, {}", verb[0]), &ended);
        assert_eq!(ended.code, i32::from(verb[0] == "start"), "{ended:?}");
        assert!(!sandbox.file("qemu.pid").exists());
    }
    sandbox.goes_on(sandbox.env.command(&["start"]));
}

#[test]
fn a_qemu_that_is_frozen() {
    let sandbox = Sandbox::new();
    for verb in [&["stop", "--force"][..], &["reset", "--yes"]] {
        send(Signal::STOP, sandbox.left_running());
        let status = sandbox.status();
        assert_eq!(status["process"]["run_state"], "unresponsive");
        assert_eq!(status["healthy"], false);
        let ended = sandbox.env.run(verb);
        tell(
            &sandbox,
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
    let sandbox = Sandbox::new();
    for verb in [&["stop"][..], &["stop", "--force"], &["reset", "--yes"]] {
        sandbox.left_running();
        fs::remove_dir_all(sandbox.env.path("run/k3s-vm")).expect("removed");
        let status = sandbox.env.run(&["status"]);
        assert_eq!(status.code, 5, "{status:?}");
        assert!(
            status.stdout.contains("running (unresponsive)"),
            "{status:?}"
        );
        let ended = sandbox.env.run(verb);
        tell(
            &sandbox,
            &format!("no runtime directory, {}", verb.join(" ")),
            &ended,
        );
        assert_eq!(ended.code, 0, "{ended:?}");
        sandbox.goes_on(sandbox.setup(&[]));
    }
}

#[test]
fn a_qemu_without_its_socket_that_an_unfinished_setup_left() {
    let sandbox = Sandbox::new();
    for (verb, command) in [
        ("setup", sandbox.setup(&[])),
        ("start", sandbox.env.command(&["start"])),
    ] {
        let qemu = sandbox.left_running();
        fs::remove_dir_all(sandbox.env.path("run/k3s-vm")).expect("removed");
        let fault = format!("an unfinished setup's QEMU without its socket, {verb}");
        survives(&sandbox, &fault, command);
        assert_ne!(sandbox.env.pid().map(i32::cast_unsigned), Some(qemu));
    }
}

/// A listener on the socket that says nothing holds nobody up.
#[test]
fn somebody_else_on_the_socket() {
    let sandbox = Sandbox::new();
    sandbox.left_running();
    let socket = socket(&sandbox);
    fs::remove_file(&socket).expect("removed");
    let _silent = UnixListener::bind(&socket).expect("bound");
    assert_eq!(sandbox.status()["process"]["run_state"], "unresponsive");
    let ended = sandbox.env.run(&["stop", "--force"]);
    tell(
        &sandbox,
        "a stranger on the monitor's socket, stop --force",
        &ended,
    );
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[test]
fn a_record_that_is_gone_while_qemu_runs() {
    let sandbox = Sandbox::new();
    let qemu = sandbox.left_running();
    fs::remove_file(sandbox.file("record.json")).expect("removed");
    let gone = format!("QEMU runs here (process {qemu}), and its VM's record");
    for (verb, command) in [
        ("status", sandbox.env.command(&["status"])),
        ("setup", sandbox.setup(&[])),
        ("start", sandbox.env.command(&["start"])),
        ("stop", sandbox.env.command(&["stop"])),
    ] {
        let ended = finish(command);
        let fault = format!("no record while QEMU runs, {verb}");
        row(
            &fault,
            ended.code,
            &first_line(&sandbox.env, &ended.stderr),
            &[],
        );
        assert_eq!(ended.code, 1, "{ended:?}");
        for word in [
            gone.as_str(),
            "hint: recreate the VM: k3s-vm reset && k3s-vm setup",
        ] {
            assert!(ended.stderr.contains(word), "{ended:?}");
        }
        assert_eq!(
            sandbox.env.pid().map(i32::cast_unsigned),
            Some(qemu),
            "nobody ended it"
        );
    }
    let ended = sandbox.env.ok(&["reset", "--yes"]);
    tell(&sandbox, "no record while QEMU runs, reset --yes", &ended);
    sandbox.goes_on(sandbox.setup(&[]));
}
