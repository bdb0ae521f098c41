//! Others on the same host, and directories that they share with the user: nothing of a machine can be read, and nothing
//! that they prepared is used.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;

use super::{
    scene::{Background, Scene, eventually, in_other_mounts},
    table::tell,
};
use crate::{
    desk::give_a_record,
    support::{finish, mode, names, skipped},
};

/// The strictest one takes every right from the owner, too, so that root may not do without rights here.
#[test]
fn everything_is_private_under_any_umask() {
    for umask in ["000", "022", "777"] {
        let scene = Scene::new();
        let log = scene.env.path("log");
        let setup = Background::start(&scene, under(&scene, umask, &scene.setup(&[]), &log));
        eventually("the machine runs", || {
            assert!(setup.is_running(), "{}", setup.said());
            scene.status()["process"]["run_state"] == "running"
        });
        // From the moment that they are made: the kernel gives neither process another mode.
        let qemu = scene.env.pid().expect("it runs").cast_unsigned();
        for pid in [setup.pid(), qemu] {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
            assert!(status.contains("\nUmask:\t0077\n"), "{status}");
        }
        let mut seen = vec![log];
        for root in ["project/.k3s-vm", "cache", "run/k3s-vm"] {
            seen.extend(below(&scene.env.path(root)));
        }
        for path in &seen {
            assert_private(path, &scene.env.cache);
        }
        let socket = seen.iter().any(|path| path.ends_with("qmp.sock"));
        assert!(socket && seen.len() > 20, "{seen:?}");
        setup.signal(Signal::INT);
        let ended = setup.end();
        tell(&scene, &format!("umask {umask}"), &ended);
        assert_eq!(ended.code, 130);
    }
}

/// The same command with that umask, and no more rights than its files give it.
fn under(scene: &Scene, umask: &str, command: &Command, log: &Path) -> Command {
    let mut shell = scene.env.tool("sh");
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

/// Without a runtime directory the sockets lie in `/tmp`, where the name can be guessed.
#[test]
fn a_socket_directory_that_somebody_else_prepared() {
    let scene = Scene::new();
    let theirs = scene.env.path("theirs");
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
        let mut setup = in_other_mounts(&scene, &scene.setup(&[]), &own_tmp(prepare));
        setup.env_remove("XDG_RUNTIME_DIR");
        let words = if fault.ends_with("file") {
            &["/tmp/k3s-vm-0: "][..]
        } else {
            &words
        };
        scene.fails(fault, setup, 1, words);
        assert_eq!(names(&theirs), Vec::<String>::new(), "{fault}");
    }
    scene.goes_on(scene.setup(&[]));
}

/// A directory of another user above the project's, with what a command would read and run.
#[test]
fn a_project_that_another_user_prepared() {
    if !nix::unistd::getuid().is_root() {
        skipped("only root can act as another user");
        return;
    }
    let scene = Scene::new();
    let bin = scene.file("bin");
    fs::create_dir_all(&bin).expect("created");
    fs::write(bin.join("kubectl"), "#!/bin/sh\ntouch \"$PWD/ran\"\n").expect("written");
    fs::set_permissions(bin.join("kubectl"), fs::Permissions::from_mode(0o755)).expect("set");
    give_a_record(
        &scene.env.project,
        &scene.file(""),
        "k3s-planted",
        ".kube/config",
    );
    let below = scene.env.project.join("below");
    fs::create_dir(&below).expect("created");
    chown(scene.file(""), Some(65534), Some(65534)).expect("given away");
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
        let mut command = scene.env.command(&words);
        command.current_dir(&below);
        let ended = finish(command);
        let trust = "it is not a directory of your own";
        assert_ne!(ended.code, 0, "{verb}: {ended:?}");
        assert!(ended.stderr.contains(trust), "{verb}: {ended:?}");
        assert_eq!(ended.stdout, "", "{verb}");
    }
    assert_eq!(names(&below), Vec::<String>::new());
    chown(scene.file(""), Some(0), Some(0)).expect("given back");
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

/// Somebody's repository may have a link in the place of anything that is written: no file elsewhere is made or changed.
#[test]
fn links_in_the_place_of_files() {
    let scene = Scene::new();
    let elsewhere = scene.env.path("elsewhere");
    fs::create_dir(scene.file("")).expect("created");
    for name in ["lock", "console.log", "stages.log", "qemu.log"] {
        symlink(&elsewhere, scene.file(name)).expect("linked");
        let fault = format!(".k3s-vm/{name} is a link");
        let file = format!(".k3s-vm/{name}: ");
        scene.fails(
            &fault,
            scene.setup(&[]),
            1,
            &[&file, "it is a link", "hint: "],
        );
        fs::remove_file(scene.file(name)).expect("removed");
    }
    // These are made beside their place and replace what is there.
    for name in [
        "config",
        "record.json",
        "disk.qcow2",
        "seed.img",
        "id_ed25519",
        "qemu.pid",
    ] {
        let _ = fs::remove_file(scene.file(name));
        symlink(&elsewhere, scene.file(name)).expect("linked");
        scene.goes_on(scene.setup(&[]));
        assert!(!scene.file(name).is_symlink(), "{name}");
    }
    assert!(!elsewhere.exists());
}

#[test]
fn links_in_the_place_of_directories() {
    let scene = Scene::new();
    let elsewhere = scene.env.path("elsewhere");
    let precious = elsewhere.join("kubectl");
    fs::create_dir(&elsewhere).expect("created");
    fs::write(&precious, "precious").expect("written");
    let machine = scene.env.path("project/.k3s-vm");
    symlink(&elsewhere, &machine).expect("linked");
    let words = ["cannot trust ", "/.k3s-vm: ", "a link", "hint: ", "ls -ld "];
    scene.fails(".k3s-vm is a link", scene.setup(&[]), 1, &words);
    let reset = scene.env.command(&["reset", "--yes"]);
    scene.fails(".k3s-vm is a link, reset", reset, 1, &words);
    fs::remove_file(&machine).expect("removed");

    fs::create_dir(&machine).expect("created");
    symlink(&elsewhere, scene.file("bin")).expect("linked");
    let words = ["cannot trust ", "/.k3s-vm/bin: ", "hint: "];
    scene.fails(".k3s-vm/bin is a link", scene.setup(&[]), 1, &words);
    fs::remove_file(scene.file("bin")).expect("removed");
    assert_eq!(names(&elsewhere), ["kubectl"]);
    assert_eq!(fs::read_to_string(precious).expect("there"), "precious");

    // One's own, and only open to others, is closed.
    fs::set_permissions(&machine, fs::Permissions::from_mode(0o777)).expect("opened");
    scene.goes_on(scene.setup(&[]));
    assert_eq!(mode(&machine), 0o700);
}

/// `.kube` in the project leads to the user's own.
#[test]
fn a_link_to_the_users_own_kubeconfig() {
    let scene = Scene::new();
    let own = scene.env.path("home/.kube");
    fs::create_dir(&own).expect("created");
    symlink(&own, scene.env.project.join(".kube")).expect("linked");
    let words = ["/.kube/config is your own kubeconfig, which k3s-vm does not touch"];
    scene.fails(".kube is a link to ~/.kube", scene.setup(&[]), 1, &words);
    assert_eq!(names(&own), Vec::<String>::new());
}

/// What is in the cache is run and booted.
#[test]
fn a_cache_that_others_may_write() {
    let scene = Scene::new();
    fs::create_dir(&scene.env.cache).expect("created");
    for open in [0o777, 0o1777, 0o770] {
        fs::set_permissions(&scene.env.cache, fs::Permissions::from_mode(open)).expect("opened");
        let words = [
            "cannot trust ",
            "/cache: others may write to it",
            "hint: ",
            "chmod 700 ",
        ];
        let fault = format!("a cache of mode {open:o}");
        scene.fails(&fault, scene.setup(&[]), 1, &words);
        assert_eq!(names(&scene.env.cache), Vec::<String>::new());
    }
    fs::set_permissions(&scene.env.cache, fs::Permissions::from_mode(0o700)).expect("closed");
    scene.goes_on(scene.setup(&[]));
}
