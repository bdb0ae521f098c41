//! What a crash leaves behind, and how the next command takes it.

use std::{fs, process::Command};

use super::{booting::kill, dead_setup, end, failed, nothing_is_left, spawn, until, waiting_setup};
use crate::support::TestEnv;

#[test]
fn a_killed_setup_is_taken_up_again() {
    let env = TestEnv::new();
    let (setup, pid) = waiting_setup(&env);
    kill(i32::try_from(setup.id()).expect("a process id"), "KILL");
    end(setup);
    let status = env.run(&["status"]);
    assert!(
        status.code == 5 && status.stdout.contains("running"),
        "QEMU outlives its launcher: {status:?}"
    );

    let again = spawn(env.command(&dead_setup(&env, &[])));
    let log = env.project.join(".k3s-vm/lock");
    until("the lock", || {
        fs::read_to_string(&log)
            .ok()
            .filter(|note| note.contains(&again.id().to_string()))
    });
    assert_eq!(env.pid(), Some(pid), "it goes on with the same QEMU");
    kill(i32::try_from(again.id()).expect("a process id"), "KILL");
    end(again);

    let ended = env.run(&dead_setup(&env, &["--timeout", "2s"]));
    failed(
        "a killed setup, taken up again",
        &ended,
        1,
        &["runs already", "not ready within 2s"],
    );
    nothing_is_left(&env);
}

#[test]
fn reset_clears_what_a_killed_setup_left() {
    let env = TestEnv::new();
    let (setup, _) = waiting_setup(&env);
    kill(i32::try_from(setup.id()).expect("a process id"), "KILL");
    end(setup);
    env.ok(&["reset", "--yes"]);
    assert_eq!(env.run(&["status"]).code, 4);
    nothing_is_left(&env);
}

#[test]
fn a_setup_killed_anywhere_goes_on() {
    let env = TestEnv::new();
    for name in [
        "config",
        "record.json",
        "disk.qcow2",
        "seed.img",
        "qemu.log",
    ] {
        let path = env.project.join(".k3s-vm").join(name);
        let setup = spawn(env.command(&dead_setup(&env, &[])));
        until(name, || path.exists().then_some(()));
        kill(i32::try_from(setup.id()).expect("a process id"), "KILL");
        end(setup);
        let status = env.run(&["status"]);
        assert!([3, 4, 5].contains(&status.code), "{status:?}");
    }
    let ended = env.run(&dead_setup(&env, &["--timeout", "2s"]));
    failed(
        "a setup killed at five places",
        &ended,
        1,
        &["not ready within 2s"],
    );
    nothing_is_left(&env);
}

#[test]
fn a_stale_pidfile_names_a_bystander() {
    let env = TestEnv::new();
    let (setup, pid) = waiting_setup(&env);
    kill(pid, "KILL");
    end(setup);
    let mut bystander = Command::new("sleep")
        .arg("1000")
        .spawn()
        .expect("sleep runs");
    let pidfile = env.project.join(".k3s-vm/qemu.pid");
    for arguments in [&["stop"][..], &["stop", "--force"], &["reset", "--yes"]] {
        fs::write(&pidfile, format!("{}\n", bystander.id())).expect("written");
        let status = env.run(&["status"]).code;
        assert!(
            [3, 4].contains(&status),
            "a bystander is no machine: {status}"
        );
        env.ok(arguments);
        assert!(
            bystander.try_wait().expect("asked").is_none(),
            "{arguments:?} has hurt a bystander"
        );
    }
    assert!(!pidfile.exists());
    bystander.kill().expect("ended");
    bystander.wait().expect("reaped");
    nothing_is_left(&env);
}

#[test]
fn the_host_has_rebooted() {
    let env = TestEnv::new();
    let (setup, pid) = waiting_setup(&env);
    let runtime = env.path("run/k3s-vm");
    kill(pid, "KILL");
    end(setup);
    fs::write(env.project.join(".k3s-vm/qemu.pid"), "1\n").expect("a stale pidfile");
    let _ = fs::remove_dir_all(&runtime);
    assert_eq!(env.run(&["status"]).code, 3);
    let ended = env.run(&["start", "--timeout", "2s"]);
    failed(
        "the host has rebooted",
        &ended,
        1,
        &["starting k3s-project-", "not ready within 2s"],
    );
    nothing_is_left(&env);
}
