//! A port is in use by another program: before the start, between the look and the start, or the port of another project. Record,
//! kubeconfig and status name the port that is in use.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::Command,
};

use rustix::process::Signal;

use super::{
    sandbox::{Background, Sandbox, eventually, program},
    table::record_stopped_fault,
};
use crate::support::free_port;

/// The port of the running machine, as all that name it agree.
#[track_caller]
fn agreed(sandbox: &Sandbox) -> u64 {
    eventually("QEMU tells its ports", || {
        sandbox.status()["process"]["api_port"].is_u64()
    });
    let status = sandbox.status();
    let port = status["process"]["api_port"].as_u64().expect("told");
    let server = format!("https://127.0.0.1:{port}");
    let record = fs::read_to_string(sandbox.file("record.json")).expect("there");
    let record: serde_json::Value = serde_json::from_str(&record).expect("a record");
    assert_eq!(record["api_port"], port);
    assert_eq!(status["cluster"]["server"], server);
    let kubeconfig = status["machine"]["kubeconfig"].as_str().expect("told");
    if let Ok(text) = fs::read_to_string(kubeconfig) {
        assert!(text.contains(&server), "{text} leads to {server}");
    }
    port
}

#[test]
fn the_last_port_is_in_use_at_the_next_start() {
    let sandbox = Sandbox::new();
    let kubeconfig = sandbox.finished(".kube/config".as_ref());
    let before = fs::read_to_string(&kubeconfig).expect("there");
    let start = Background::start(&sandbox, sandbox.env.command(&["start"]));
    let last = agreed(&sandbox);
    start.signal(Signal::INT);
    assert_eq!(start.end().code, 130);
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, u16::try_from(last).expect("a port")));
    let start = Background::start(&sandbox, sandbox.env.command(&["start"]));
    assert_ne!(agreed(&sandbox), last);
    assert_ne!(fs::read_to_string(&kubeconfig).expect("there"), before);
    start.signal(Signal::INT);
    let ended = start.end();
    record_stopped_fault(
        &sandbox,
        "the last port is taken, start, interrupted",
        &ended,
    );
    assert_eq!(ended.code, 130);
    drop(other);
}

/// A QEMU that waits with its start until `go` is there.
struct Waiting {
    go: PathBuf,
}

impl Waiting {
    fn before(sandbox: &Sandbox, command: &mut Command) -> Self {
        let path = std::env::var("PATH").unwrap_or_default();
        let go = sandbox.env.path("go");
        let script = format!(
            "PATH='{path}'\n[ \"$1\" = --version ] || for _ in $(seq 3000); do [ -e '{go}' ] && break; sleep 0.02; done\n\
             exec qemu-system-x86_64 \"$@\"",
            go = go.display(),
        );
        command.env("PATH", program(sandbox, "qemu-system-x86_64", &script));
        Self { go }
    }

    /// The API's port that QEMU was given, taken by the test in time.
    fn grab(&self, sandbox: &Sandbox) -> (TcpListener, u16) {
        let asked = || {
            let mut processes = sandbox.processes().into_iter();
            processes.find_map(|line| {
                let (_, rest) = line.split_once("hostfwd=tcp:127.0.0.1:")?;
                rest.split_once('-')?.0.parse().ok()
            })
        };
        eventually("QEMU is started", || asked().is_some());
        let port = asked().expect("a forwarded port");
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("it was free");
        fs::write(&self.go, "").expect("written");
        (taken, port)
    }
}

#[test]
fn a_port_taken_after_preflight() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    let own = free_port();
    sandbox.had_port(own.number);
    let mut start = sandbox.env.command(&["start"]);
    let waiting = Waiting::before(&sandbox, &mut start);
    let start = Background::start(&sandbox, start);
    let (other, port) = waiting.grab(&sandbox);
    assert_eq!(port, own.number);
    assert_ne!(agreed(&sandbox), u64::from(port));
    start.signal(Signal::INT);
    let ended = start.end();
    let fault = "a free port is taken right before QEMU's start, interrupted";
    record_stopped_fault(&sandbox, fault, &ended);
    assert_eq!(ended.code, 130);
    drop(other);
}

#[test]
fn a_chosen_port_taken_after_preflight() {
    let sandbox = Sandbox::new();
    let own = free_port();
    let mut setup = sandbox.setup(&["--api-port", &own.to_string()]);
    let waiting = Waiting::before(&sandbox, &mut setup);
    let setup = Background::start(&sandbox, setup);
    let (other, port) = waiting.grab(&sandbox);
    assert_eq!(port, own.number);
    let ended = setup.end();
    record_stopped_fault(
        &sandbox,
        "the chosen port is taken right before QEMU's start",
        &ended,
    );
    assert_eq!(ended.code, 1);
    for word in [
        &format!("port {port} on 127.0.0.1 is in use"),
        "ss -ltnp",
        "--api-port N",
    ] {
        assert!(ended.stderr.contains(word), "{}", ended.stderr);
    }
    drop(other);
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn two_projects_that_chose_the_same_port() {
    let sandbox = Sandbox::named("first");
    let own = free_port();
    let port = own.to_string();
    let first = Background::start(&sandbox, sandbox.setup(&["--api-port", &port]));
    assert_eq!(agreed(&sandbox).to_string(), port);
    let second = sandbox.elsewhere(sandbox.env.path("second"));
    fs::create_dir(&second.project).expect("created");
    let message = format!("port {port} on 127.0.0.1 is in use");
    let refused =
        Background::start(&sandbox, second.here(sandbox.setup(&["--api-port", &port]))).end();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains(&message), "{refused:?}");
    assert!(first.is_running() && second.status()["state"] == "absent");
    first.signal(Signal::INT);
    assert_eq!(first.end().code, 130);
    record_stopped_fault(&sandbox, "two projects with the same port", &refused);
    let setup = Background::start(&sandbox, second.here(sandbox.setup(&["--api-port", &port])));
    eventually("the second has the port", || {
        second.status()["process"]["api_port"].as_u64() == port.parse().ok()
    });
    // Now it is the first one's turn to be late.
    let late = sandbox.env.run(&["start"]);
    assert_eq!(late.code, 1, "{late:?}");
    assert!(late.stderr.contains(&message), "{late:?}");
    setup.signal(Signal::INT);
    assert_eq!(setup.end().code, 130);
    sandbox.continues(sandbox.env.command(&["start"]));
}

#[test]
fn invalid_ports() {
    let sandbox = Sandbox::new();
    sandbox.stopped();
    let sound = fs::read_to_string(sandbox.file("config")).expect("there");
    for (port, words) in [
        ("0", ["k3s-vm/config: ", "api_port"]),
        ("70000", ["k3s-vm/config: ", "api_port"]),
    ] {
        fs::write(
            sandbox.file("config"),
            format!("{sound}api_port = {port}\n"),
        )
        .expect("written");
        let fault = format!("api_port = {port} in the config");
        sandbox.fails(&fault, sandbox.env.command(&["start"]), 1, &words);
    }
    for port in ["0", "70000", "-1", "http"] {
        let fault = format!("--api-port {port}");
        sandbox.fails(
            &fault,
            sandbox.setup(&[&format!("--api-port={port}")]),
            2,
            &["--api-port"],
        );
    }
    fs::write(sandbox.file("config"), sound).expect("written");
    sandbox.continues(sandbox.env.command(&["start"]));
}
