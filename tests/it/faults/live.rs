//! A machine that runs for the length of a test: what is done to it, and what it has to say.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    sandbox::{Sandbox, say},
    table::record_running_fault,
};
use crate::{
    support::Ended,
    transcript::{CLOCK_SKEW, is_the_time},
};

pub(super) fn qemu(sandbox: &Sandbox) -> u32 {
    sandbox.env.pid().expect("it runs").cast_unsigned()
}

/// A service of the host's own, which answers each connection with a word.
pub(super) fn service_of_the_host() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(b"hello"));
        }
    });
    port
}

/// The guest asks that service by the host's name in user networking.
pub(super) fn guest_asks(sandbox: &Sandbox, port: u16) -> Ended {
    let command = format!("timeout 10 bash -c 'cat </dev/tcp/10.0.2.2/{port}'");
    run(sandbox, &["ssh", &command])
}

pub(super) fn run(sandbox: &Sandbox, arguments: &[&str]) -> Ended {
    say(&format!("  $ k3s-vm {}", arguments.join(" ")));
    sandbox.env.run(arguments)
}

#[track_caller]
pub(super) fn ssh(sandbox: &Sandbox, command: &str) -> String {
    let ended = run(sandbox, &["ssh", command]);
    assert_eq!(ended.code, 0, "{ended:?}");
    ended.stdout
}

/// Runs a command that fails, on a VM that keeps running.
#[track_caller]
pub(super) fn fails_running(
    sandbox: &Sandbox,
    fault: &str,
    arguments: &[&str],
    code: i32,
    words: &[&str],
) {
    let ended = run(sandbox, arguments);
    record_running_fault(sandbox, fault, &ended);
    assert_eq!(ended.code, code, "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?}: {}", ended.stderr);
    }
}

pub(super) fn healthy(sandbox: &Sandbox) -> bool {
    sandbox.env.run(&["status"]).code == 0
}

/// Screen, JSON and exit code say that the machine runs and is not healthy, and the screen says why.
#[track_caller]
pub(super) fn unhealthy(sandbox: &Sandbox, fault: &str, why: &str) -> Value {
    let mut screen = run(sandbox, &["status"]);
    let json = run(sandbox, &["status", "--json"]);
    let line = screen.stdout.lines().find(|line| line.contains(why));
    screen.stderr = line.unwrap_or_default().to_owned();
    record_running_fault(sandbox, fault, &screen);
    assert!(line.is_some(), "{why:?}: {}", screen.stdout);
    assert_eq!((screen.code, json.code), (5, 5));
    let status: Value = serde_json::from_str(&json.stdout).expect("one JSON document");
    assert_eq!(
        (&status["state"], &status["healthy"]),
        (&json!("running"), &json!(false))
    );
    status
}

/// The guest knows the time.
#[track_caller]
pub(super) fn knows_the_time(sandbox: &Sandbox) {
    is_the_time(CLOCK_SKEW, || ssh(sandbox, "date +%s"));
}

/// Gives QEMU a command by its monitor.
pub(super) fn monitor(sandbox: &Sandbox, command: &str) {
    let status = sandbox.status();
    let socket = status["process"]["monitor"].as_str().expect("a socket");
    let mut stream = UnixStream::connect(socket).expect("QEMU listens");
    let limit = Some(Duration::from_secs(60));
    stream.set_read_timeout(limit).expect("limited");
    let mut answers = BufReader::new(stream.try_clone().expect("cloned")).lines();
    for command in ["qmp_capabilities", command] {
        let command = json!({ "execute": command }).to_string();
        stream.write_all(command.as_bytes()).expect("written");
        let done = answers.any(|line| line.is_ok_and(|line| line.contains("\"return\"")));
        assert!(done, "{command}");
    }
}
