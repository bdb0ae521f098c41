//! Others on the same host, and directories that they share with the user: nothing of a machine can be read, and nothing
//! that they prepared is used.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;

use super::{
    sandbox::{Background, Sandbox, eventually, in_other_mounts},
    table::record_stopped_fault,
};
use crate::{
    stopped_vm::write_record,
    support::{finish, mode, names, skipped},
};

/// The strictest one takes every right from the owner, too, so that root may not do without rights here.
#[test]
fn everything_is_private_under_any_umask() {
    for umask in ["000", "022", "777"] {
        let sandbox = Sandbox::new();
        let log = sandbox.env.path("log");
        let setup = Background::start(&sandbox, under(&sandbox, umask, &sandbox.setup(&[]), &log));
        eventually("the VM runs", || {
            assert!(setup.is_running(), "{}", setup.said());
            sandbox.status()["process"]["run_state"] == "running"
        });
        // From the moment that they are made: the kernel gives neither process another mode.
        let qemu = sandbox.env.pid().expect("it runs").cast_unsigned();
        for pid in [setup.pid(), qemu] {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
            assert!(status.contains("\nUmask:\t0077\n"), "{status}");
        }
        let mut seen = vec![log];
        for root in ["project/.k3s-vm", "cache", "run/k3s-vm"] {
            seen.extend(below(&sandbox.env.path(root)));
        }
        for path in &seen {
            assert_private(path, &sandbox.env.cache);
        }
        let socket = seen.iter().any(|path| path.ends_with("qmp.sock"));
        assert!(socket && seen.len() > 20, "{seen:?}");
        setup.signal(Signal::INT);
        let ended = setup.end();
        record_stopped_fault(&sandbox, &format!("umask {umask}"), &ended);
        assert_eq!(ended.code, 130);
    }
}

/// The same command with that umask, and no more rights than its files give it.
fn under(sandbox: &Sandbox, umask: &str, command: &Command, log: &Path) -> Command {
    let mut shell = sandbox.env.tool("sh");
    shell.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]);
    if nix::unistd::getuid().is_root() {
        shell.args([
            "setpriv",
            "--bounding-set",
            "-dac_override,-dac_read_search",
        ]);
    }
    shell.arg(command.get_program()).args(command.get_args());
    shell.env("LOG_FILE", log);
    shell
}

/// All that there is below a directory, and itself.
fn below(directory: &Path) -> Vec<PathBuf> {
    let mut all = vec![directory.to_owned()];
    for path in names(directory).iter().map(|name| directory.join(name)) {
        if path.is_dir() && !path.is_symlink() {
            all.extend(below(&path));
        } else {
            all.push(path);
        }
    }
    all
}

/// What is published in the cache is anybody's to read, would they come there: its directories are private.
fn assert_private(path: &Path, cache: &Path) {
    let mode = mode(path);
    let published = path.starts_with(cache) && path.is_file();
    if path.is_dir() {
        assert_eq!(mode, 0o700, "{}", path.display());
    } else if published {
        assert_eq!(mode & 0o022, 0, "{}: {mode:o}", path.display());
    } else if !path.is_symlink() {
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
    }
}

/// The sockets are in `/tmp`, where the name can be guessed.
#[test]
fn a_socket_directory_of_another_user() {
    let sandbox = Sandbox::new();
    let theirs = sandbox.env.path("theirs");
    fs::create_dir(&theirs).expect("created");
    let words = [
        "cannot trust /tmp/k3s-vm-0: ",
        "(mode 0700)",
        "hint: ",
        "ls -ld /tmp/k3s-vm-0",
    ];
    for (fault, prepare) in [
        ("/tmp/k3s-vm-UID is open to others", "mkdir -m 0755 $it"),
        ("/tmp/k3s-vm-UID is a link", "ln -s \"$root/theirs\" $it"),
        ("/tmp/k3s-vm-UID is a file", "touch $it"),
        (
            "/tmp/k3s-vm-UID is somebody else's",
            "mkdir -m 0700 $it; mount --bind \"$root/theirs\" $it",
        ),
    ] {
        if fault.ends_with("else's") {
            if !nix::unistd::getuid().is_root() {
                skipped("only root can act as another user");
                continue;
            }
            fs::set_permissions(&theirs, fs::Permissions::from_mode(0o700)).expect("set");
            chown(&theirs, Some(65534), Some(65534)).expect("given away");
        }
        let mut setup = in_other_mounts(&sandbox, &sandbox.setup(&[]), &own_tmp(prepare));
        setup.env_remove("K3S_VM_RUNTIME_DIR");
        let words = if fault.ends_with("file") {
            &["/tmp/k3s-vm-0: "][..]
        } else {
            &words
        };
        sandbox.fails(fault, setup, 1, words);
        assert_eq!(names(&theirs), Vec::<String>::new(), "{fault}");
    }
    sandbox.continues(sandbox.setup(&[]));
}

/// A directory of another user above the project's, with what a command would read and run.
#[test]
fn a_project_that_another_user_prepared() {
    if !nix::unistd::getuid().is_root() {
        skipped("only root can act as another user");
        return;
    }
    let sandbox = Sandbox::new();
    let bin = sandbox.file("bin");
    fs::create_dir_all(&bin).expect("created");
    fs::write(bin.join("kubectl"), "#!/bin/sh\ntouch \"$PWD/ran\"\n").expect("written");
    fs::set_permissions(bin.join("kubectl"), fs::Permissions::from_mode(0o755)).expect("set");
    write_record(
        &sandbox.env.project,
        &sandbox.file(""),
        "k3s-planted",
        ".kube/config",
    );
    let below = sandbox.env.project.join("below");
    fs::create_dir(&below).expect("created");
    chown(sandbox.file(""), Some(65534), Some(65534)).expect("given away");
    for verb in [
        "setup",
        "start",
        "stop",
        "status",
        "list",
        "kubectl get nodes",
        "k9s",
        "env",
        "ssh true",
        "logs",
        "kubeconfig",
        "reset --yes",
        "doctor",
        "configure --cpus 1",
        "snapshot list",
    ] {
        let words: Vec<&str> = verb.split(' ').collect();
        let mut command = sandbox.env.command(&words);
        command.current_dir(&below);
        let ended = finish(command);
        let trust = "it is not a directory of your own";
        assert_ne!(ended.code, 0, "{verb}: {ended:?}");
        assert!(ended.stderr.contains(trust), "{verb}: {ended:?}");
        assert_eq!(ended.stdout, "", "{verb}");
    }
    assert_eq!(names(&below), Vec::<String>::new());
    chown(sandbox.file(""), Some(0), Some(0)).expect("given back");
}

/// A `/tmp` of the command's own that has the test's directory, the program if it is there, and what `prepare` makes as
/// `$it`.
fn own_tmp(prepare: &str) -> String {
    format!(
        "root=$(dirname \"$PWD\"); new=$root/tmp; mkdir -p \"$new\"; mount -t tmpfs -o mode=1777 none \"$new\"; \
         here=$new${{root#/tmp}}; mkdir -p \"$here\"; mount --rbind \"$root\" \"$here\"; \
         case $1 in /tmp/*) there=$new${{1#/tmp}}; mkdir -p \"$(dirname \"$there\")\"; touch \"$there\"; mount --bind \"$1\" \"$there\";; esac; \
         it=\"$new/k3s-vm-0\"; {prepare}; mount --rbind \"$new\" /tmp; cd \"$PWD\"; exec \"$@\""
    )
}

/// A cloned repository may have a link in the place of anything that is written: no file elsewhere is made or changed.
#[test]
fn links_in_the_place_of_files() {
    let sandbox = Sandbox::new();
    let elsewhere = sandbox.env.path("elsewhere");
    fs::create_dir(sandbox.file("")).expect("created");
    for name in ["lock", "console.log", "stages.log", "qemu.log"] {
        symlink(&elsewhere, sandbox.file(name)).expect("linked");
        let fault = format!(".k3s-vm/{name} is a link");
        let file = format!(".k3s-vm/{name}: ");
        sandbox.fails(
            &fault,
            sandbox.setup(&[]),
            1,
            &[&file, "it is a link", "hint: "],
        );
        fs::remove_file(sandbox.file(name)).expect("removed");
    }
    for name in ["config", "record.json", "qemu.pid"] {
        let kept = fs::read(sandbox.file(name)).ok();
        let _ = fs::remove_file(sandbox.file(name));
        symlink(&elsewhere, sandbox.file(name)).expect("linked");
        let fault = format!(".k3s-vm/{name} is a link");
        let words = [&format!(".k3s-vm/{name}: "), "it is a link", "hint: "];
        sandbox.fails(&fault, sandbox.setup(&[]), 1, &words);
        fs::remove_file(sandbox.file(name)).expect("removed");
        if let Some(kept) = kept {
            fs::write(sandbox.file(name), kept).expect("put back");
        }
    }
    // These are made beside their place and replace what is there.
    for name in ["disk.qcow2", "seed.img", "id_ed25519"] {
        let _ = fs::remove_file(sandbox.file(name));
        symlink(&elsewhere, sandbox.file(name)).expect("linked");
        sandbox.continues(sandbox.setup(&[]));
        assert!(!sandbox.file(name).is_symlink(), "{name}");
    }
    assert!(!elsewhere.exists());
}

#[test]
fn links_in_the_place_of_directories() {
    let sandbox = Sandbox::new();
    let elsewhere = sandbox.env.path("elsewhere");
    let precious = elsewhere.join("kubectl");
    fs::create_dir(&elsewhere).expect("created");
    fs::write(&precious, "precious").expect("written");
    let machine = sandbox.env.path("project/.k3s-vm");
    symlink(&elsewhere, &machine).expect("linked");
    let words = ["cannot trust ", "/.k3s-vm: ", "a link", "hint: ", "ls -ld "];
    sandbox.fails(".k3s-vm is a link", sandbox.setup(&[]), 1, &words);
    let reset = sandbox.env.command(&["reset", "--yes"]);
    sandbox.fails(".k3s-vm is a link, reset", reset, 1, &words);
    fs::remove_file(&machine).expect("removed");

    fs::create_dir(&machine).expect("created");
    symlink(&elsewhere, sandbox.file("bin")).expect("linked");
    let words = ["cannot trust ", "/.k3s-vm/bin: ", "hint: "];
    sandbox.fails(".k3s-vm/bin is a link", sandbox.setup(&[]), 1, &words);
    fs::remove_file(sandbox.file("bin")).expect("removed");
    assert_eq!(names(&elsewhere), ["kubectl"]);
    assert_eq!(fs::read_to_string(precious).expect("there"), "precious");

    // One's own, and only open to others, is closed.
    fs::set_permissions(&machine, fs::Permissions::from_mode(0o777)).expect("opened");
    sandbox.continues(sandbox.setup(&[]));
    assert_eq!(mode(&machine), 0o700);
}

/// `.kube` in the project leads to the user's own.
#[test]
fn a_link_to_the_users_own_kubeconfig() {
    let sandbox = Sandbox::new();
    let own = sandbox.env.path("home/.kube");
    fs::create_dir(&own).expect("created");
    symlink(&own, sandbox.env.project.join(".kube")).expect("linked");
    let words = ["/.kube/config is your own kubeconfig, which k3s-vm does not touch"];
    sandbox.fails(".kube is a link to ~/.kube", sandbox.setup(&[]), 1, &words);
    assert_eq!(names(&own), Vec::<String>::new());
}

/// What is in the cache is run and booted.
#[test]
fn a_cache_that_others_may_write() {
    let sandbox = Sandbox::new();
    fs::create_dir(&sandbox.env.cache).expect("created");
    for open in [0o777, 0o1777, 0o770] {
        fs::set_permissions(&sandbox.env.cache, fs::Permissions::from_mode(open)).expect("opened");
        let words = [
            "cannot trust ",
            "/cache: others may write to it",
            "hint: ",
            "chmod 700 ",
        ];
        let fault = format!("a cache of mode {open:o}");
        sandbox.fails(&fault, sandbox.setup(&[]), 1, &words);
        assert_eq!(names(&sandbox.env.cache), Vec::<String>::new());
    }
    fs::set_permissions(&sandbox.env.cache, fs::Permissions::from_mode(0o700)).expect("closed");
    sandbox.continues(sandbox.setup(&[]));
}

/// What is in the cache is run and booted, and `prune` removes what is in it.
#[test]
fn directories_of_a_cache_that_others_prepared() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    let theirs = sandbox.env.path("theirs");
    fs::create_dir(&theirs).expect("created");
    fs::write(theirs.join("precious"), "precious").expect("written");
    let images = sandbox.env.cache.join("images");
    let own = sandbox.env.cache.join("own");
    fs::rename(&images, &own).expect("moved");
    let refused = |fault: &str, words: &[&str]| {
        for verb in [
            "cache prune --yes",
            "cache list",
            "cache export --all all.tar",
            "cache import all.tar",
            "start",
        ] {
            fs::write(sandbox.env.path("project/all.tar"), "").expect("written");
            if verb.contains("export") {
                fs::remove_file(sandbox.env.path("project/all.tar")).expect("removed");
            }
            let verb: Vec<&str> = verb.split(' ').collect();
            let command = sandbox.env.command(&verb);
            sandbox.fails(&format!("{fault}, {}", verb.join(" ")), command, 1, words);
        }
    };
    symlink(&theirs, &images).expect("linked");
    let words = [
        "cannot trust ",
        "/cache/images: ",
        "a link",
        "hint: ",
        "ls -ld ",
    ];
    refused("images of the cache is a link", &words);
    fs::remove_file(&images).expect("removed");
    fs::rename(&own, &images).expect("moved back");
    for open in [0o777, 0o770] {
        fs::set_permissions(&images, fs::Permissions::from_mode(open)).expect("opened");
        let words = [
            "cannot trust ",
            "/cache/images: others may write to it",
            "chmod 700 ",
        ];
        refused(&format!("images of the cache has mode {open:o}"), &words);
    }
    fs::set_permissions(&images, fs::Permissions::from_mode(0o700)).expect("closed");
    if nix::unistd::getuid().is_root() {
        chown(&images, Some(65534), None).expect("given away");
        refused(
            "images of the cache is another user's",
            &["/cache/images: others "],
        );
        chown(&images, Some(0), None).expect("given back");
        // One that another user has written, while the directory was open.
        let release = sandbox.env.cache.join("k3s");
        let release = release.join(&names(&release)[0]).join("k3s");
        for (fault, change, back) in [
            (
                "a release in the cache is another user's",
                &(|| chown(&release, Some(65534), None)) as &dyn Fn() -> io::Result<()>,
                &(|| chown(&release, Some(0), None)) as &dyn Fn() -> io::Result<()>,
            ),
            (
                "a release in the cache has mode 666",
                &|| fs::set_permissions(&release, fs::Permissions::from_mode(0o666)),
                &|| fs::set_permissions(&release, fs::Permissions::from_mode(0o555)),
            ),
        ] {
            change().expect("changed");
            let words = ["/k3s: others may write to it", "hint: ", "mv "];
            let start = sandbox.env.command(&["start"]);
            sandbox.fails(fault, start, 1, &words);
            back().expect("changed back");
        }
    } else {
        skipped("only root can act as another user");
    }
    assert_eq!(names(&theirs), ["precious"]);
    sandbox.env.ok(&["cache", "list"]);
}

/// A program that listens in the place of QEMU gets no command, and no answer of it is believed.
#[test]
fn a_monitor_that_is_not_qemus() {
    let sandbox = Sandbox::new();
    let setup = sandbox.booting();
    let runtime = sandbox.env.path("run/k3s-vm");
    let runtime = runtime.join(&names(&runtime)[0]);
    let (socket, real) = (runtime.join("qmp.sock"), runtime.join("real.sock"));
    fs::rename(&socket, &real).expect("moved");
    let listener = UnixListener::bind(&socket).expect("bound");
    let told = std::thread::spawn(move || {
        let mut told = Vec::new();
        // The last connection is the test's own.
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"{\"QMP\":{}}\n");
            let mut some = Vec::new();
            let _ = stream.read_to_end(&mut some);
            if some == b"end" {
                break;
            }
            told.extend(some);
        }
        told
    });
    let ended = sandbox.env.run(&["status"]);
    let pid = std::process::id();
    let words = format!("process {pid} of user {}", nix::unistd::getuid());
    assert!(ended.stderr.contains(&words), "{ended:?}");
    let process = format!("ps -fp {pid}");
    let words = [words.as_str(), "in place of QEMU", "hint: ", &process];
    // Only one command may work on a VM at a time.
    setup.signal(Signal::KILL);
    setup.end();
    refuses_to_pause(&sandbox, &words);
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755)).expect("opened");
    let words = ["cannot trust ", "(mode 0700)", "hint: "];
    refuses_to_pause(&sandbox, &words);
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).expect("closed");
    let mut end = UnixStream::connect(&socket).expect("it listens");
    end.write_all(b"end").expect("told");
    drop(end);
    assert_eq!(told.join().expect("no panic"), b"", "nothing was told");
    fs::remove_file(&socket).expect("removed");
    fs::rename(&real, &socket).expect("moved back");
    sandbox.env.ok(&["pause"]);
    sandbox.env.ok(&["stop", "--force"]);
}

/// QEMU runs on.
#[track_caller]
fn refuses_to_pause(sandbox: &Sandbox, words: &[&str]) {
    let ended = sandbox.env.run(&["pause"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?}: {ended:?}");
    }
}
