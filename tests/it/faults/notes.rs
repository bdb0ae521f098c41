//! What the program notes down beside the machine: config, kubeconfig, lock, pidfile. Nonsense in one of them is named,
//! or does not matter.

use std::fs;

use super::{
    durable::{damages, survives},
    sandbox::Sandbox,
};

#[test]
fn nonsense_in_the_lock_and_in_the_pidfile() {
    let sandbox = Sandbox::new();
    sandbox.stopped();
    for bytes in [
        &b""[..],
        b"\xff\xfe\x00",
        b"-1\n",
        b"0\n",
        b"99999999999999999999",
        b"init",
    ] {
        for name in ["lock", "qemu.pid"] {
            fs::write(sandbox.file(name), bytes).expect("written");
        }
        assert_eq!(sandbox.env.run(&["status"]).code, 3);
        let ended = sandbox.env.ok(&["stop"]);
        assert!(ended.stderr.contains("already stopped"), "{ended:?}");
        for name in ["lock", "qemu.pid"] {
            fs::write(sandbox.file(name), bytes).expect("written");
        }
        let shown = String::from_utf8_lossy(bytes);
        survives(
            &sandbox,
            &format!("{shown:?} in lock and pidfile, start"),
            sandbox.env.command(&["start"]),
        );
    }
    for name in ["lock", "qemu.pid"] {
        let path = sandbox.file(name);
        let _ = fs::remove_file(&path);
        fs::create_dir(&path).expect("created");
        let place = format!("k3s-vm/{name}");
        sandbox.fails(
            &format!("{name} is a directory, start"),
            sandbox.env.command(&["start"]),
            1,
            &[&place],
        );
        fs::remove_dir(&path).expect("removed");
    }
    sandbox.continues(sandbox.env.command(&["start"]));
}

/// On NFS, flock(2) with LOCK_EX fails with EBADF where the file is not open for writing.
#[test]
fn exclusive_locks_are_of_files_that_are_open_for_writing() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    let trace = sandbox.env.path("flocks");
    let kubeconfig = sandbox.env.path("own");
    let merge = kubeconfig.display().to_string();
    for (arguments, left) in [
        (
            &["configure", "--cpus", "3"][..],
            sandbox.file(".tmp-a1b2c3"),
        ),
        (&["kubeconfig", "--merge"], sandbox.env.path("own.lock")),
    ] {
        fs::write(left, "k3s-vm\n").expect("written");
        let mut strace = sandbox.env.tool("strace");
        strace
            .args([
                "--follow-forks",
                "--detach-on=execve",
                "--trace=openat,flock",
                "--output",
            ])
            .args([
                trace.as_os_str(),
                super::super::support::program().as_os_str(),
            ])
            .args(arguments)
            .env("KUBECONFIG", &merge);
        strace.output().expect("strace runs");
        let text = fs::read_to_string(&trace).expect("a trace");
        let exclusive: Vec<&str> = text
            .lines()
            .filter(|it| it.contains("flock(") && it.contains("LOCK_EX"))
            .collect();
        assert!(!exclusive.is_empty(), "{text}");
        for lock in exclusive {
            let number = lock.split_once("flock(").expect("so chosen").1;
            let number = number.split_once(',').expect("two arguments").0;
            let before = &text[..text.find(lock).expect("from there")];
            let opened = format!(" = {number}");
            let open = before
                .lines()
                .rev()
                .find(|it| it.contains("openat(") && it.ends_with(&opened));
            assert!(
                open.is_none_or(|it| !it.contains("O_RDONLY")),
                "{lock}: {open:?}"
            );
        }
    }
}

/// The VM keeps the choices that it was created with, whatever the defaults are.
#[test]
fn an_empty_config() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    for (fault, text) in [
        ("an empty config, start", Some("")),
        ("no config, start", None),
    ] {
        match text {
            Some(text) => fs::write(sandbox.file("config"), text).expect("written"),
            None => fs::remove_file(sandbox.file("config")).expect("removed"),
        }
        let machine = sandbox.status()["machine"].clone();
        assert_eq!(machine["image"], sandbox.image.to_str().expect("text"));
        // Software emulation and 4 GiB are the defaults; what is asked for here has to be had.
        survives(&sandbox, fault, sandbox.env.command(&["start"]));
    }
}

#[test]
fn a_damaged_kubeconfig_of_a_stopped_vm() {
    let sandbox = Sandbox::new();
    let path = sandbox.finished(".kube/config".as_ref());
    let sound = fs::read(&path).expect("there");
    for (how, bytes) in damages(&sound).into_iter().skip(1) {
        fs::write(&path, &bytes).expect("written");
        assert_eq!(sandbox.env.run(&["status"]).code, 3);
        let mv = format!("hint: move it: mv {0} {0}.bak", path.display());
        for (verb, command) in [
            ("start", sandbox.env.command(&["start"])),
            ("setup", sandbox.setup(&[])),
        ] {
            sandbox.fails(
                &format!("the kubeconfig is {how}, {verb}"),
                command,
                1,
                &[".kube/config", &mv],
            );
        }
        assert!(
            fs::read(&path).expect("there") == bytes,
            "it may be somebody's"
        );
    }
    fs::write(&path, "").expect("written");
    survives(
        &sandbox,
        "the kubeconfig is empty, start",
        sandbox.env.command(&["start"]),
    );
    fs::remove_file(&path).expect("removed");
    survives(
        &sandbox,
        "the kubeconfig is gone, start",
        sandbox.env.command(&["start"]),
    );
    fs::create_dir(&path).expect("created");
    sandbox.fails(
        "the kubeconfig is a directory, start",
        sandbox.env.command(&["start"]),
        1,
        &[".kube/config"],
    );
}

#[test]
fn a_file_where_the_directory_should_be() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.env.project.join(".k3s-vm"), "").expect("written");
    for (verb, command) in [
        ("setup", sandbox.setup(&[])),
        ("status", sandbox.env.command(&["status"])),
    ] {
        sandbox.fails(
            &format!(".k3s-vm is a file, {verb}"),
            command,
            1,
            &[".k3s-vm"],
        );
    }
    fs::remove_file(sandbox.env.project.join(".k3s-vm")).expect("removed");
    sandbox.continues(sandbox.setup(&[]));
}

/// A command that is killed while it writes leaves a file that the next one clears away.
#[test]
fn a_temporary_file_of_a_killed_command() {
    let sandbox = Sandbox::new();
    sandbox.stopped();
    fs::write(sandbox.file(".tmp-a1b2c3"), "half").expect("written");
    survives(
        &sandbox,
        "a temporary file is left, start",
        sandbox.env.command(&["start"]),
    );
}
