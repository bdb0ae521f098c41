//! The host lacks something: QEMU, KVM, a port, memory, space.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, TcpListener},
};

use super::sandbox::{Background, Sandbox, eventually, in_other_mounts, program};
use rustix::process::Signal;

use crate::support::{free_port, names, retried, skipped};

#[test]
fn no_qemu() {
    let sandbox = Sandbox::new();
    let mut setup = sandbox.setup(&[]);
    setup.env("PATH", sandbox.env.path("empty"));
    let words = [
        "qemu-system-x86_64 is not on the PATH",
        "hint: ",
        "setup --install-missing",
    ];
    sandbox.fails("no QEMU", setup, 1, &words);
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn a_qemu_that_is_too_old_or_no_qemu_at_all() {
    let sandbox = Sandbox::new();
    for (fault, script, words) in [
        (
            "QEMU 4.2",
            "echo 'QEMU emulator version 4.2.1'",
            ["is QEMU 4.2; 6.2 or later is needed", "hint: "],
        ),
        (
            "another program of that name",
            "echo 'hello'",
            ["names no version", "hint: "],
        ),
    ] {
        let mut setup = sandbox.setup(&[]);
        setup.env("PATH", program(&sandbox, "qemu-system-x86_64", script));
        let ended = sandbox.fails(fault, setup, 1, &words);
        assert!(
            ended.stderr.contains(
                &sandbox
                    .env
                    .path("bin/qemu-system-x86_64")
                    .display()
                    .to_string()
            )
        );
    }
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn a_qemu_that_ends_at_once() {
    let sandbox = Sandbox::new();
    let script = "[ \"$1\" != --version ] || { echo 'QEMU emulator version 9.9.9'; exit; }\n\
        echo 'qemu-system-x86_64: -machine q35: unsupported machine type' >&2\nexit 1";
    let mut setup = sandbox.setup(&[]);
    setup.env("PATH", program(&sandbox, "qemu-system-x86_64", script));
    let words = [
        "QEMU ended at once (exit status: 1)",
        "-machine q35: unsupported machine type",
        "k3s-vm logs qemu",
    ];
    sandbox.fails("QEMU ends at once", setup, 1, &words);
    sandbox.continues(sandbox.setup(&[]));
}

/// Where KVM works the guest is run, and boots nothing.
#[test]
fn kvm_is_required() {
    let sandbox = Sandbox::new();
    let setup = sandbox.setup(&["--accel", "kvm", "--timeout", "6s"]);
    let ended = sandbox.fails("--accel kvm", setup, 1, &["hint: "]);
    if ended.stderr.contains("cannot use KVM: /dev/kvm") {
        assert!(
            ended.stderr.contains("or run without KVM: --accel tcg"),
            "{}",
            ended.stderr
        );
        assert!(!ended.stderr.contains("starting "), "{}", ended.stderr);
    } else {
        assert!(
            ended.stderr.contains("not ready within 6s"),
            "{}",
            ended.stderr
        );
    }
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn kvm_that_is_missing_or_forbidden() {
    let sandbox = Sandbox::new();
    let other_dev = "mkdir -p ../dev; touch ../dev/null; mount --bind /dev/null ../dev/null; ";
    let into_place = "mount --rbind ../dev /dev; ";
    let setup = in_other_mounts(
        &sandbox,
        &sandbox.setup(&["--accel", "kvm"]),
        &format!("{other_dev} {into_place} exec \"$@\""),
    );
    let words = [
        "cannot use KVM: /dev/kvm is missing",
        "kvm_intel",
        "or run without KVM: --accel tcg",
    ];
    sandbox.fails("no /dev/kvm", setup, 1, &words);

    let setup = in_other_mounts(
        &sandbox,
        &sandbox.setup(&["--accel", "kvm"]),
        &format!(
            "{other_dev} touch ../dev/kvm; chmod 0 ../dev/kvm; {into_place} \
             exec setpriv --bounding-set -dac_override,-dac_read_search \"$@\""
        ),
    );
    let words = [
        "cannot use KVM: /dev/kvm cannot be opened: permission denied",
        "udev",
        "--accel tcg",
    ];
    sandbox.fails("no permission on /dev/kvm", setup, 1, &words);
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn a_port_in_use() {
    let sandbox = Sandbox::new();
    let own = free_port();
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, own.number)).expect("it is free");
    let port = own.to_string();
    let message = format!("port {port} on 127.0.0.1 is in use by another program");
    let who = format!("ss -ltnp 'sport = :{port}'");
    let words = [message.as_str(), &who, "--api-port N"];
    sandbox.fails(
        "port taken",
        sandbox.setup(&["--api-port", &port]),
        1,
        &words,
    );
    assert_eq!(
        names(&sandbox.env.cache),
        Vec::<String>::new(),
        "before anything was fetched"
    );
    drop(other);
    sandbox.continues(sandbox.setup(&["--api-port", &port]));
}

#[test]
fn another_port_replaces_the_default() {
    let sandbox = Sandbox::new();
    let take = || TcpListener::bind((Ipv4Addr::LOCALHOST, 6443));
    for _ in 0..5 {
        let taken = take();
        let setup = Background::start(&sandbox, sandbox.setup(&[]));
        eventually("QEMU tells its ports", || {
            sandbox.status()["process"]["api_port"].is_u64()
        });
        let port = sandbox.status()["process"]["api_port"].clone();
        // Where it was another program's, it is so still.
        let was_taken = taken.is_ok() || (port != 6443 && take().is_err());
        drop((setup, taken));
        sandbox.env.ok(&["reset", "--yes"]);
        sandbox.nothing_runs();
        if was_taken {
            assert_ne!(port, 6443);
            return;
        }
        retried("another program has given port 6443 back meanwhile");
    }
    panic!("port 6443 changes hands all the time");
}

#[test]
fn a_port_of_root() {
    let sandbox = Sandbox::new();
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").expect("Linux");
    if first.trim() == "0" {
        return skipped("every port of this host is open to all users");
    }
    let asked = sandbox.setup(&["--api-port", "1"]);
    let mut setup = sandbox.env.tool("setpriv");
    setup.args([
        "--bounding-set",
        "-net_bind_service",
        "--inh-caps",
        "-net_bind_service",
    ]);
    setup.arg(asked.get_program()).args(asked.get_args());
    let words = [
        "cannot open port 1 on 127.0.0.1",
        "denied",
        "--api-port 6443",
    ];
    sandbox.fails("port 1 without root", setup, 1, &words);
}

#[test]
fn too_little_memory() {
    let sandbox = Sandbox::new();
    let words = [
        "cannot give the VM 500TiB of memory: the host has",
        "--memory 2GiB",
    ];
    sandbox.fails(
        "500 TiB of memory",
        sandbox.setup(&["--memory", "500TiB"]),
        1,
        &words,
    );
    assert_eq!(
        names(&sandbox.env.cache),
        Vec::<String>::new(),
        "before anything was fetched"
    );
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn too_little_space() {
    let sandbox = Sandbox::new();
    // The command's own directory is covered by the mount, so it is entered again.
    let full = "mount -t tmpfs -o size=64m none \"$PWD\"; cd \"$PWD\"; exec \"$@\"";
    let words = [
        "a new VM needs 2GiB",
        "hint: free space on the file system of",
    ];
    sandbox.fails(
        "a full project",
        in_other_mounts(&sandbox, &sandbox.setup(&[]), full),
        1,
        &words,
    );
    assert_eq!(
        names(&sandbox.env.cache.join("images")),
        Vec::<String>::new(),
        "before anything was fetched"
    );

    let full = "mkdir -p ../cache; mount -t tmpfs -o size=512k,mode=700 none ../cache; exec \"$@\"";
    let words = ["not enough space in", "/cache", "MiB needed", "hint: "];
    sandbox.fails(
        "a full cache",
        in_other_mounts(&sandbox, &sandbox.setup(&[]), full),
        1,
        &words,
    );
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn concurrent_starts_get_distinct_ports() {
    let scenes = [
        Sandbox::new(),
        Sandbox::new(),
        Sandbox::new(),
        Sandbox::new(),
    ];
    let setups: Vec<_> = scenes
        .iter()
        .map(|sandbox| Background::start(sandbox, sandbox.setup(&[])))
        .collect();
    let port = |sandbox: &Sandbox| sandbox.status()["process"]["api_port"].as_u64();
    for sandbox in &scenes {
        eventually("a forwarded port", || port(sandbox).is_some());
    }
    let ports: BTreeSet<_> = scenes.iter().map(port).collect();
    assert_eq!(ports.len(), scenes.len(), "{ports:?}");
    for (sandbox, setup) in scenes.iter().zip(setups) {
        setup.signal(Signal::INT);
        assert_eq!(setup.end().code, 130);
        sandbox.nothing_runs();
    }
}
