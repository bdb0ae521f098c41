//! A host that lacks what a machine needs.

use std::{
    collections::BTreeSet, fs, net::TcpListener, os::unix::fs::PermissionsExt, process::Command,
};

use super::{dead_setup, failed, nothing_is_left};
use crate::support::{Ended, TestEnv, ended};

/// A directory of programs with a `qemu-system-x86_64` that is this script.
fn with_qemu(env: &TestEnv, script: &str) -> Ended {
    let bin = env.path("bin");
    fs::create_dir(&bin).expect("created");
    let qemu = bin.join("qemu-system-x86_64");
    fs::write(&qemu, format!("#!/bin/sh\n{script}\n")).expect("written");
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).expect("executable");
    ended(
        env.command(&dead_setup(env, &[]))
            .env("PATH", bin)
            .output()
            .expect("runs"),
    )
}

#[test]
fn qemu_is_missing() {
    let env = TestEnv::new();
    let ended = ended(
        env.command(&dead_setup(&env, &[]))
            .env("PATH", "/nowhere")
            .output()
            .expect("runs"),
    );
    failed(
        "QEMU is missing",
        &ended,
        1,
        &[
            "qemu-system-x86_64 is not on the PATH",
            "hint: ",
            "--install-missing",
        ],
    );
    nothing_is_left(&env);
}

#[test]
fn qemu_is_too_old() {
    let env = TestEnv::new();
    let ended = with_qemu(
        &env,
        "echo 'QEMU emulator version 4.2.1 (Debian 1:4.2-3ubuntu6)'",
    );
    failed(
        "QEMU is too old",
        &ended,
        1,
        &["is QEMU 4.2", "6.2 or later", "hint: "],
    );
    nothing_is_left(&env);
}

#[test]
fn qemu_ends_at_once() {
    let env = TestEnv::new();
    let script = "[ \"$1\" != --version ] || { echo 'QEMU emulator version 8.2.0'; exit; }\n\
        echo 'qemu-system-x86_64: cannot do it today' >&2; exit 1";
    let ended = with_qemu(&env, script);
    failed(
        "QEMU ends at once",
        &ended,
        1,
        &[
            "QEMU ended at once",
            "cannot do it today",
            "k3s-vm logs qemu",
        ],
    );
    nothing_is_left(&env);
}

#[test]
fn kvm_is_asked_for() {
    let env = TestEnv::new();
    let began = std::time::Instant::now();
    let setup = dead_setup(&env, &["--timeout", "5s"]);
    let setup: Vec<_> = setup
        .iter()
        .map(|it| if it == "tcg" { "kvm" } else { it })
        .collect();
    let ended = env.run(&setup);
    // Where KVM works, the dead disk is what fails; elsewhere KVM is, with its reason and the way out.
    let words = if ended.stderr.contains("KVM was asked for") {
        ["/dev/kvm", "--accel tcg"]
    } else {
        ["not ready within 5s", "hint: "]
    };
    failed("--accel kvm", &ended, 1, &words);
    assert!(began.elapsed().as_secs() < 30, "a hang");
    nothing_is_left(&env);
}

#[test]
fn the_port_is_taken() {
    let env = TestEnv::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let setup = dead_setup(&env, &["--timeout", "2s", "--api-port", &port]);
    let ended = env.run(&setup);
    failed(
        "the chosen port is taken",
        &ended,
        1,
        &[&format!("port {port} on 127.0.0.1 is taken"), "hint: "],
    );
    nothing_is_left(&env);
    drop(taken);
    failed(
        "and goes on when it is free",
        &env.run(&setup),
        1,
        &["not ready within 2s"],
    );
    nothing_is_left(&env);
}

#[test]
fn memory_is_short() {
    let env = TestEnv::new();
    let setup = dead_setup(&env, &[])
        .into_iter()
        .map(|it| if it == "1GiB" { "100TiB".into() } else { it });
    let ended = env.run(&setup.collect::<Vec<_>>());
    failed(
        "memory is short",
        &ended,
        1,
        &["100TiB of memory", "available", "hint: ask for less"],
    );
    assert!(
        !env.cache.join("images").exists(),
        "nothing was fetched for it"
    );
    nothing_is_left(&env);
}

#[test]
fn the_disk_is_full() {
    let env = TestEnv::new();
    let mut words = vec!["-rm".to_owned(), "sh".into(), "-c".into()];
    words.push("mount -t tmpfs -o size=64m tmpfs . && cd \"$PWD\" && exec \"$@\"".into());
    words.extend([
        "sh".to_owned(),
        crate::support::program().display().to_string(),
    ]);
    words.extend(dead_setup(&env, &[]));
    let mut unshare: Command = env.tool("unshare");
    let ended = ended(unshare.args(words).output().expect("unshare runs"));
    failed(
        "the project's disk is full",
        &ended,
        1,
        &["free", "2GiB", "hint: make room"],
    );
    nothing_is_left(&env);
}

#[test]
fn machines_that_start_at_once_get_ports_of_their_own() {
    let envs = [
        TestEnv::new(),
        TestEnv::new(),
        TestEnv::new(),
        TestEnv::new(),
    ];
    let setups: Vec<_> = envs
        .iter()
        .map(|env| super::spawn(env.command(&dead_setup(env, &[]))))
        .collect();
    let ports: BTreeSet<u64> = envs
        .iter()
        .map(|env| {
            super::until("a forwarded port", || {
                let status = env.run(&["status", "--json"]).stdout;
                let status: serde_json::Value = serde_json::from_str(&status).ok()?;
                status["process"]["api_port"].as_u64()
            })
        })
        .collect();
    assert_eq!(ports.len(), envs.len(), "{ports:?}");
    for (env, setup) in envs.iter().zip(setups) {
        super::booting::kill(i32::try_from(setup.id()).expect("a process id"), "INT");
        assert_eq!(super::end(setup).code, 130);
        nothing_is_left(env);
    }
}
