//! Files that a person, a crash or another program has left in a bad state.

use std::fs;

use super::{dead_setup, failed, nothing_is_left};
use crate::support::{TestEnv, ended};

/// A machine that was made and never came up.
fn stopped_machine() -> TestEnv {
    let env = TestEnv::new();
    let ended = env.run(&dead_setup(&env, &["--timeout", "1s"]));
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    env
}

#[test]
fn the_record_is_torn() {
    let env = stopped_machine();
    let record = env.project.join(".k3s-vm/record.json");
    let whole = fs::read(&record).expect("a record");
    for torn in [&whole[..whole.len() / 2], b"", b"{}", b"\0\0\0\0"] {
        fs::write(&record, torn).expect("torn");
        for verb in ["status", "start", "stop", "setup"] {
            let ended = env.run(&[verb]);
            failed(
                "the record is torn",
                &ended,
                1,
                &["record.json", "k3s-vm reset"],
            );
        }
    }
    env.ok(&["reset", "--yes"]);
    assert_eq!(env.run(&["status"]).code, 4);
    nothing_is_left(&env);
}

#[test]
fn the_config_is_nonsense() {
    let env = stopped_machine();
    let config = env.project.join(".k3s-vm/config");
    let before = fs::read_to_string(&config).expect("a config");
    for (nonsense, words) in [
        ("cpus = 0", ["cpus", "1 to 64"]),
        ("memry = \"4GiB\"", ["memry", "unknown field"]),
        ("disk = \"many\"", ["disk", "no size"]),
        ("[[[", ["line 1", "mend the line"]),
    ] {
        fs::write(&config, nonsense).expect("edited");
        for verb in ["start", "setup"] {
            failed("the config is nonsense", &env.run(&[verb]), 1, &words);
        }
    }
    fs::write(&config, before).expect("mended");
    assert_eq!(env.run(&["status"]).code, 3);
}

#[test]
fn choices_contradict_the_machine() {
    let env = stopped_machine();
    for (flags, words) in [
        (["--disk", "30GiB"], ["20GiB", "30GiB"]),
        (["--image", "debian-13"], ["dead.img", "debian-13"]),
        (["--firmware", "uefi"], ["bios", "uefi"]),
        (
            ["--k3s-version", "v1.30.0+k3s1"],
            ["v1.33.5+k3s1", "v1.30.0+k3s1"],
        ),
    ] {
        let ended = env.run(&[&["setup"][..], &flags].concat());
        failed("a choice contradicts the machine", &ended, 2, &words);
        assert!(
            ended.stderr.contains("k3s-vm reset && k3s-vm setup"),
            "{}",
            ended.stderr
        );
    }
    let other = env.command(&["setup"]).env("VM_NAME", "other").output();
    let other = ended(other.expect("runs"));
    failed(
        "VM_NAME contradicts the machine",
        &other,
        2,
        &["other", "k3s-project-"],
    );
}

#[test]
fn the_kubeconfig_is_somebody_elses() {
    let env = TestEnv::new();
    let path = env.project.join(".kube/config");
    fs::create_dir(path.parent().expect("a directory")).expect("created");
    let theirs = "apiVersion: v1\nkind: Config\nclusters: []\nusers: []\ncontexts: []\ncurrent-context: prod\n";
    fs::write(&path, theirs).expect("written");
    let ended = env.run(&dead_setup(&env, &["--timeout", "1s"]));
    let words = [".kube/config", "mv ", "--kubeconfig PATH"];
    failed("another kubeconfig is in the way", &ended, 1, &words);
    assert_eq!(fs::read_to_string(&path).expect("still there"), theirs);

    let home = env.path("home/.kube/config").display().to_string();
    let ended = env.run(&dead_setup(
        &env,
        &["--timeout", "1s", "--kubeconfig", &home],
    ));
    let words = ["your own kubeconfig", "--kubeconfig PATH"];
    failed("the user's own kubeconfig is named", &ended, 1, &words);
    env.ok(&["reset", "--yes"]);
    assert_eq!(fs::read_to_string(&path).expect("still there"), theirs);
    nothing_is_left(&env);
}
