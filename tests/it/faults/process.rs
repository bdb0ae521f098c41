//! QEMU itself: killed, frozen, cut off from its socket, or another program on the socket.

use std::{
    fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
};

use rustix::process::Signal;

use super::{
    durable::survives,
    sandbox::{Background, Sandbox, eventually, program, send},
    table::{first_line, record_stopped_fault, row},
};
use crate::support::finish;

fn socket(sandbox: &Sandbox) -> PathBuf {
    let status = sandbox.status();
    PathBuf::from(status["process"]["monitor"].as_str().expect("told"))
}

#[test]
fn a_qemu_that_is_killed_between_commands() {
    let sandbox = Sandbox::new();
    for verb in [&["stop"][..], &["start", "--timeout", "2s"]] {
        let qemu = sandbox.left_running();
        send(Signal::KILL, qemu);
        eventually("the status tells", || {
            sandbox.env.run(&["status"]).code == 3
        });
        assert!(sandbox.file("qemu.pid").exists(), "the pidfile is stale");
        let ended = sandbox.env.run(verb);
        record_stopped_fault(&sandbox, &format!("QEMU was killed, {}", verb[0]), &ended);
        assert_eq!(ended.code, i32::from(verb[0] == "start"), "{ended:?}");
        assert!(!sandbox.file("qemu.pid").exists());
    }
    sandbox.continues(sandbox.env.command(&["start"]));
}

/// A guest can have QEMU print what it likes; here the one that does is beside QEMU.
#[test]
fn a_qemu_that_prints_without_end() {
    const MOST: u64 = 5 << 20;
    let sandbox = Sandbox::new();
    let path = sandbox.env.programs.to_string_lossy().into_owned();
    let go = sandbox.env.path("go");
    let script = format!(
        "PATH='{path}'\ncase \"$*\" in *qmp.sock*)\n( for _ in $(seq 1200); do [ -e '{}' ] && break; sleep 0.05; done; \
         head -c 64M /dev/zero | tr '\\0' x; echo the end ) >&2 &\n;; esac\n\
         exec qemu-system-x86_64 \"$@\"",
        go.display(),
    );
    let mut programs = program(&sandbox, "qemu-system-x86_64", &script);
    programs.push(format!(":{path}"));
    let mut setup = sandbox.setup(&[]);
    setup.env("PATH", programs);
    let setup = Background::start(&sandbox, setup);
    eventually("the VM runs", || {
        assert!(setup.is_running(), "{}", setup.said());
        sandbox.status()["process"]["run_state"] == "running"
    });
    setup.signal(Signal::KILL);
    setup.end();
    let log = sandbox.file("qemu.log");
    fs::write(&go, "").expect("told");
    eventually("all is printed", || {
        let length = fs::metadata(&log).expect("a log").len();
        assert!(length <= MOST, "{length}");
        fs::read(&log).expect("a log").ends_with(b"xthe end\n")
    });
    let is_cut = |log: &Path| {
        let kept = fs::read(log).expect("a log");
        kept.starts_with(b"[k3s-vm: the guest flooded this log") && kept.len() as u64 <= MOST
    };
    assert!(is_cut(&log));
    // The command that would have cut it was killed.
    for name in ["console.log", "stages.log"] {
        let log = sandbox.file(name);
        fs::write(&log, vec![b'x'; 9 << 20]).expect("written");
        eventually("it is cut", || is_cut(&log));
    }
    sandbox.env.ok(&["stop", "--force"]);
    sandbox.nothing_runs();
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
        record_stopped_fault(
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
        record_stopped_fault(
            &sandbox,
            &format!("no runtime directory, {}", verb.join(" ")),
            &ended,
        );
        assert_eq!(ended.code, 0, "{ended:?}");
        sandbox.continues(sandbox.setup(&[]));
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

/// A silent listener on the socket does not delay a command.
#[test]
fn another_program_on_the_socket() {
    let sandbox = Sandbox::new();
    sandbox.left_running();
    let socket = socket(&sandbox);
    fs::remove_file(&socket).expect("removed");
    let _silent = UnixListener::bind(&socket).expect("bound");
    assert_eq!(sandbox.status()["process"]["run_state"], "unresponsive");
    let ended = sandbox.env.run(&["stop", "--force"]);
    record_stopped_fault(
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
    record_stopped_fault(&sandbox, "no record while QEMU runs, reset --yes", &ended);
    sandbox.continues(sandbox.setup(&[]));
}
