//! A command dies, a host is rebooted, process ids are reused, two commands come at once.

use std::{
    fs,
    os::unix::net::UnixListener,
    process::{Command, Stdio},
};

use rustix::process::Signal;

use super::{
    sandbox::{Background, Sandbox},
    table::record_stopped_fault,
};
use crate::support::{names, private_dir};

#[test]
fn the_next_setup_continues_with_the_qemu_of_a_killed_one() {
    let sandbox = Sandbox::new();
    let setup = sandbox.booting();
    setup.signal(Signal::KILL);
    assert_eq!(setup.end().code, 137);
    let qemu = sandbox.env.pid().expect("it runs");
    let status = sandbox.env.run(&["status"]);
    assert_eq!(status.code, 5, "{status:?}");
    assert!(
        status.stdout.contains("running, not healthy"),
        "{}",
        status.stdout
    );

    let setup = Background::start(&sandbox, sandbox.setup(&[]));
    setup.says(&format!(
        "is already running (process {qemu}); waiting until it is ready"
    ));
    setup.signal(Signal::INT);
    let ended = setup.end();
    record_stopped_fault(&sandbox, "a setup after a killed one, interrupted", &ended);
    assert_eq!(ended.code, 130);
    sandbox.nothing_runs();
    let setup = sandbox.booting();
    setup.signal(Signal::KILL);
    drop(setup);

    let stop = sandbox.env.ok(&["stop", "--force"]).stderr;
    assert!(!stop.contains("power"), "the guest is not asked: {stop}");
    sandbox.nothing_runs();
    sandbox.env.ok(&["reset", "--yes"]);
    assert_eq!(
        names(&sandbox.file("")),
        [".gitignore", "approved", "config", "id", "lock"]
    );
}

#[test]
fn a_pidfile_with_the_number_of_another_process() {
    let sandbox = Sandbox::new();
    sandbox.stopped();
    let victim = Background::start(&sandbox, sleep());
    let pidfile = sandbox.file("qemu.pid");
    for verb in [&["stop"][..], &["stop", "--force"], &["reset", "--yes"]] {
        if !sandbox.file("record.json").exists() {
            sandbox.stopped();
        }
        fs::write(&pidfile, format!("{}\n", victim.pid())).expect("written");
        assert_eq!(sandbox.env.run(&["status"]).code, 3);
        let ended = sandbox.env.ok(verb);
        record_stopped_fault(
            &sandbox,
            &format!("a forged pidfile, {}", verb.join(" ")),
            &ended,
        );
        assert!(victim.is_running(), "the victim lives");
        assert!(!pidfile.exists(), "{verb:?} clears the stale file away");
    }
}

fn sleep() -> Command {
    let mut sleep = Command::new("sleep");
    sleep.arg("600").stdin(Stdio::null());
    sleep
}

/// All processes are gone, a pidfile and perhaps a socket are there, and the runtime directory was in memory.
#[test]
fn a_reboot_of_the_host() {
    for socket_is_left in [false, true] {
        let sandbox = Sandbox::new();
        let setup = sandbox.booting();
        setup.signal(Signal::KILL);
        drop(setup);
        let monitor = sandbox.status()["process"]["monitor"]
            .as_str()
            .expect("told")
            .to_owned();
        super::sandbox::send(
            Signal::KILL,
            sandbox.env.pid().expect("it runs").cast_unsigned(),
        );
        super::sandbox::eventually("QEMU is gone", || sandbox.env.run(&["status"]).code == 3);
        let runtime = sandbox.env.path("run");
        fs::remove_dir_all(&runtime).expect("removed");
        private_dir(&runtime);
        if socket_is_left {
            let directory = std::path::Path::new(&monitor)
                .parent()
                .expect("a directory");
            private_dir(&runtime.join("k3s-vm"));
            private_dir(directory);
            drop(UnixListener::bind(&monitor).expect("bound"));
        }
        assert!(
            sandbox.file("qemu.pid").exists(),
            "as a host that lost its power leaves it"
        );
        assert_eq!(sandbox.env.run(&["status"]).code, 3);
        sandbox.continues(sandbox.env.command(&["start"]));
    }
}

#[test]
fn a_second_command_waits_and_says_for_whom() {
    let sandbox = Sandbox::new();
    let setup = sandbox.booting();
    let status = sandbox.env.run(&["status"]);
    assert_eq!(status.code, 5, "{status:?}");
    assert!(setup.is_running(), "status does not wait");

    let stop = Background::start(&sandbox, sandbox.env.command(&["stop"]));
    stop.says(&format!(
        "waiting for k3s-vm setup (process {})",
        setup.pid()
    ));
    assert!(setup.is_running() && stop.is_running());
    setup.signal(Signal::INT);
    assert_eq!(setup.end().code, 130);
    let ended = stop.end();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("already stopped"), "{}", ended.stderr);

    // A waiting command may be interrupted as well, and disturbs no other.
    let setup = sandbox.booting();
    let second = Background::start(&sandbox, sandbox.setup(&[]));
    second.says(&format!(
        "waiting for k3s-vm setup (process {})",
        setup.pid()
    ));
    second.signal(Signal::INT);
    assert_eq!(second.end().code, 130);
    assert!(setup.is_running());
    assert_eq!(sandbox.status()["state"], "running");
}
