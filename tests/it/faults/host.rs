//! The host lacks something: QEMU, KVM, a port, memory, space.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, TcpListener},
};

use super::scene::{Background, Scene, eventually, in_other_mounts, program};
use rustix::process::Signal;

use crate::support::{free_port, names, retried, skipped};

#[test]
fn no_qemu() {
    let scene = Scene::new();
    let mut setup = scene.setup(&[]);
    setup.env("PATH", scene.env.path("empty"));
    let words = [
        "qemu-system-x86_64 is not on the PATH",
        "hint: ",
        "setup --install-missing",
    ];
    scene.fails("no QEMU", setup, 1, &words);
    scene.goes_on(scene.setup(&[]));
}

#[test]
fn a_qemu_that_is_too_old_or_no_qemu_at_all() {
    let scene = Scene::new();
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
        let mut setup = scene.setup(&[]);
        setup.env("PATH", program(&scene, "qemu-system-x86_64", script));
        let ended = scene.fails(fault, setup, 1, &words);
        assert!(
            ended.stderr.contains(
                &scene
                    .env
                    .path("bin/qemu-system-x86_64")
                    .display()
                    .to_string()
            )
        );
    }
    scene.goes_on(scene.setup(&[]));
}

#[test]
fn a_qemu_that_ends_at_once() {
    let scene = Scene::new();
    let script = "[ \"$1\" != --version ] || { echo 'QEMU emulator version 9.9.9'; exit; }\n\
        echo 'qemu-system-x86_64: -machine q35: unsupported machine type' >&2\nexit 1";
    let mut setup = scene.setup(&[]);
    setup.env("PATH", program(&scene, "qemu-system-x86_64", script));
    let words = [
        "QEMU ended at once (exit status: 1)",
        "-machine q35: unsupported machine type",
        "k3s-vm logs qemu",
    ];
    scene.fails("QEMU ends at once", setup, 1, &words);
    scene.goes_on(scene.setup(&[]));
}

/// Where KVM works the guest is run, and boots nothing.
#[test]
fn kvm_is_insisted_on() {
    let scene = Scene::new();
    let setup = scene.setup(&["--accel", "kvm", "--timeout", "6s"]);
    let ended = scene.fails("--accel kvm", setup, 1, &["hint: "]);
    if ended.stderr.contains("KVM was asked for and /dev/kvm") {
        assert!(
            ended.stderr.contains("or go on without it: --accel tcg"),
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
    scene.goes_on(scene.setup(&[]));
}

#[test]
fn kvm_that_is_missing_or_forbidden() {
    let scene = Scene::new();
    let other_dev = "mkdir -p ../dev; touch ../dev/null; mount --bind /dev/null ../dev/null; ";
    let into_place = "mount --rbind ../dev /dev; ";
    let setup = in_other_mounts(
        &scene,
        &scene.setup(&["--accel", "kvm"]),
        &format!("{other_dev} {into_place} exec \"$@\""),
    );
    let words = [
        "KVM was asked for and /dev/kvm is missing",
        "kvm_intel",
        "or go on without it: --accel tcg",
    ];
    scene.fails("no /dev/kvm", setup, 1, &words);

    let setup = in_other_mounts(
        &scene,
        &scene.setup(&["--accel", "kvm"]),
        &format!(
            "{other_dev} touch ../dev/kvm; chmod 0 ../dev/kvm; {into_place} \
             exec setpriv --bounding-set -dac_override,-dac_read_search \"$@\""
        ),
    );
    let words = [
        "KVM was asked for and /dev/kvm may not be opened by you",
        "udev",
        "--accel tcg",
    ];
    scene.fails("no permission on /dev/kvm", setup, 1, &words);
    scene.goes_on(scene.setup(&[]));
}

#[test]
fn a_taken_port() {
    let scene = Scene::new();
    let own = free_port();
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, own.number)).expect("it is free");
    let port = own.to_string();
    let message = format!("port {port} on 127.0.0.1 is taken by another program");
    let who = format!("ss -ltnp 'sport = :{port}'");
    let words = [message.as_str(), &who, "--api-port N"];
    scene.fails("port taken", scene.setup(&["--api-port", &port]), 1, &words);
    assert_eq!(
        names(&scene.env.cache),
        Vec::<String>::new(),
        "before anything was fetched"
    );
    drop(other);
    scene.goes_on(scene.setup(&["--api-port", &port]));
}

#[test]
fn the_usual_port_is_taken_and_another_one_does() {
    let scene = Scene::new();
    let take = || TcpListener::bind((Ipv4Addr::LOCALHOST, 6443));
    for _ in 0..5 {
        let taken = take();
        let setup = Background::start(&scene, scene.setup(&[]));
        eventually("QEMU tells its ports", || {
            scene.status()["process"]["api_port"].is_u64()
        });
        let port = scene.status()["process"]["api_port"].clone();
        // Where it was another program's, it is so still.
        let was_taken = taken.is_ok() || (port != 6443 && take().is_err());
        drop((setup, taken));
        scene.env.ok(&["reset", "--yes"]);
        scene.nothing_runs();
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
    let scene = Scene::new();
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").expect("Linux");
    if first.trim() == "0" {
        return skipped("every port of this host is open to all users");
    }
    let asked = scene.setup(&["--api-port", "1"]);
    let mut setup = scene.env.tool("setpriv");
    setup.args([
        "--bounding-set",
        "-net_bind_service",
        "--inh-caps",
        "-net_bind_service",
    ]);
    setup.arg(asked.get_program()).args(asked.get_args());
    let words = [
        "port 1 on 127.0.0.1 may not be opened",
        "denied",
        "--api-port 6443",
    ];
    scene.fails("port 1 without root", setup, 1, &words);
}

#[test]
fn too_little_memory() {
    let scene = Scene::new();
    let words = [
        "the machine is to have 500TiB of memory, the host has",
        "--memory 2GiB",
    ];
    scene.fails(
        "500 TiB of memory",
        scene.setup(&["--memory", "500TiB"]),
        1,
        &words,
    );
    assert_eq!(
        names(&scene.env.cache),
        Vec::<String>::new(),
        "before anything was fetched"
    );
    scene.goes_on(scene.setup(&[]));
}

#[test]
fn too_little_space() {
    let scene = Scene::new();
    // The command's own directory is covered by the mount, so it is entered anew.
    let full = "mount -t tmpfs -o size=64m none \"$PWD\"; cd \"$PWD\"; exec \"$@\"";
    let words = [
        "free, and a new machine needs 2GiB",
        "hint: make room on the file system of",
    ];
    scene.fails(
        "a full project",
        in_other_mounts(&scene, &scene.setup(&[]), full),
        1,
        &words,
    );
    assert_eq!(
        names(&scene.env.cache.join("images")),
        Vec::<String>::new(),
        "before anything was fetched"
    );

    let full = "mkdir -p ../cache; mount -t tmpfs -o size=512k,mode=700 none ../cache; exec \"$@\"";
    let words = ["not enough space in", "/cache", "MiB needed", "hint: "];
    scene.fails(
        "a full cache",
        in_other_mounts(&scene, &scene.setup(&[]), full),
        1,
        &words,
    );
    scene.goes_on(scene.setup(&[]));
}

#[test]
fn machines_that_start_at_once_get_ports_of_their_own() {
    let scenes = [Scene::new(), Scene::new(), Scene::new(), Scene::new()];
    let setups: Vec<_> = scenes
        .iter()
        .map(|scene| Background::start(scene, scene.setup(&[])))
        .collect();
    let port = |scene: &Scene| scene.status()["process"]["api_port"].as_u64();
    for scene in &scenes {
        eventually("a forwarded port", || port(scene).is_some());
    }
    let ports: BTreeSet<_> = scenes.iter().map(port).collect();
    assert_eq!(ports.len(), scenes.len(), "{ports:?}");
    for (scene, setup) in scenes.iter().zip(setups) {
        setup.signal(Signal::INT);
        assert_eq!(setup.end().code, 130);
        scene.nothing_runs();
    }
}
