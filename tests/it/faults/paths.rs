//! Names, paths and arguments full of what shells, YAML, TOML, FAT, terminals and QEMU's options read in ways of their own:
//! each comes to where it should as it was typed, or is refused in words.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
};

use super::sandbox::{Background, Sandbox, eventually, in_other_mounts};
use crate::support::{VERSION, dead_image, finish, on_a_terminal};

/// Every character that has a meaning to some program.
const AWKWARD: &str =
    "-a,b=c,,d \"e\" 'f' $(g) `h` ;i &j |k <l> (m) {n} [o] *p ?q #r %s @t !u \\v :w ~x ^y é日";

/// The project, the image, the mirror and the kubeconfig, all of them called like that, come to a running QEMU.
#[test]
fn awkward_names_everywhere() {
    let sandbox = Sandbox::named(AWKWARD);
    let image = dead_image(&sandbox.env.path(&format!("{AWKWARD}.img")));
    let kubeconfig = sandbox.env.project.join(format!("{AWKWARD}.yaml"));
    let mirror = sandbox.env.path(AWKWARD).join("mirror");
    fs::rename(&sandbox.mirror, &mirror).expect("moved");
    let [image, kubeconfig] = [&image, &kubeconfig].map(|path| path.to_str().expect("UTF-8"));
    let url = url::Url::from_file_path(&mirror).expect("absolute");
    let flags = ["--image", image, "--kubeconfig", kubeconfig];
    sandbox.continues(sandbox.setup_from(url.as_str(), &flags));
    let status = sandbox.status();
    assert_eq!(
        status["project"],
        sandbox.env.project.to_str().expect("UTF-8")
    );
    assert_eq!(status["machine"]["image"], image);
    assert_eq!(status["machine"]["kubeconfig"], kubeconfig);
    // What the config says now is the same, and so nothing contradicts the machine.
    sandbox.continues(sandbox.env.command(&["start"]));
    // A hint is a line of shell: what is copied from it does what it says.
    fs::write(sandbox.file("config"), "cpus = ").expect("broken");
    let ended = sandbox.env.run(&["start"]);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let line = ended
        .stderr
        .lines()
        .find_map(|line| line.split_once("move the file: "));
    let mut shell = sandbox.env.tool("sh");
    shell.args(["-c", line.expect("a hint").1]);
    assert!(shell.status().expect("a shell").success());
    assert!(sandbox.file("config.bak").exists() && !sandbox.file("config").exists());
}

#[test]
fn invalid_names() {
    let sandbox = Sandbox::new();
    let long = "a".repeat(64);
    let bad = [
        "a b", "a,b=c", "$(id)", "a\nb", "a: b", "../a", "-a", "Shop", "a_b", "é", &long,
    ];
    for name in bad
        .map(OsStr::new)
        .into_iter()
        .chain([OsStr::from_bytes(b"\xff")])
    {
        let mut setup = sandbox.setup(&[]);
        setup.env("VM_NAME", name);
        let words = ["VM_NAME: ", "invalid VM name ", "hint: unset VM_NAME"];
        sandbox.fails(&format!("VM_NAME={name:?}"), setup, 1, &words);
        assert!(!sandbox.file("").exists(), "before anything was made");
    }
}

#[test]
fn invalid_values() {
    let sandbox = Sandbox::new();
    let evil = "v1.33.5+k3s1;$(id)";
    for (flag, value, code, word) in [
        ("--k3s-version", evil, 2, "invalid k3s version"),
        (
            "--k3s-version",
            "../../v1.33.5+k3s1",
            2,
            "invalid k3s version",
        ),
        (
            "--k3s-version",
            "v1.33.5+k3s1\nA=b",
            2,
            "invalid k3s version",
        ),
        ("--image", "ubuntu-26.04,if=none", 2, "unknown image"),
        ("--image", "json:{\"driver\":\"nbd\"}", 2, "unknown image"),
        ("--image", "nbd:127.0.0.1:1", 2, "unknown image"),
        ("--image", "ssh://host/disk", 2, "http, https or file"),
        ("--k3s-mirror", "file:///x?a=b", 2, "it takes no ?"),
        ("--k3s-mirror", "ext::sh -c id", 2, "invalid mirror"),
        ("--memory", "4GiB,slots=2", 2, "invalid size"),
        ("--api-port", "6443-:22", 2, "invalid"),
        ("--timeout", "5m;id", 2, "invalid duration"),
        (
            "--accel",
            "tcg,thread=single",
            2,
            "expected one of auto, kvm, tcg",
        ),
        (
            "--firmware",
            "/etc/passwd",
            2,
            "expected one of auto, bios, uefi",
        ),
        ("--image-sha256", "$(id)", 2, "invalid SHA-256 digest"),
    ] {
        let setup = if flag == "--k3s-mirror" {
            sandbox.setup_from(value, &[])
        } else {
            sandbox.setup(&[flag, value])
        };
        sandbox.fails(&format!("{flag} {value:?}"), setup, code, &[word]);
    }
    let mut setup = sandbox.setup(&[]);
    setup
        .arg("--kubeconfig")
        .arg(OsStr::from_bytes(b"/\xff/config"));
    sandbox.fails(
        "--kubeconfig that is not UTF-8",
        setup,
        2,
        &["is not UTF-8"],
    );
    assert!(!sandbox.file("disk.qcow2").exists());
}

/// A path may steer a terminal; what is said of it does not.
#[test]
fn a_path_with_control_characters() {
    let sandbox = Sandbox::named("\u{1b}]0;owned\u{7}\u{9b}31m");
    sandbox.continues(sandbox.setup(&[]));
    let status = sandbox
        .env
        .command(&["status", "--verbose", "--color", "always"]);
    let (code, screen) = on_a_terminal(status, "");
    assert_eq!(code, 3);
    assert!(screen.contains("\\u{1b}]0;owned\\u{7}"), "{screen:?}");
    assert!(!screen.contains("\u{1b}]0"), "{screen:?}");
    fs::write(sandbox.file("record.json"), "{").expect("torn");
    let words = ["\\u{1b}]0;owned\\u{7}\\u{9b}31m/.k3s-vm/record.json"];
    let ended = sandbox.fails(
        "escape sequences in a path",
        sandbox.env.command(&["start"]),
        1,
        &words,
    );
    assert!(
        !ended.stderr.contains(['\u{1b}', '\u{7}', '\u{9b}']),
        "{:?}",
        ended.stderr
    );
}

/// The machine is the same one by both names.
#[test]
fn a_project_behind_a_link() {
    let sandbox = Sandbox::new();
    let link = sandbox.env.path("link");
    symlink(&sandbox.env.project, &link).expect("linked");
    let mut setup = sandbox.setup(&[]);
    setup.current_dir(&link).env("PWD", &link);
    let setup = Background::start(&sandbox, setup);
    eventually("the VM runs", || {
        sandbox.status()["process"]["run_state"] == "running"
    });
    let mut status = sandbox.env.command(&["status", "--json"]);
    status.current_dir(&link).env("PWD", &link);
    let other: serde_json::Value = serde_json::from_str(&finish(status).stdout).expect("JSON");
    let one = sandbox.status();
    for key in ["uuid", "name", "disk_path"] {
        assert_eq!(one["machine"][key], other["machine"][key], "{key}");
    }
    assert_eq!(one["process"]["pid"], other["process"]["pid"]);
    drop(setup);
    sandbox.env.ok(&["stop", "--force"]);
    sandbox.nothing_runs();
}

#[test]
fn a_project_that_may_not_be_written() {
    let sandbox = Sandbox::new();
    let read_only = "mount --bind \"$PWD\" \"$PWD\"; mount -o remount,bind,ro \"$PWD\"; cd \"$PWD\"; exec \"$@\"";
    let setup = in_other_mounts(&sandbox, &sandbox.setup(&[]), read_only);
    let words = ["cannot create ", "/project/.k3s-vm: Read-only file system"];
    sandbox.fails("a read-only project", setup, 1, &words);
    sandbox.continues(sandbox.setup(&[]));
}

/// The files of a VM that come with a cloned repository are text, until it is read as what it should be.
#[test]
fn a_record_that_says_more_than_a_version() {
    let sandbox = Sandbox::new();
    sandbox.stopped();
    let record = fs::read_to_string(sandbox.file("record.json")).expect("there");
    let evil = record.replace(VERSION, "v1.33.5+k3s1\\n$(touch /owned)");
    let evil = evil.replace("\"provisioned\": false", "\"provisioned\": true");
    fs::write(sandbox.file("record.json"), evil).expect("written");
    for name in ["config", "seed.img"] {
        fs::remove_file(sandbox.file(name)).expect("removed");
    }
    let image = sandbox.image.to_str().expect("UTF-8");
    let setup = sandbox
        .env
        .command(&["setup", "--image", image, "--memory", "1GiB"]);
    sandbox.trusted();
    let words = ["$(touch /owned)\""];
    sandbox.fails("a version with a command in it", setup, 2, &words);
}
