//! What is asked for contradicts what is there, or what is there is damaged or another user's.

use std::{fs, path::Path};

use super::sandbox::Sandbox;
use crate::support::{dead_image, finish, names};

#[test]
fn flags_that_contradict_the_vm() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    let record = fs::read(sandbox.file("record.json")).expect("there");
    let config = fs::read(sandbox.file("config")).expect("there");
    let other = dead_image(&sandbox.env.path("other.img"))
        .display()
        .to_string();
    let image = sandbox.image.display().to_string();
    for (flags, made, asked) in [
        (
            ["--disk", "10GiB"],
            "the disk size from 20GiB",
            "to 10GiB: it is fixed when the VM is created",
        ),
        (
            ["--image", &other],
            &format!("the image from {image}"),
            &format!("to {other}: it is fixed when the VM is created"),
        ),
        (
            ["--firmware", "uefi"],
            "the firmware from bios",
            "to uefi: it is fixed when the VM is created",
        ),
        (
            ["--k3s-version", "v1.2.3+k3s1"],
            "k3s from v1.33.5+k3s1",
            "to v1.2.3+k3s1: it is fixed when the VM is created",
        ),
    ] {
        let words = ["cannot change", made, asked, "k3s-vm reset && k3s-vm setup"];
        let fault = format!("another {} than the VM was made with", flags[0]);
        sandbox.fails(&fault, sandbox.setup(&flags), 2, &words);
    }
    for verb in [&["stop"][..], &["start"], &["setup"], &["reset", "--yes"]] {
        let mut named = if verb == ["setup"] {
            sandbox.setup(&[])
        } else {
            sandbox.env.command(verb)
        };
        named.env("VM_NAME", "another");
        let words = [
            "the name from k3s-project-",
            "to another: it is fixed when the VM is created",
            "hint: ",
        ];
        sandbox.fails(&format!("VM_NAME, {}", verb.join(" ")), named, 2, &words);
    }
    let mut named = sandbox.setup(&[]);
    named.env("VM_NAME", "No Name");
    sandbox.fails(
        "VM_NAME that is none",
        named,
        1,
        &["VM_NAME: invalid VM name \"No Name\"", "unset VM_NAME"],
    );
    assert_eq!(
        fs::read(sandbox.file("record.json")).expect("there"),
        record,
        "nothing was changed"
    );
    assert_eq!(
        fs::read(sandbox.file("config")).expect("there"),
        config,
        "nothing was changed"
    );
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn a_truncated_record() {
    let sandbox = Sandbox::new();
    for torn in ["", "{", "{\"schema\": 99}", "null"] {
        sandbox.stopped();
        fs::write(sandbox.file("record.json"), torn).expect("torn");
        for verb in [
            &["start"][..],
            &["stop"],
            &["status"],
            &["kubectl", "get", "nodes"],
        ] {
            let words = ["k3s-vm/record.json: ", "k3s-vm reset && k3s-vm setup"];
            let fault = format!("a record of {torn:?}, {}", verb.join(" "));
            sandbox.fails(&fault, sandbox.env.command(verb), 1, &words);
        }
        sandbox.env.ok(&["reset", "--yes"]);
        assert_eq!(
            names(&sandbox.file("")),
            [".gitignore", "approved", "config", "id", "lock"]
        );
    }
    sandbox.continues(sandbox.setup(&[]));
}

/// Whatever is wrong with the record, the QEMU that runs is ended with the machine.
#[test]
fn a_truncated_record_of_a_running_vm() {
    let sandbox = Sandbox::new();
    let setup = sandbox.booting();
    setup.signal(rustix::process::Signal::KILL);
    drop(setup);
    fs::write(sandbox.file("record.json"), "{").expect("torn");
    sandbox.env.ok(&["reset", "--yes"]);
    sandbox.nothing_runs();
}

#[test]
fn nonsense_in_the_config() {
    let sandbox = Sandbox::new();
    sandbox.stopped();
    let config = sandbox.file("config");
    let sound = fs::read(&config).expect("there");
    for (text, words) in [
        (
            "# mine\ncpus = 2\nmemroy = \"4GiB\"\n",
            ["line 3", "memroy"],
        ),
        ("cpus = 0\n", ["line 1", "0 CPUs: expected 1 to 64"]),
        ("cpus = 2\nmemory = \"lots\"\n", ["line 2", "\"lots\""]),
        ("cpus = \n", ["line 1", "cpus ="]),
        (
            "timeout = \"soon\"\n",
            ["line 1", "invalid duration \"soon\""],
        ),
    ] {
        fs::write(&config, text).expect("written");
        for verb in ["setup", "start", "status"] {
            let command = if verb == "setup" {
                sandbox.setup(&[])
            } else {
                sandbox.env.command(&[verb])
            };
            let words = [
                "k3s-vm/config: ",
                words[0],
                words[1],
                "fix the line, or move the file: mv ",
            ];
            sandbox.fails(&format!("a config of {text:?}, {verb}"), command, 1, &words);
        }
        assert_eq!(
            fs::read_to_string(&config).expect("there"),
            text,
            "it stays the user's"
        );
    }
    fs::write(&config, sound).expect("repaired");
    sandbox.continues(sandbox.env.command(&["start"]));
}

#[test]
fn a_kubeconfig_of_another_tool() {
    let sandbox = Sandbox::new();
    let path = sandbox.env.project.join(".kube/config");
    fs::create_dir(sandbox.env.project.join(".kube")).expect("created");
    let theirs = "apiVersion: v1\nkind: Config\ncurrent-context: production\nclusters: []\ncontexts: []\nusers: []\n";
    for text in [theirs, "not even YAML: ["] {
        fs::write(&path, text).expect("written");
        let mv = format!("mv {0} {0}.bak", path.display());
        let words = [
            ".kube/config already exists and does not belong to the VM k3s-project-",
            &mv,
            "--kubeconfig PATH",
        ];
        sandbox.fails("a foreign kubeconfig", sandbox.setup(&[]), 1, &words);
        assert_eq!(
            names(&sandbox.env.cache),
            Vec::<String>::new(),
            "before anything was fetched"
        );
        sandbox.env.ok(&["reset", "--yes"]);
        assert_eq!(
            fs::read_to_string(&path).expect("there"),
            text,
            "nobody touches it"
        );
    }
    let own = sandbox.env.path("home/.kube/config").display().to_string();
    let words = [
        &own,
        "is your own kubeconfig, which k3s-vm does not touch",
        "--kubeconfig PATH",
    ];
    sandbox.fails(
        "~/.kube/config",
        sandbox.setup(&["--kubeconfig", &own]),
        1,
        &words,
    );
    fs::remove_file(&path).expect("moved away");
    sandbox.continues(sandbox.setup(&[]));
}

/// In the home directory the kubeconfig would be the user's own. What the refused setup has made there is no project of
/// all that lies below.
#[test]
fn a_setup_in_the_home_directory() {
    let sandbox = Sandbox::new();
    let home = sandbox.env.path("home");
    let below = home.join("shop");
    fs::create_dir_all(below.join(".git")).expect("created");
    let mut setup = sandbox.setup(&[]);
    setup.current_dir(&home);
    let words = ["is your own kubeconfig, which k3s-vm does not touch"];
    sandbox.fails("setup in the home directory", setup, 1, &words);
    assert!(!home.join(".k3s-vm").exists());
    let mut setup = sandbox.setup(&["--name", "next"]);
    setup
        .current_dir(&home)
        .args(["--kubeconfig", "/dev/null/x"]);
    assert_ne!(finish(setup).code, 0);
    assert!(!home.join(".k3s-vm").exists());
    // As an older program leaves it.
    crate::support::private_dir(&home.join(".k3s-vm"));
    fs::write(home.join(".k3s-vm/lock"), "").expect("written");
    let mut status = sandbox.env.command(&["status", "--json"]);
    status.current_dir(&below);
    let told: serde_json::Value =
        serde_json::from_str(&finish(status).stdout).expect("one JSON document");
    assert_eq!(told["project"], below.to_str().expect("UTF-8"));
}

/// `reset` removes a kubeconfig that is the VM's, and nothing else in its place.
#[test]
fn the_kubeconfig_overwrites_no_other_file() {
    let sandbox = Sandbox::new();
    let kubeconfig = sandbox.finished(".kube/config".as_ref());
    fs::write(&kubeconfig, "").expect("emptied");
    sandbox.env.ok(&["reset", "--yes"]);
    assert!(kubeconfig.is_file(), "an empty file may be anyone's");
    fs::remove_file(&kubeconfig).expect("removed");

    let fifo = sandbox.env.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("made");
    for path in [fifo.to_str().expect("UTF-8"), "/dev/null"] {
        let setup = sandbox.setup(&["--kubeconfig", path]);
        let words = [path, "not a regular file"];
        sandbox.fails(&format!("--kubeconfig {path}"), setup, 1, &words);
        sandbox.finished(".kube/config".as_ref());
        let record = sandbox.file("record.json");
        let text = fs::read_to_string(&record).expect("there");
        let mut text: serde_json::Value = serde_json::from_str(&text).expect("a record");
        text["kubeconfig"] = path.into();
        fs::write(&record, text.to_string()).expect("written");
        sandbox.env.ok(&["reset", "--yes"]);
        let path = Path::new(path);
        assert!(path.exists() && !path.is_file());
        let _ = fs::remove_dir_all(sandbox.env.project.join(".kube"));
    }
}

/// A FIFO in the place of a file does not block a command.
#[test]
fn fifos_in_the_place_of_files() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    for (name, verb) in [
        ("lock", "start"),
        ("qemu.pid", "status"),
        ("console.log", "logs console"),
        ("qemu.log", "logs qemu"),
        ("qemu.log", "start"),
        ("console.log", "start"),
        ("stages.log", "start"),
    ] {
        let path = sandbox.file(name);
        let kept = fs::read(&path).ok();
        let _ = fs::remove_file(&path);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("made");
        let words: Vec<&str> = verb.split(' ').collect();
        let ended = sandbox.env.run(&words);
        assert_eq!(ended.code, 1, "{name}, {verb}: {ended:?}");
        for word in [name, "not a regular file"] {
            assert!(ended.stderr.contains(word), "{name}, {verb}: {ended:?}");
        }
        fs::remove_file(&path).expect("removed");
        if let Some(kept) = kept {
            fs::write(&path, kept).expect("written");
        }
    }
}
