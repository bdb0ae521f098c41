//! A part of the VM is truncated, empty, overwritten or gone, as a failing disk or a hand leaves it: it is named with
//! the way out or created again where nothing is lost, and never believed.

use std::{fs, path::Path, process::Command};

use k3s_vm::image::template::publish;
use rustix::process::Signal;

use super::{
    sandbox::{Background, Sandbox, eventually},
    table::record_stopped_fault,
};
use crate::support::{names, skipped};

/// The command comes to a running QEMU all the same.
#[track_caller]
pub(super) fn survives(sandbox: &Sandbox, fault: &str, command: Command) {
    let command = Background::start(sandbox, command);
    eventually("the VM runs", || {
        assert!(command.is_running(), "{fault}: {}", command.said());
        sandbox.status()["process"]["run_state"] == "running"
    });
    command.signal(Signal::INT);
    let ended = command.end();
    record_stopped_fault(sandbox, &format!("{fault}, interrupted"), &ended);
    assert_eq!(ended.code, 130);
}

/// What a file is overwritten with, and how that is called.
pub(super) fn damages(sound: &[u8]) -> [(&'static str, Vec<u8>); 3] {
    [
        ("empty", Vec::new()),
        ("torn", sound[..sound.len() / 2].to_vec()),
        ("overwritten", b"\xff\x00 not what it was\n".to_vec()),
    ]
}

#[test]
fn damaged_keys() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    for key in ["id_ed25519", "host_ed25519"] {
        let path = sandbox.file(key);
        let sound = fs::read(&path).expect("there");
        for (how, bytes) in damages(&sound) {
            fs::write(&path, bytes).expect("written");
            let place = format!("k3s-vm/{key}");
            for (verb, command) in [
                ("start", sandbox.env.command(&["start"])),
                ("setup", sandbox.setup(&[])),
            ] {
                let fault = format!("{key} is {how}, {verb}");
                sandbox.fails(&fault, command, 1, &[&place, "hint: "]);
            }
            assert_eq!(sandbox.env.run(&["status"]).code, 3);
        }
        fs::remove_file(&path).expect("removed");
        let gone = format!("k3s-vm/{key} is missing");
        let words = [gone.as_str(), "k3s-vm reset && k3s-vm setup"];
        sandbox.fails(
            &format!("{key} is gone, start"),
            sandbox.env.command(&["start"]),
            1,
            &words,
        );
        assert!(!path.exists(), "another key would open nothing");
        fs::write(&path, sound).expect("put back");
        set_private(&path);
    }
    sandbox.continues(sandbox.env.command(&["start"]));
}

fn set_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("changed");
}

#[test]
fn a_damaged_disk() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    let path = sandbox.file("disk.qcow2");
    let sound = fs::read(&path).expect("there");
    let words = [
        "k3s-vm/disk.qcow2 is damaged: it is not a qcow2 image",
        "k3s-vm reset && k3s-vm setup",
    ];
    let torn = sound[..200].to_vec();
    for (how, bytes) in [
        ("empty", Vec::new()),
        ("torn", torn),
        ("overwritten", vec![0; sound.len()]),
    ] {
        fs::write(&path, bytes).expect("written");
        for (verb, command) in [
            ("start", sandbox.env.command(&["start"])),
            ("setup", sandbox.setup(&[])),
        ] {
            sandbox.fails(&format!("the disk is {how}, {verb}"), command, 1, &words);
        }
        assert_eq!(sandbox.env.run(&["status"]).code, 3);
    }
    fs::remove_file(&path).expect("removed");
    let words = [
        "k3s-vm/disk.qcow2 is missing",
        "k3s-vm reset && k3s-vm setup",
    ];
    for (verb, command) in [
        ("start", sandbox.env.command(&["start"])),
        ("setup", sandbox.setup(&[])),
    ] {
        sandbox.fails(&format!("the disk is gone, {verb}"), command, 1, &words);
    }
    assert!(!path.exists(), "an empty disk would pass for the VM's");
    fs::write(&path, sound).expect("put back");
    sandbox.continues(sandbox.env.command(&["start"]));
}

#[test]
fn a_damaged_seed() {
    let sandbox = Sandbox::new();
    sandbox.stopped();
    let path = sandbox.file("seed.img");
    let sound = fs::read(&path).expect("there");
    for (how, bytes) in damages(&sound) {
        for (verb, command) in [
            ("start", sandbox.env.command(&["start"])),
            ("setup", sandbox.setup(&[])),
        ] {
            fs::write(&path, &bytes).expect("written");
            survives(&sandbox, &format!("the seed is {how}, {verb}"), command);
            assert!(fs::read(&path).expect("there") == sound, "it is as it was");
        }
    }
}

#[test]
fn a_base_image_that_is_gone() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    let images = sandbox.env.cache.join("images");
    let image = images.join(&names(&images)[0]);
    let template = sandbox.status()["machine"]["image_path"].clone();
    let template = Path::new(template.as_str().expect("told"));
    for (what, path) in [("base image", image.as_path()), ("template", template)] {
        let away = sandbox.env.path("away");
        fs::rename(path, &away).expect("moved");
        let gone = format!("the VM's {what}");
        sandbox.fails(
            &format!("the {what} is gone, start"),
            sandbox.env.command(&["start"]),
            1,
            &[&gone, "is missing", "hint: restore it"],
        );
        fs::rename(&away, path).expect("put back");
    }
    sandbox.continues(sandbox.env.command(&["start"]));
}

/// Another machine has made the disk that this one stands on.
#[test]
fn a_template_that_is_altered() {
    let maker = Sandbox::new();
    maker.stopped();
    let template = maker.status()["machine"]["image_path"].clone();
    let template = Path::new(template.as_str().expect("told"));
    publish(template, None, None).expect("published");
    let mut sandbox = Sandbox::new();
    for used in [&mut sandbox.image, &mut sandbox.mirror] {
        *used = maker
            .env
            .path(used.file_name().expect("a name").to_str().expect("text"));
    }
    sandbox.env.cache.clone_from(&maker.env.cache);
    let told = sandbox.survives("a template", sandbox.setup(&[]), &["using a template"]);
    assert!(!told.stderr.contains("fetching"), "{}", told.stderr);
    let words = [
        "the VM's template",
        "is damaged: it has changed since",
        "hint: restore it, or recreate the VM",
    ];
    let sound = fs::read(template).expect("there");
    let mut altered = sound.clone();
    *altered.last_mut().expect("not empty") ^= 1;
    for (how, bytes) in [
        ("altered", altered),
        ("truncated", sound[..sound.len() / 2].to_vec()),
        ("empty", Vec::new()),
    ] {
        fs::remove_file(template).expect("removed");
        fs::write(template, bytes).expect("written");
        for (verb, command) in [
            ("start", sandbox.env.command(&["start"])),
            ("setup", sandbox.setup(&[])),
        ] {
            sandbox.fails(
                &format!("the template is {how}, {verb}"),
                command,
                1,
                &words,
            );
        }
        let other = Sandbox {
            image: sandbox.image.clone(),
            mirror: sandbox.mirror.clone(),
            ..Sandbox::new()
        };
        let mut setup = other.setup(&[]);
        setup.env("K3S_VM_CACHE_DIR", &sandbox.env.cache);
        let fault = format!("the template is {how}, setup of another VM");
        other.survives(&fault, setup, &["has changed; creating another template"]);
    }
    fs::remove_file(template).expect("removed");
    fs::write(template, sound).expect("put back");
    sandbox.continues(sandbox.env.command(&["start"]));
}

#[test]
fn damaged_uefi_variables() {
    let sandbox = Sandbox::new();
    let setup = Background::start(&sandbox, sandbox.setup(&["--firmware", "uefi"]));
    eventually("the VM runs or cannot", || {
        !setup.is_running() || sandbox.status()["process"]["run_state"] == "running"
    });
    setup.signal(Signal::INT);
    let ended = setup.end();
    if ended.stderr.contains("no UEFI firmware") {
        return skipped("this host has no UEFI firmware");
    }
    let path = sandbox.file("uefi-vars.fd");
    let sound = fs::read(&path).expect("there");
    for (how, bytes) in damages(&sound) {
        fs::write(&path, bytes).expect("written");
        let fault = format!("the UEFI variables are {how}, start");
        survives(&sandbox, &fault, sandbox.env.command(&["start"]));
    }
}
