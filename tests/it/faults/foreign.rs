//! A project of another user: it came with a repository, from another user or from another host.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    process::Command,
};

use super::{
    sandbox::{Background, Sandbox, eventually},
    table::record_stopped_fault,
};
use crate::support::{Ended, names, on_a_terminal};

/// What a repository could bring along to reach more than its user meant.
const EVIL: [(&str, &str); 6] = [
    ("mounts = [\"~:/h\"]\n", "mounts ~ at /h (read-write)"),
    (
        "k3s_mirror = \"http://127.0.0.1:9\"\n",
        "downloads k3s from http://127.0.0.1:9",
    ),
    ("image = \"./evil.img\"\n", "boots the image ./evil.img"),
    (
        "kubeconfig = \"~/.bashrc\"\n",
        "writes the kubeconfig to ~/.bashrc",
    ),
    ("[k3s]\nmanifests = [\"~/.ssh\"]\n", "reads ~/.ssh"),
    ("[network]\nca = [\"evil.pem\"]\n", "reads evil.pem"),
];

#[test]
fn a_config_that_reaches_the_host() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.file("")).expect("created");
    for (config, reaches) in EVIL {
        fs::write(sandbox.file("config"), config).expect("written");
        let words = [".k3s-vm/config is not trusted: ", reaches, "k3s-vm trust"];
        let fault = format!("a config that {reaches}");
        sandbox.fails(&fault, sandbox.setup(&[]), 1, &words);
        let export = sandbox.env.command(&["cache", "export", "out.tar"]);
        sandbox.fails(&format!("{fault}, cache export"), export, 1, &words);
    }
    let (code, screen) = on_a_terminal(sandbox.setup(&[]), "n\n");
    assert!(
        code == 1 && screen.contains("Trust this project? [y/N]"),
        "{code} {screen}"
    );
    assert_eq!(names(&sandbox.env.cache), [""; 0], "nothing is fetched");
    for gone in ["disk.qcow2", "record.json", "approved"] {
        assert!(!sandbox.file(gone).exists(), "{gone}");
    }
    fs::write(sandbox.file("config"), "cpus = 1\n").expect("written");
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn a_config_that_was_edited_by_hand() {
    let sandbox = Sandbox::new();
    sandbox.stopped();
    let config = fs::read_to_string(sandbox.file("config")).expect("there");
    let with_mount = format!("mounts = [\"./src:/src\"]\n{config}");
    fs::write(sandbox.file("config"), &with_mount).expect("written");
    fs::create_dir(sandbox.env.project.join("src")).expect("created");
    let words = ["is not trusted: it mounts ./src at /src (read-write)"];
    for verb in [
        &["start"][..],
        &["configure", "--cpus", "1"],
        &["port", "add", "8080:80"],
    ] {
        let fault = format!("a mount by hand, {}", verb.join(" "));
        sandbox.fails(&fault, sandbox.env.command(verb), 1, &words);
    }
    for harmless in [&["status"][..], &["stop"], &["list"]] {
        let ended = sandbox.env.run(harmless);
        assert!(!ended.stderr.contains("is not trusted"), "{ended:?}");
    }
    let untold = sandbox.env.run(&["trust"]);
    assert_eq!(untold.code, 2, "{untold:?}");
    let told = sandbox.env.ok(&["trust", "--yes"]);
    assert!(told.stderr.contains("mounts ./src at /src"), "{told:?}");
    sandbox.continues(sandbox.env.command(&["start"]));
    // The former config was approved as well.
    fs::write(sandbox.file("config"), config).expect("written");
    sandbox.continues(sandbox.env.command(&["start"]));
    let again = sandbox.env.ok(&["trust"]);
    assert!(again.stderr.contains("nothing to do"), "{again:?}");
}

#[test]
fn a_vm_of_another_user_or_host() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    let key = sandbox.env.path("home/.config/k3s-vm/key");
    let own = fs::read(&key).expect("made by setup");
    fs::remove_file(&key).expect("removed");
    let words = [
        "record.json is not trusted: your k3s-vm on this host did not write it",
        "k3s-vm trust",
        "k3s-vm reset",
    ];
    for verb in [
        &["start"][..],
        &["setup"],
        &["status"],
        &["kubectl", "get", "nodes"],
        &["kubeconfig", "--merge"],
        &["env"],
        &["ssh", "true"],
    ] {
        let fault = format!("a VM of another host, {}", verb.join(" "));
        sandbox.fails(&fault, sandbox.env.command(verb), 1, &words);
    }
    assert!(!key.exists(), "who reads needs no key");
    let mut start = sandbox.env.command(&["status"]);
    start.env("K3S_VM_TRUSTED_PATHS", sandbox.env.path("elsewhere"));
    sandbox.fails("a VM of another host, other paths", start, 1, &words);
    let mut status = sandbox.env.command(&["status"]);
    status.env("K3S_VM_TRUSTED_PATHS", &sandbox.env.project);
    assert_eq!(crate::support::finish(status).code, 3);
    fs::write(&key, own).expect("put back");
    sandbox.continues(sandbox.env.command(&["start"]));

    let deleted = {
        let own = fs::read(&key).expect("there");
        fs::remove_file(&key).expect("removed");
        let deleted = sandbox.env.run(&["reset", "--yes"]);
        fs::write(&key, own).expect("put back");
        deleted
    };
    record_stopped_fault(&sandbox, "a VM of another host, reset", &deleted);
    assert_eq!(deleted.code, 0, "{deleted:?}");
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn a_file_that_is_not_a_key() {
    let sandbox = Sandbox::new();
    let folder = sandbox.env.path("home/.config/k3s-vm");
    fs::create_dir_all(&folder).expect("created");
    let key = folder.join("key");
    fs::write(&key, "short\n").expect("written");
    let words = ["cannot trust ", "k3s-vm/key: ", "hint: "];
    sandbox.fails("a key that is too short", sandbox.setup(&[]), 1, &words);
    fs::remove_file(&key).expect("removed");
    symlink("/dev/zero", &key).expect("linked");
    sandbox.fails("a key that is a link", sandbox.setup(&[]), 1, &words);
    assert_eq!(names(&sandbox.env.cache), [""; 0], "nothing is fetched");
    fs::remove_file(&key).expect("removed");
    sandbox.continues(sandbox.setup(&[]));
}

/// What the host believes and runs is not the guest's to write.
#[test]
fn a_mount_of_the_vms_own_files() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.env.project.join("web/src")).expect("created");
    let cache = sandbox.env.path("cache");
    fs::create_dir_all(&cache).expect("created");
    symlink(sandbox.env.path(""), sandbox.env.path("project/link")).expect("linked");
    let cache = format!("{}:/c", cache.display());
    for (mount, exposes) in [
        (".:/src", "/project/.k3s-vm\n"),
        ("..:/src", "/project/.k3s-vm\n"),
        ("./link:/src", "/project/.k3s-vm\n"),
        ("/:/host", "/project/.k3s-vm\n"),
        ("./web:/web", "/project/web/.kube/config\n"),
        (&cache, "/cache\n"),
        ("~:/h", "/home/.config/k3s-vm\n"),
    ] {
        let words = [
            "read-write: the guest could change ",
            exposes,
            "hint: ",
            ":ro",
        ];
        let setup = sandbox.setup(&["--mount", mount]);
        sandbox.fails(&format!("a mount of {}", exposes.trim()), setup, 1, &words);
    }
    assert!(!sandbox.file("record.json").exists());
    assert_eq!(
        names(&sandbox.env.path("cache")),
        [""; 0],
        "nothing is fetched"
    );
    let flags = ["--mount", ".:/src:ro", "--mount", "./web/src:/web"];
    sandbox.continues(sandbox.setup(&flags));
}

/// Whatever QEMU would follow from there to files of the user.
#[test]
fn a_disk_that_leads_to_other_files() {
    let sandbox = Sandbox::new();
    sandbox.stopped();
    let disk = sandbox.file("disk.qcow2");
    let own = fs::read(&disk).expect("there");
    fs::write(sandbox.env.path("id_ed25519"), [7; 1 << 20]).expect("written");
    let secret = sandbox.env.path("id_ed25519").display().to_string();
    let qemu_img = |arguments: &[&str]| {
        let mut command = Command::new("qemu-img");
        assert!(
            command
                .args(arguments)
                .arg(&disk)
                .status()
                .expect("runs")
                .success()
        );
    };
    qemu_img(&["rebase", "-u", "-F", "raw", "-b", &secret]);
    let words = ["disk.qcow2", "its backing file is not the image", "hint: "];
    for verb in [&["start"][..], &["setup"]] {
        let fault = format!("a disk on a file of the user, {}", verb.join(" "));
        sandbox.fails(&fault, sandbox.env.command(verb), 1, &words);
    }
    fs::remove_file(&disk).expect("removed");
    let option = format!("data_file={secret}");
    let mut made = Command::new("qemu-img");
    let made = made
        .args(["create", "-q", "-f", "qcow2", "-o", &option])
        .arg(&disk)
        .arg("1M");
    assert!(made.status().expect("runs").success());
    let words = ["disk.qcow2", "external data file", "hint: "];
    let start = sandbox.env.command(&["start"]);
    sandbox.fails("a disk whose data are a file of the user", start, 1, &words);
    fs::write(&disk, own).expect("put back");
    sandbox.continues(sandbox.env.command(&["start"]));
}

/// A process that holds the lock that QEMU would.
fn holder(sandbox: &Sandbox, path: &str) -> Background {
    let script = "import fcntl, sys, time\nfile = open(sys.argv[1], 'w')\n\
        fcntl.lockf(file, fcntl.LOCK_EX)\nopen(sys.argv[2], 'w')\ntime.sleep(600)\n";
    let held = sandbox.env.path("held");
    let mut python = Command::new("python3");
    python.args(["-c", script, path]).arg(&held);
    let process = Background::start(sandbox, python);
    eventually("the lock is held", || held.exists());
    process
}

#[test]
fn a_pidfile_that_is_another_programs() {
    let sandbox = Sandbox::new();
    sandbox.stopped();
    let other = sandbox.env.path("other.lock").display().to_string();
    let process = holder(&sandbox, &other);
    let pidfile = sandbox.file("qemu.pid");
    let _ = fs::remove_file(&pidfile);
    symlink(&other, &pidfile).expect("linked");
    for verb in [&["stop", "--force"][..], &["reset", "--yes"], &["status"]] {
        let ended: Ended = sandbox.env.run(verb);
        record_stopped_fault(
            &sandbox,
            &format!("qemu.pid is a link, {}", verb.join(" ")),
            &ended,
        );
        assert!(
            ended.code == 1 && ended.stderr.contains("it is a link"),
            "{ended:?}"
        );
        assert!(process.is_running(), "{}", verb.join(" "));
    }
    fs::remove_file(&pidfile).expect("removed");
    sandbox.continues(sandbox.env.command(&["start"]));
}

#[test]
fn a_report_follows_no_link() {
    let sandbox = Sandbox::new();
    sandbox.stopped();
    let secret = sandbox.env.path("secret");
    fs::write(&secret, "the diary of somebody\n").expect("written");
    for name in ["console.log", "qemu.log", "stages.log", "idle.log"] {
        let _ = fs::remove_file(sandbox.file(name));
        symlink(&secret, sandbox.file(name)).expect("linked");
    }
    sandbox.env.ok(&["doctor", "--bundle", "report.tar.gz"]);
    let report = File::open(sandbox.env.project.join("report.tar.gz")).expect("there");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(report));
    let mut parts = 0;
    for entry in archive.entries().expect("an archive") {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut entry.expect("an entry"), &mut text).expect("read");
        assert!(!String::from_utf8_lossy(&text).contains("diary"));
        parts += 1;
    }
    assert!(parts > 5, "{parts}");
}
