//! QEMU opens the files of its VM alone: one that the guest has taken over, and one that is not installed as others are.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::symlink, net::UnixStream},
    path::Path,
    process::Command,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    sandbox::{Background, Sandbox, eventually, program},
    table::record_stopped_fault,
};
use crate::support::finish;

/// What QEMU's monitor answers.
fn asked(sandbox: &Sandbox, command: &str, arguments: &Value) -> Value {
    let status = sandbox.status();
    let path = status["process"]["monitor"].as_str().expect("told");
    let mut monitor = UnixStream::connect(path).expect("it listens");
    let mut lines = BufReader::new(monitor.try_clone().expect("shared")).lines();
    let mut answer = Value::Null;
    for (command, arguments) in [("qmp_capabilities", &json!({})), (command, arguments)] {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(monitor, "{line}").expect("told");
        answer = lines
            .by_ref()
            .map(|line| serde_json::from_str::<Value>(&line.expect("read")).expect("JSON"))
            .find(|it| it.get("return").is_some() || it.get("error").is_some())
            .expect("an answer");
    }
    answer
}

#[test]
fn a_compromised_qemu() {
    let sandbox = Sandbox::new();
    let (home, cache) = (sandbox.env.path("home"), sandbox.env.cache.clone());
    let secret = home.join("secret");
    fs::write(&secret, "a secret of the user's").expect("written");
    let notes = sandbox.env.project.join("notes");
    fs::write(&notes, "notes of the user's").expect("written");
    fs::create_dir_all(&cache).expect("made");
    // What a QEMU of the guest's would try, with what it has printed as proof.
    let path = sandbox.env.programs.to_string_lossy().into_owned();
    let script = format!(
        "PATH='{path}'\ncase \"$*\" in *qmp.sock*) {{\ncd '{project}' && echo entered\n\
         cat \"$HOME/secret\"; cat notes; ls \"$HOME\"\n\
         echo x >>notes && echo written; echo x >new && echo created; rm notes && echo removed\n\
         ln -sf /bin/false .k3s-vm/bin/kubectl && echo replaced; cp /bin/false '{cache}/program' && echo planted\n\
         echo tried\n}} >&2;; esac\nexec qemu-system-x86_64 \"$@\"",
        project = sandbox.env.project.display(),
        cache = cache.display(),
    );
    let mut programs = program(&sandbox, "qemu-system-x86_64", &script);
    programs.push(format!(":{path}"));
    let mut setup = sandbox.setup(&[]);
    setup.env("PATH", programs);
    let setup = Background::start(&sandbox, setup);
    eventually("the VM runs", || {
        assert!(setup.is_running(), "{}", setup.said());
        sandbox.status()["process"]["run_state"] == "running"
    });
    let log = fs::read_to_string(sandbox.file("qemu.log")).expect("a log");
    assert!(
        log.contains("entered\n") && log.contains("tried\n"),
        "{log}"
    );
    for done in [
        "of the user's",
        "secret\n",
        "written\n",
        "created\n",
        "removed\n",
        "replaced\n",
        "planted\n",
    ] {
        assert!(!log.contains(done), "{done:?} is in\n{log}");
    }
    assert!(log.matches("Permission denied").count() >= 7, "{log}");
    assert!(!setup.said().contains("Landlock"), "{}", setup.said());
    // The same by QEMU's own hands.
    let drive = |path: &Path, read_only: bool| {
        json!({
            "node-name": "stolen", "driver": "raw", "read-only": read_only,
            "file": { "driver": "file", "filename": path },
        })
    };
    let output = |path: &Path| json!({ "id": "stolen", "backend": { "type": "file", "data": { "out": path } } });
    for (command, arguments) in [
        ("blockdev-add", drive(&secret, true)),
        ("blockdev-add", drive(&notes, false)),
        ("blockdev-add", drive("/etc/../dev/vda".as_ref(), true)),
        ("chardev-add", output(&home.join("planted"))),
        ("chardev-add", output(&home.join(".config/k3s-vm/key"))),
        ("chardev-add", output(&sandbox.file("planted"))),
        (
            "pmemsave",
            json!({ "val": 0, "size": 1, "filename": home.join("planted") }),
        ),
    ] {
        let answer = asked(&sandbox, command, &arguments);
        let reason = answer["error"]["desc"].as_str().unwrap_or_default();
        let expected = ["Permission denied", "No such file"];
        assert!(
            expected.iter().any(|it| reason.contains(it)),
            "{arguments}: {answer}"
        );
    }
    let own = asked(
        &sandbox,
        "blockdev-add",
        &drive(&sandbox.file("seed.img"), true),
    );
    assert!(own.get("return").is_some(), "{own}");
    setup.signal(Signal::INT);
    let ended = setup.end();
    record_stopped_fault(&sandbox, "a QEMU that is the guest's", &ended);
    assert_eq!(ended.code, 130);
    let kept = fs::read(&notes).expect("there");
    assert_eq!(kept, b"notes of the user's");
    assert!(!home.join("planted").exists() && !cache.join("program").exists());
}

#[test]
fn a_qemu_that_needs_a_file_in_an_odd_place() {
    let sandbox = Sandbox::new();
    let path = sandbox.env.programs.to_string_lossy().into_owned();
    let settings = sandbox.env.path("odd-settings");
    fs::write(&settings, "set -- \"$@\"\n").expect("written");
    let script = format!(
        "PATH='{path}'\n. '{}'\nexec qemu-system-x86_64 \"$@\"",
        settings.display()
    );
    let mut programs = program(&sandbox, "qemu-system-x86_64", &script);
    programs.push(format!(":{path}"));
    let mut setup = sandbox.setup(&[]);
    setup.env("PATH", programs);
    let words = ["QEMU can open all files of yours: under Landlock, QEMU ended at once"];
    sandbox.survives("a QEMU that reads a file in an odd place", setup, &words);
    sandbox.continues(sandbox.env.command(&["setup"]));
}

/// With its modules and firmware beside it, where it finds them.
#[test]
fn a_qemu_in_the_home_directory() {
    let sandbox = Sandbox::new();
    let prefix = sandbox.env.path("home/qemu");
    let mut which = sandbox.env.tool("which");
    which.arg("qemu-system-x86_64");
    let installed = finish(which).stdout;
    let modules = "lib/x86_64-linux-gnu/qemu";
    for directory in ["bin", modules, "share/qemu", "share/seabios"] {
        fs::create_dir_all(prefix.join(directory)).expect("made");
    }
    let built = prefix.join("bin/qemu-system-x86_64");
    fs::copy(installed.trim(), &built).expect("copied");
    for file in [
        &format!("{modules}/accel-tcg-x86_64.so"),
        "share/seabios/bios-256k.bin",
        "share/qemu/kvmvapic.bin",
    ] {
        // Not all builds have each of them.
        let _ = fs::copy(Path::new("/usr").join(file), prefix.join(file));
    }
    let bin = sandbox.env.path("home/bin");
    fs::create_dir_all(&bin).expect("made");
    symlink(&built, bin.join("qemu-system-x86_64")).expect("linked");
    let mut programs = bin.into_os_string();
    programs.push(":");
    programs.push(&sandbox.env.programs);
    let mut setup = sandbox.setup(&[]);
    setup.env("PATH", programs);
    let ended = sandbox.survives("a QEMU in the home directory", setup, &[]);
    assert!(!ended.stderr.contains("Landlock"), "{ended:?}");
}

/// The command, for which a system call fails.
fn without(sandbox: &Sandbox, inject: &[&str], command: &Command) -> Command {
    let mut strace = sandbox.env.tool("strace");
    strace
        .args(["-f", "-qq", "-b", "execve", "-o", "/dev/null"])
        .args(inject)
        .arg(command.get_program())
        .args(command.get_args());
    strace
}

#[test]
fn a_kernel_without_landlock() {
    let sandbox = Sandbox::new();
    let inject = [
        "-e",
        "trace=landlock_create_ruleset",
        "-e",
        "inject=landlock_create_ruleset:error=ENOSYS",
    ];
    let doctor = without(&sandbox, &inject, &sandbox.env.command(&["doctor"]));
    let ended = finish(doctor);
    assert!(
        ended
            .stdout
            .contains("optional  Landlock     not in this kernel"),
        "{ended:?}"
    );
    let setup = sandbox.setup(&["--timeout", "1s"]);
    let words = ["the VM was not ready within 1s"];
    let setup = without(&sandbox, &inject, &setup);
    let ended = sandbox.fails("a kernel without Landlock", setup, 1, &words);
    assert!(!ended.stderr.contains("Landlock"), "{ended:?}");
}

#[test]
fn root_is_warned_once() {
    let sandbox = Sandbox::new();
    let hides = [
        "-P",
        "/.dockerenv",
        "-e",
        "trace=statx",
        "-e",
        "inject=statx:error=ENOENT",
    ];
    let doctor = finish(without(&sandbox, &hides, &sandbox.env.command(&["doctor"])));
    let word = "running as root: QEMU has root's rights; use a user account";
    let row = format!("optional  user         {word}");
    assert!(doctor.stdout.contains(&row), "{doctor:?}");
    for warnings in [1, 0] {
        let setup = sandbox.setup(&["--timeout", "1s"]);
        let ended = finish(without(&sandbox, &hides, &setup));
        assert_eq!(ended.code, 1, "{ended:?}");
        assert_eq!(ended.stderr.matches(word).count(), warnings, "{ended:?}");
    }
}
