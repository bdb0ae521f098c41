//! What is refused leaves no trace, and what never ends is refused at once.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

use rustix::{
    fs::{Mode, OFlags, open},
    process::Signal,
};

use super::sandbox::{Background, Sandbox, eventually, in_other_mounts, program};
use crate::support::{Ended, VERSION, finish, names};

fn fifo(path: &Path) -> String {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo runs").success());
    path.display().to_string()
}

#[test]
fn a_refused_flag_is_not_saved() {
    let sandbox = Sandbox::new();
    let theirs = sandbox.env.path("theirs.yaml");
    fs::write(&theirs, "apiVersion: v1\nkind: Config\n").expect("written");
    let theirs = theirs.display().to_string();
    let truncated = sandbox.env.path("truncated.pem");
    let text = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    fs::write(&truncated, text).expect("written");
    let truncated = truncated.display().to_string();
    let refused: [&[&str]; 15] = [
        &["--ca-certificate", &truncated],
        &["--dns", "127.0.0.1"],
        &["--dns", "192.0.2.53,::1"],
        &["--cpu-model", "host"],
        &["--cpu-model", "Westmere,avx=maybe,enforce"],
        &["--cpu-model", "Westmere,+nosuch"],
        &["--ca-certificate", "missing.pem"],
        &["--registries", "missing.yaml"],
        &["--manifest", "missing.yaml"],
        &["--mount", "./missing:/data"],
        &["--cpu-model", "Nope"],
        &["--cpu-model", "Westmere,nope=on"],
        &["--kubeconfig", &theirs],
        &["--memory", "500TiB"],
        &["--api-port", "7001", "--port", "7001:80"],
    ];
    for flags in refused {
        let ended = finish(sandbox.setup(flags));
        assert!([1, 2].contains(&ended.code), "{flags:?}: {}", ended.stderr);
        let config = fs::read_to_string(sandbox.file("config")).unwrap_or_default();
        assert_eq!(config, "", "{flags:?}");
    }
    sandbox.stopped();
    let config = fs::read_to_string(sandbox.file("config")).expect("there");
    for flags in refused {
        let ended = finish(sandbox.setup(flags));
        assert!([1, 2].contains(&ended.code), "{flags:?}: {}", ended.stderr);
        let now = fs::read_to_string(sandbox.file("config")).expect("there");
        assert_eq!(now, config, "{flags:?}");
    }
    // All but the last: `configure` takes no --port.
    for flags in &refused[..14] {
        let mut words = vec!["configure", "--unset", "timeout"];
        words.extend(*flags);
        let ended = sandbox.env.run(&words);
        assert!([1, 2].contains(&ended.code), "{flags:?}: {}", ended.stderr);
        let now = fs::read_to_string(sandbox.file("config")).expect("there");
        assert_eq!(now, config, "configure {flags:?}");
    }
    // One of several ports is refused.
    let before = fs::read_to_string(sandbox.file("config")).expect("there");
    for ports in [
        &["add", "7002:80", "7002:81"][..],
        &["add", "7003:80", "8080:81"],
        &["rm", "8080", "9999"],
        &["rm", "8080", "8080"],
    ] {
        let ended = sandbox.env.run(&[&["port"][..], ports].concat());
        assert_eq!(ended.code, 1, "{ports:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{ports:?}");
        let now = fs::read_to_string(sandbox.file("config")).expect("there");
        assert_eq!(now, before, "{ports:?}");
    }
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn what_is_not_a_regular_file() {
    let sandbox = Sandbox::new();
    let pipe = fifo(&sandbox.env.path("fifo.yaml"));
    let words = ["not a regular file"];
    for path in [pipe.as_str(), "/dev/zero"] {
        let image = sandbox.setup(&["--image", path]);
        sandbox.fails(&format!("--image {path}"), image, 1, &words);
        for flag in ["--manifest", "--registries", "--ca-certificate"] {
            if flag == "--manifest" && path == "/dev/zero" {
                // It is not called like a manifest.
                continue;
            }
            let setup = sandbox.setup(&[flag, path]);
            sandbox.fails(&format!("{flag} {path}"), setup, 1, &words);
        }
    }
    let other = sandbox.env.path("other-mirror");
    fs::create_dir_all(other.join(VERSION)).expect("created");
    let sums = format!("{VERSION}/sha256sum-amd64.txt");
    fs::copy(sandbox.mirror.join(&sums), other.join(&sums)).expect("copied");
    fifo(&other.join(VERSION).join("k3s"));
    let setup = sandbox.setup_from(&format!("file://{}", other.display()), &[]);
    sandbox.fails("a release that is a FIFO", setup, 1, &words);
    let folder = sandbox.env.path("manifests");
    fs::create_dir(&folder).expect("created");
    fifo(&folder.join("a.yaml"));
    let setup = sandbox.setup(&["--manifest", &folder.display().to_string()]);
    sandbox.fails("a FIFO in a folder of manifests", setup, 1, &words);

    sandbox.finished(".kube/config".as_ref());
    let mut merge = sandbox.env.command(&["kubeconfig", "--merge"]);
    merge.env("KUBECONFIG", &pipe);
    sandbox.fails("KUBECONFIG is a FIFO", merge, 1, &words);
    let mut merge = sandbox.env.command(&["kubeconfig", "--merge"]);
    merge.env("KUBECONFIG", "/dev/null");
    sandbox.fails("KUBECONFIG is /dev/null", merge, 1, &words);
    for name in ["config", "record.json"] {
        let path = sandbox.file(name);
        let kept = fs::read(&path).expect("there");
        fs::remove_file(&path).expect("removed");
        symlink("/dev/zero", &path).expect("linked");
        let start = sandbox.env.command(&["start"]);
        let fault = format!("{name} is a link to /dev/zero");
        sandbox.fails(&fault, start, 1, &["it is a link", "hint: "]);
        fs::remove_file(&path).expect("removed");
        fifo(&path);
        let start = sandbox.env.command(&["start"]);
        sandbox.fails(&format!("{name} is a FIFO"), start, 1, &words);
        fs::remove_file(&path).expect("removed");
        fs::write(&path, kept).expect("written");
    }
    let disk = sandbox.file("disk.qcow2");
    fs::remove_file(&disk).expect("removed");
    fifo(&disk);
    let start = sandbox.env.command(&["start"]);
    sandbox.fails("disk.qcow2 is a FIFO", start, 1, &words);
}

/// Nobody writes to it.
#[test]
fn an_archive_and_certificates_that_are_fifos() {
    let sandbox = Sandbox::new();
    let pipe = fifo(&sandbox.env.path("fifo"));
    let import = sandbox.env.command(&["cache", "import", &pipe]);
    let import = Background::start(&sandbox, import);
    // A FIFO opens for writing without waiting once it is open for reading.
    let write = OFlags::WRONLY | OFlags::NONBLOCK;
    let mut writer = None;
    eventually("the import waits for the FIFO's content", || {
        assert!(import.is_running(), "{}", import.said());
        writer = open(pipe.as_str(), write, Mode::empty()).ok();
        writer.is_some()
    });
    import.signal(Signal::INT);
    assert_eq!(import.end().code, 130);
    drop(writer);
    for (file, fault) in [
        (pipe.as_str(), "SSL_CERT_FILE is a FIFO"),
        ("/dev/zero", "SSL_CERT_FILE is /dev/zero"),
    ] {
        let mut setup = sandbox.setup_from("https://127.0.0.1:1/", &[]);
        setup.env("SSL_CERT_FILE", file);
        sandbox.fails(fault, setup, 1, &["not a regular file"]);
    }
}

#[test]
fn a_manifest_directory_with_a_link_loop() {
    let sandbox = Sandbox::new();
    let folder = sandbox.env.path("manifests");
    fs::create_dir_all(folder.join("deep")).expect("created");
    for name in ["a.yaml", "deep/b.yaml"] {
        fs::write(folder.join(name), "a: 1\n").expect("written");
    }
    for link in ["x", "y", "deep/z"] {
        symlink(&folder, folder.join(link)).expect("linked");
    }
    sandbox.continues(sandbox.setup(&["--manifest", &folder.display().to_string()]));
    let listed = Command::new("tar")
        .arg("-tf")
        .arg(sandbox.file("config.tar"))
        .output()
        .expect("tar runs");
    let listed = String::from_utf8(listed.stdout).expect("UTF-8");
    let manifests: Vec<_> = listed.lines().filter(|it| it.contains(".yaml")).collect();
    let of_ours = |name: &str| manifests.iter().filter(|it| it.ends_with(name)).count();
    assert_eq!((of_ours("/a.yaml"), of_ours("/b.yaml")), (1, 1), "{listed}");
}

#[test]
fn a_certificate_on_one_line() {
    let sandbox = Sandbox::new();
    let path = sandbox.env.path("one.pem");
    let line = "MIIC".repeat(300);
    let text = format!("-----BEGIN CERTIFICATE-----{line}-----END CERTIFICATE-----\n");
    fs::write(&path, text).expect("written");
    let setup = sandbox.setup(&["--ca-certificate", &path.display().to_string()]);
    let ended = sandbox.fails("a PEM of one line", setup, 2, &["one.pem"]);
    let error = ended.stderr.lines().find(|it| it.starts_with("error:"));
    assert!(error.is_some_and(|it| it.len() < 300), "{}", ended.stderr);
    let path = sandbox.env.path("twice.yaml");
    fs::write(&path, "mirrors: {}\nmirrors: {}\n").expect("written");
    let setup = sandbox.setup(&["--registries", &path.display().to_string()]);
    let ended = sandbox.fails("a key that is there twice", setup, 2, &["mirrors"]);
    assert!(!ended.stderr.contains("Options"), "{}", ended.stderr);
    assert_eq!(
        ended.stderr.matches("error:").count(),
        1,
        "{}",
        ended.stderr
    );
}

#[test]
fn a_tilde_that_the_shell_has_left() {
    let sandbox = Sandbox::new();
    let home = sandbox.env.path("home");
    fs::write(home.join("m.yaml"), "a: 1\n").expect("written");
    let mut setup = sandbox.setup(&["--kubeconfig=~/k.yaml", "--manifest=~/m.yaml"]);
    setup.env("K3S_VM_CACHE_DIR", "~/cache");
    let ended = sandbox.survives("a tilde", setup, &[]);
    assert_eq!(names(&sandbox.env.project), [".k3s-vm"], "{}", ended.stderr);
    assert!(home.join("cache/k3s").is_dir());
    let record = fs::read_to_string(sandbox.file("record.json")).expect("there");
    let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!(
        record["kubeconfig"],
        home.join("k.yaml").to_str().expect("UTF-8")
    );
    // In the file itself as well.
    let config = fs::read_to_string(sandbox.file("config")).expect("there");
    let config = config.replace(&home.display().to_string(), "~");
    assert!(config.contains("\"~/m.yaml\""), "{config}");
    fs::write(sandbox.file("config"), config).expect("written");
    sandbox.trusted();
    let mut setup = sandbox.setup(&[]);
    setup.env("K3S_VM_CACHE_DIR", "~/cache");
    sandbox.continues(setup);
}

#[test]
fn a_kubeconfig_that_cannot_be_replaced_is_written_in_place() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    let [home, theirs] = ["home", "theirs"].map(|it| sandbox.env.path(it));
    let text = "apiVersion: v1\nkind: Config\n# theirs\n";
    fs::write(&theirs, text).expect("written");
    let script = "mkdir -p \"$HOME/.kube\"; touch \"$HOME/.kube/config\"; \
        mount --bind ../theirs \"$HOME/.kube/config\"; exec \"$@\"";
    let merge = sandbox.env.command(&["kubeconfig", "--merge"]);
    let ended = finish(in_other_mounts(&sandbox, &merge, script));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let merged = fs::read_to_string(&theirs).expect("there");
    assert!(
        merged.contains("# theirs") && merged.contains("k3s-project-"),
        "{merged}"
    );
    let kept = names(&home.join(".kube"));
    let backup = kept.iter().find(|it| it.contains("k3s-vm-backup"));
    let backup = home.join(".kube").join(backup.expect("a copy"));
    assert_eq!(fs::read_to_string(backup).expect("there"), text);
    let unmerge = sandbox.env.command(&["kubeconfig", "--unmerge"]);
    let ended = finish(in_other_mounts(&sandbox, &unmerge, script));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let apart = fs::read_to_string(&theirs).expect("there");
    assert!(!apart.contains("k3s-project-"), "{apart}");
}

#[test]
fn the_users_kubeconfig_keeps_its_owner_and_its_bytes() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    let folder = sandbox.env.path("home/.kube");
    fs::create_dir(&folder).expect("created");
    let path = folder.join("config");
    fs::write(&path, "apiVersion: v1\nkind: Config\n").expect("written");
    // Where the tests are not root's, there is only one owner.
    let _ = std::os::unix::fs::chown(&path, Some(1234), Some(1234));
    let owner = fs::metadata(&path).expect("there").uid();
    sandbox.env.ok(&["kubeconfig", "--merge"]);
    for name in names(&folder) {
        let metadata = fs::metadata(folder.join(&name)).expect("there");
        assert_eq!(metadata.uid(), owner, "{name}");
    }
    // A file with two hard links, as in a synchronized home directory, keeps both.
    let other = sandbox.env.path("other-name");
    fs::hard_link(&path, &other).expect("linked");
    sandbox.env.ok(&["kubeconfig", "--unmerge"]);
    sandbox.env.ok(&["kubeconfig", "--merge"]);
    let texts = [&path, &other].map(|it| fs::read_to_string(it).expect("there"));
    assert!(
        texts[0] == texts[1] && texts[0].contains("k3s-project-"),
        "{texts:?}"
    );
    // A lock of ours that no process holds was left behind; another program's may be in use.
    fs::write(folder.join("config.lock"), "k3s-vm\n").expect("written");
    sandbox.env.ok(&["kubeconfig", "--unmerge"]);
    assert!(!folder.join("config.lock").exists());

    let before = names(&folder);
    let odd = b"apiVersion: v1\nkind: Config\n# \xff\n";
    fs::write(&path, odd).expect("written");
    let merge = sandbox.env.command(&["kubeconfig", "--merge"]);
    sandbox.fails("a kubeconfig that is not UTF-8", merge, 1, &["UTF-8"]);
    assert_eq!(fs::read(&path).expect("there"), odd);
    assert_eq!(names(&folder), before, "nothing beside it");
}

#[test]
fn variables_of_other_programs() {
    let sandbox = Sandbox::new();
    let run = |verb: &[&str], variables: &[(&str, &str)]| {
        let mut command = sandbox.env.command(verb);
        command.envs(variables.iter().copied());
        finish(command)
    };
    let log = sandbox.env.path("log").display().to_string();
    for (variables, code) in [
        (&[("LOG_FILE", "")][..], 0),
        (&[("LOG_FILE", "/nowhere/log")], 0),
        (&[("K3S_VM_LOG_FILE", "")], 0),
        (&[("K3S_VM_LOG_FILE", "/nowhere/log")], 1),
        (
            &[("K3S_VM_LOG_FILE", &log), ("LOG_FILE", "/nowhere/log")],
            0,
        ),
        (&[("VM_NAME", "No Name")], 0),
        (&[("K3S_VM_NAME", "No Name")], 0),
    ] {
        let ended = run(&["list", "--json"], variables);
        assert_eq!(ended.code, code, "{variables:?}: {}", ended.stderr);
    }
    for (verb, code, words) in [
        (&["list"][..], 0, ""),
        (&["doctor", "--json"], 0, ""),
        (&["cache", "list"], 0, ""),
        (&["--help"], 0, ""),
        (&["status", "--name", "other"], 4, ""),
        (&["status"], 2, "invalid K3S_VM_MACHINE \"A B\": expected"),
        (&["stop"], 2, "hint: unset K3S_VM_MACHINE"),
    ] {
        let ended = run(verb, &[("K3S_VM_MACHINE", "A B")]);
        assert_eq!(ended.code, code, "{verb:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{verb:?}: {}", ended.stderr);
    }
    let ended = run(&["reset"], &[("K3S_VM_LOG_FILE", "/dev/full")]);
    let words = "warning: the log file is incomplete: No space left on device";
    assert!(ended.code == 0 && ended.stderr.contains(words), "{ended:?}");
    let said = run(&["list"], &[("LOG_FILE", "/nowhere/log")]).stderr;
    assert!(
        said.contains("warning:") && said.contains("/nowhere/log"),
        "{said}"
    );
    let pipe = fifo(&sandbox.env.path("pipe"));
    assert_eq!(run(&["list"], &[("LOG_FILE", &pipe)]).code, 0);
    for (variables, debug) in [
        (&[("DEBUG", "express:*")][..], false),
        (&[("DEBUG", "*")], false),
        (&[("DEBUG", "true")], true),
        (&[("K3S_VM_DEBUG", "1"), ("DEBUG", "0")], true),
        (&[("K3S_VM_DEBUG", "0"), ("DEBUG", "1")], false),
    ] {
        let said = run(&["-q", "reset"], variables).stderr;
        assert_eq!(!said.is_empty(), debug, "{variables:?}: {said}");
    }
    for (variables, code) in [
        (&[("VM_NAME", "No Name")][..], 1),
        (&[("K3S_VM_NAME", "shop"), ("VM_NAME", "No Name")], 0),
    ] {
        let ended = run(&["kubeconfig", "--unmerge"], variables);
        assert_eq!(ended.code, code, "{variables:?}: {}", ended.stderr);
    }
}

#[test]
fn what_cannot_be_copied() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    for (arguments, code, words) in [
        (["cp", ":/etc/hostname", "-"], 2, "stdout"),
        (["cp", "-", ":/tmp/x"], 2, "stdin"),
        (["cp", "/dev/null", ":/tmp/x"], 1, "/dev/null is neither"),
    ] {
        let command = sandbox.env.command(&arguments);
        sandbox.fails(&arguments.join(" "), command, code, &[words]);
    }
}

#[test]
fn too_much_memory_and_tight_memory() {
    let sandbox = Sandbox::new();
    let limited = "mount -t tmpfs none /sys/fs/cgroup; mkdir /sys/fs/cgroup/memory; \
        echo 500000000 | tee /sys/fs/cgroup/memory.max >/sys/fs/cgroup/memory/memory.limit_in_bytes; exec \"$@\"";
    let words = [
        "cannot give the VM 1GiB of memory: this process may use",
        "/sys/fs/cgroup",
    ];
    let setup = in_other_mounts(&sandbox, &sandbox.setup(&[]), limited);
    sandbox.fails("a cgroup with a limit of memory", setup, 1, &words);
    let near = limited.replace("500000000", "1100000000");
    let setup = in_other_mounts(&sandbox, &sandbox.setup(&[]), &near);
    let words = ["warning: the kernel may end QEMU: "];
    sandbox.survives("a cgroup with a limit near the VM's memory", setup, &words);
    let tight = "printf 'MemTotal: 8000000 kB\\nMemAvailable: 500000 kB\\n' >../meminfo; \
        mount --bind ../meminfo /proc/meminfo; exec \"$@\"";
    let setup = in_other_mounts(&sandbox, &sandbox.setup(&[]), tight);
    sandbox.survives("memory that is in use just now", setup, &["warning: "]);
}

#[test]
fn a_runtime_directory_that_is_too_long_for_sockets() {
    let sandbox = Sandbox::new();
    let long = sandbox.env.path(&"r".repeat(100));
    crate::support::private_dir(&long);
    let mut setup = sandbox.setup(&[]);
    setup.env("K3S_VM_RUNTIME_DIR", &long);
    let setup = Background::start(&sandbox, setup);
    eventually("the VM runs", || {
        let mut status = sandbox.env.command(&["status", "--json"]);
        assert!(setup.is_running(), "{}", setup.said());
        status.env("K3S_VM_RUNTIME_DIR", &long);
        finish(status).stdout.contains("\"run_state\": \"running\"")
    });
    setup.signal(Signal::INT);
    assert_eq!(setup.end().code, 130);
}

/// Without care, the kernel kills a program that exceeds them.
#[test]
fn limits_of_file_size_and_memory() {
    let sandbox = Sandbox::new();
    let limited = |limit: &str| {
        let asked = sandbox.setup(&[]);
        let mut setup = sandbox.env.tool("prlimit");
        setup
            .arg(limit)
            .arg(asked.get_program())
            .args(asked.get_args());
        setup
    };
    let words = ["cannot write ", "ile too large"];
    sandbox.fails("ulimit -f", limited("--fsize=100000"), 1, &words);
    let words = [
        "cannot give the VM 1GiB of memory: this process may use",
        "ulimit -v",
    ];
    sandbox.fails("ulimit -v", limited("--as=900000000"), 1, &words);
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn too_few_open_files_are_not_a_taken_port() {
    let sandbox = Sandbox::new();
    let asked = sandbox.setup(&[]);
    let mut setup = sandbox.env.tool("prlimit");
    setup
        .arg("--nofile=20")
        .arg(asked.get_program())
        .args(asked.get_args());
    let ended = finish(setup);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(!ended.stderr.contains("is taken"), "{}", ended.stderr);
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn a_kubectl_for_another_cluster() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    let mut path = program(&sandbox, "kubectl", "echo \"$KUBECONFIG $*\"");
    path.push(":/usr/bin:/bin");
    let run = |called: &str, arguments: &[&str], kubeconfig: &str| {
        let link = sandbox.file("bin/kubectl");
        let mut command = sandbox.env.tool(&link);
        command.env("PATH", &path).env("KUBECONFIG", kubeconfig);
        if called == "kubectl" {
            command.arg0(called);
        }
        finish_with(command, arguments)
    };
    let own = sandbox
        .env
        .project
        .join(".kube/config")
        .display()
        .to_string();
    for (called, arguments, kubeconfig, code, stdout) in [
        (
            "kubectl",
            &["get", "nodes"][..],
            "/other",
            0,
            "/other get nodes\n",
        ),
        ("kubectl", &["get", "nodes"], own.as_str(), 3, ""),
        ("kubectl", &["get", "nodes"], "", 3, ""),
        // A script that asks for the machine's own tool, in a shell with any KUBECONFIG.
        ("by its path", &["get", "nodes"], "/other", 3, ""),
        (
            "by its path",
            &["--kubeconfig=/x", "get"],
            "",
            0,
            " --kubeconfig=/x get\n",
        ),
        (
            "by its path",
            &["completion", "bash"],
            own.as_str(),
            0,
            &format!("{own} completion bash\n"),
        ),
        (
            "kubectl",
            &["get", "--help"],
            own.as_str(),
            0,
            &format!("{own} get --help\n"),
        ),
    ] {
        let ended = run(called, arguments, kubeconfig);
        let told = (ended.code, ended.stdout.as_str());
        assert_eq!(
            told,
            (code, stdout),
            "{called} {arguments:?}: {}",
            ended.stderr
        );
    }
}

fn finish_with(mut command: Command, arguments: &[&str]) -> Ended {
    command.args(arguments);
    finish(command)
}

/// A file with holes is one endless line.
#[test]
fn state_files_with_holes() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    let punched = |name: &str, length: u64| {
        let file = fs::File::create(sandbox.file(name)).expect("created");
        file.set_len(length).expect("sparse");
    };
    for (name, words) in [
        ("config", "it is larger than 16 MiB"),
        ("record.json", "it is larger than 16 MiB"),
    ] {
        let kept = fs::read(sandbox.file(name)).expect("there");
        punched(name, 1 << 40);
        let status = sandbox.env.command(&["status"]);
        let fault = format!("{name} has a hole of 1 TiB");
        sandbox.fails(&fault, status, 1, &[words]);
        fs::write(sandbox.file(name), kept).expect("written");
    }
    let kept = fs::read(sandbox.file("config")).expect("there");
    punched("config", 200_000);
    let status = sandbox.env.command(&["status"]);
    let ended = sandbox.fails("config has a hole of 200 kB", status, 1, &["TOML", "..."]);
    assert!(ended.stderr.len() < 2000, "{}", ended.stderr.len());
    fs::write(sandbox.file("config"), kept).expect("written");
}

/// The cached k3s replaces kubectl only if it can be executed.
#[test]
fn a_noexec_cache() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    let script = "mount --bind ../cache ../cache; mount -o remount,bind,noexec ../cache; \
        PATH=/nowhere; export PATH; exec \"$@\"";
    let version = sandbox.env.command(&["kubectl", "version", "--client"]);
    let version = in_other_mounts(&sandbox, &version, script);
    let words = [
        "kubectl is not on the PATH, and its stand-in ",
        "noexec",
        "hint: ",
    ];
    sandbox.fails("a noexec cache, kubectl", version, 127, &words);
    let script = script.replace("PATH=/nowhere; ", "");
    let start = in_other_mounts(&sandbox, &sandbox.env.command(&["start"]), &script);
    sandbox.survives("a noexec cache, start", start, &[]);
}

/// NixOS: the program on the PATH is a wrapper, and the firmware is beside it.
#[test]
fn qemu_of_a_nix_store() {
    let sandbox = Sandbox::new();
    let store = sandbox.env.path("nix/store/abc-qemu-10.0.2");
    let path = std::env::var("PATH").unwrap_or_default();
    let script = format!("export PATH='{path}' EXTRA=1\nexec -a \"$0\" qemu-system-x86_64 \"$@\"");
    fs::create_dir_all(store.join("bin")).expect("created");
    let wrapper = store.join("bin/qemu-system-x86_64");
    fs::write(&wrapper, format!("#!/bin/bash -e\n{script}\n")).expect("written");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("made a program");
    symlink("/usr/share/qemu", store.join("share")).expect("linked");
    let mut setup = sandbox.setup(&[]);
    setup.env("PATH", format!("{}:{path}", store.join("bin").display()));
    sandbox.continues(setup);
}

#[test]
fn a_missing_name_is_reported_once() {
    let sandbox = Sandbox::new();
    let ended = finish(sandbox.setup_from("http://k3s.invalid/releases", &[]));
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let warnings = ended.stderr.matches("warning:").count();
    assert!(warnings <= 2, "{}", ended.stderr);
}

/// A QEMU that is a script, and one that was built without what a VM needs.
#[test]
fn a_qemu_of_another_kind() {
    let sandbox = Sandbox::new();
    let path = std::env::var("PATH").unwrap_or_default();
    let here = |script: &str| {
        let script = format!("PATH='{path}'\n{script}");
        let mut all = program(&sandbox, "qemu-system-x86_64", &script);
        all.push(format!(":{path}"));
        all
    };
    let mut setup = sandbox.setup(&[]);
    setup.env("PATH", here("qemu-system-x86_64 \"$@\""));
    let words = [
        "/bin/qemu-system-x86_64 is a script that does not start QEMU by exec",
        "hint: end the script with: exec ",
    ];
    sandbox.fails("a QEMU that is a script without exec", setup, 1, &words);
    let mut setup = sandbox.setup(&[]);
    setup.env("PATH", here("exec qemu-system-x86_64 \"$@\""));
    sandbox.continues(setup);
    for (refusal, lacks) in [
        (
            "*sandbox*) echo '-sandbox support is not enabled in this QEMU binary' >&2; exit 1",
            "was built without a sandbox (libseccomp)",
        ),
        (
            "*netdev*help*) echo tap; exit 0",
            "was built without user networking (libslirp)",
        ),
    ] {
        let script = format!("case \"$*\" in {refusal};; esac\nexec qemu-system-x86_64 \"$@\"");
        let mut doctor = sandbox.env.command(&["doctor"]);
        doctor.env("PATH", here(&script));
        let told = finish(doctor);
        assert!(told.stdout.contains(lacks), "{told:?}");
    }
}
