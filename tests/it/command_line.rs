//! What the program says and how it ends where no guest is needed: help, mistakes, an absent machine, the doctor.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::support::{Ended, TestEnv, ended, mode, names, on_a_terminal};

const VERBS: [&str; 29] = [
    "autostart",
    "setup",
    "start",
    "stop",
    "status",
    "reset",
    "kubectl",
    "k9s",
    "doctor",
    "cache",
    "image",
    "ssh",
    "ssh-config",
    "cp",
    "logs",
    "completions",
    "kubeconfig",
    "env",
    "list",
    "man",
    "configure",
    "restart",
    "pause",
    "resume",
    "snapshot",
    "trim",
    "port",
    "upgrade",
    "help",
];

/// The sequence that begins every colour.
const ESCAPE: &str = "\x1b[";

#[test]
fn every_command_has_help_with_examples() {
    let env = TestEnv::new();
    let overview = env.ok(&["--help"]).stdout;
    for verb in VERBS {
        assert!(overview.contains(&format!("\n  {verb} ")), "{verb}");
        let help = env.ok(&["help", verb]);
        for part in [&format!("Usage: k3s-vm {verb}"), "Examples:"] {
            assert!(help.stdout.contains(part), "{verb} lacks {part}");
        }
        assert_eq!(help.stderr, "");
        // All words behind the wrappers are the tool's own, also --help.
        if !["kubectl", "k9s"].contains(&verb) {
            assert_eq!(env.ok(&[verb, "--help"]).stdout, help.stdout);
        }
    }
    assert_eq!(env.run(&["kubectl", "--help"]).code, 4);
    // Without a word, too, help is shown; but nothing was done.
    let nothing = env.run::<&str>(&[]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (2, ""));
    assert!(nothing.stderr.contains("Usage: k3s-vm"));
}

#[test]
fn topics_are_listed_and_shown() {
    let env = TestEnv::new();
    let overview = env.ok(&["help"]).stdout;
    assert_eq!(env.ok(&["--help"]).stdout, overview);
    for topic in ["config", "network", "exit-codes", "internals"] {
        assert!(overview.contains(&format!("\n  {topic} ")), "{topic}");
        let shown = env.ok(&["help", topic]).stdout;
        assert!(shown.lines().count() > 10, "{shown}");
        assert!(!shown.contains(ESCAPE) && !shown.contains('#'), "{shown}");
        assert!(
            shown.lines().all(|line| line.chars().count() <= 120),
            "{shown}"
        );
    }
    let unknown = env.run(&["help", "nonsense"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (2, ""));
    assert!(unknown.stderr.contains("hint: "), "{}", unknown.stderr);
}

#[test]
fn the_licenses_are_in_the_program() {
    let env = TestEnv::new();
    let text = env.ok(&["--license"]).stdout;
    for part in ["Permission is hereby granted", "Apache License"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(env.run(&["--license", "list"]).code, 2);
}

#[test]
fn hints_use_the_path_of_an_uninstalled_program() {
    let env = TestEnv::new();
    let called = crate::support::program();
    let absent = finish(env.command(&["stop"]).env("PATH", "/nowhere"));
    let hint = format!("hint: create it: {} setup\n", called.display());
    assert!(absent.stderr.ends_with(&hint), "{}", absent.stderr);
    let absent = env.run(&["stop"]).stderr;
    assert!(
        absent.ends_with("hint: create it: k3s-vm setup\n"),
        "{absent}"
    );
}

#[test]
fn the_version_is_that_of_the_package() {
    let env = TestEnv::new();
    let expected = format!("k3s-vm {}\n", env!("CARGO_PKG_VERSION"));
    for flag in ["-V", "--version"] {
        assert_eq!(env.ok(&[flag]).stdout, expected);
    }
}

#[test]
fn mistakes_get_suggestions() {
    let env = TestEnv::new();
    for (line, says) in [
        ("setp", &["unrecognized subcommand 'setp'", "'setup'"][..]),
        ("setup --cpu 2", &["'--cpu'", "'--cpus'"]),
        ("setup --cpus 0", &["--cpus", "1..=64"]),
        ("setup --memory lots", &["--memory", "lots"]),
        ("setup --disk 20GX", &["--disk", "20GX"]),
        ("setup --api-port 70000", &["--api-port"]),
        (
            "setup --accel fast",
            &["\"fast\": expected one of auto, kvm, tcg"],
        ),
        (
            "setup --firmware none",
            &["\"none\": expected one of auto, bios, uefi"],
        ),
        ("setup --timeout soon", &["expected e.g. 90s or 5m"]),
        (
            "setup --image-sha256 abc --image ubuntu-24.04",
            &["--image-sha256"],
        ),
        (
            "setup --image ubuntu-23.04",
            &["debian-13, debian-13-genericcloud, ubuntu-26.04"],
        ),
        ("logs kernel", &["console, k3s, cloud-init, qemu, all"]),
        ("logs k3s --since soon", &["--since"]),
        ("ssh-config --name .x", &["--name"]),
        ("cp one", &["<SRC>... <DST>"]),
        ("cp one two", &["the guest's paths begin with a colon"]),
        ("stop --force --timeout 5s", &["cannot be used with"]),
        ("-q -v status", &["cannot be used with"]),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let mistake = env.run(&words);
        assert_eq!((mistake.code, mistake.stdout.as_str()), (2, ""), "{line}");
        for text in says {
            assert!(mistake.stderr.contains(text), "{line}: {}", mistake.stderr);
        }
    }
    assert!(names(&env.project).is_empty(), "a mistake changes nothing");
}

#[test]
fn invalid_flags_create_nothing() {
    let env = TestEnv::new();
    for (line, says) in [
        ("setup --memory 512MiB", "1GiB is the least"),
        ("setup --disk 1GiB", "4GiB is the least"),
        ("setup --k3s-version 1.33", "1.33"),
        ("setup --k3s-mirror ftp://mirror", "ftp"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let refused = env.run(&words);
        assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{line}");
        assert!(refused.stderr.contains(says), "{line}: {}", refused.stderr);
    }
    for name in ["Shop", "-shop", "a.b", &"a".repeat(64)] {
        let refused = finish(env.command(&["setup"]).env("VM_NAME", name));
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains("VM_NAME: "), "{}", refused.stderr);
        assert!(refused.stderr.contains("hint: unset VM_NAME"));
    }
    assert!(!env.project.join(".k3s-vm/record.json").exists());
}

#[test]
fn an_invalid_config_names_file_line_and_key() {
    let env = TestEnv::new();
    let config = env.project.join(".k3s-vm/config");
    fs::create_dir(env.project.join(".k3s-vm")).expect("created");
    for (text, line, key) in [
        ("cpus = 2\nmemry = \"4GiB\"\n", "line 2", "memry"),
        ("cpus = 200\n", "line 1", "cpus"),
        ("\n\nmemory = 4\n", "line 3", "memory"),
        ("accel = \"fast\"\n", "line 1", "accel"),
        ("cpus = = 2\n", "line 1", "cpus"),
    ] {
        fs::write(&config, text).expect("written");
        let refused = env.run(&["setup"]);
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{text}");
        for part in [config.to_str().expect("Unicode"), line, key, "hint: fix"] {
            assert!(refused.stderr.contains(part), "{text}: {}", refused.stderr);
        }
        assert_eq!(fs::read_to_string(&config).expect("still there"), text);
    }
}

#[test]
fn commands_without_a_vm_fail_and_create_nothing() {
    let env = TestEnv::new();
    for (line, code) in [
        ("status", 4),
        ("status --json", 4),
        ("status --verbose", 4),
        ("start", 4),
        ("stop", 4),
        ("stop --force", 4),
        ("kubectl get nodes", 4),
        ("k9s", 4),
        ("ssh", 4),
        ("ssh true", 4),
        ("ssh-config", 4),
        ("cp /etc/hostname :/tmp", 4),
        ("cp :/etc/hostname .", 4),
        ("image load app:dev", 4),
        ("image list --json", 4),
        ("image rm app:dev", 4),
        ("logs", 4),
        ("logs k3s", 4),
        ("logs cloud-init", 4),
        ("logs all", 4),
        ("logs qemu --follow", 4),
        ("kubeconfig", 4),
        ("kubeconfig --print", 4),
        ("kubeconfig --merge", 4),
        ("kubeconfig --unmerge", 0),
        ("env", 4),
        ("env --unset", 0),
        ("list", 0),
        ("man", 0),
        ("list --json", 0),
        ("reset", 0),
        ("reset --yes", 0),
        ("doctor", 0),
        ("completions bash", 0),
        ("restart", 4),
        ("restart --force", 4),
        ("pause", 4),
        ("resume", 4),
        ("trim", 4),
        ("upgrade", 4),
        ("upgrade --k3s-version v1.34.1+k3s1", 4),
        ("snapshot create", 4),
        ("snapshot list", 4),
        ("snapshot restore one --yes", 4),
        ("snapshot delete one", 4),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let absent = env.run(&words);
        assert_eq!(absent.code, code, "{line}: {}", absent.stderr);
        if code == 4 && !line.starts_with("status") {
            assert_eq!(absent.stdout, "", "{line}");
            assert!(absent.stderr.contains("error: there is no VM in "));
            assert!(absent.stderr.contains("\nhint: create it: k3s-vm setup"));
        }
    }
    assert!(names(&env.project).is_empty());
    assert!(names(&env.path("home")).is_empty());
    assert!(names(&env.path("run")).is_empty());
}

#[test]
fn status_needs_no_other_program() {
    let env = TestEnv::new();
    let json = finish(env.command(&["status", "--json"]).env("PATH", "/nowhere"));
    assert_eq!((json.code, json.stderr.as_str()), (4, ""));
    let status: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(status["schema"], 1);
    assert_eq!(status["state"], "absent");
    assert_eq!(status["healthy"], false);
    assert!(status["machine"].is_null());
}

#[test]
fn a_project_is_found_from_other_directories() {
    let env = TestEnv::new();
    let below = env.project.join("web/src");
    fs::create_dir_all(&below).expect("created");
    let project_of = |directory: &Path, words: &[&str]| {
        let told = finish(env.command(words).current_dir(directory));
        assert_eq!(told.code, 4, "{}", told.stderr);
        let line = told.stdout.trim_end().to_owned();
        PathBuf::from(line.split_once("none in ").expect("a project").1)
    };
    let real = |path: &Path| fs::canonicalize(path).expect("there");
    let (project, below) = (real(&env.project), real(&below));
    assert_eq!(project_of(&below, &["status"]), below, "without a mark");
    fs::create_dir(project.join(".git")).expect("created");
    assert_eq!(project_of(&below, &["status"]), project, "a git root");
    fs::create_dir(project.join("web/.k3s-vm")).expect("created");
    assert_eq!(project_of(&below, &["status"]), project.join("web"), "ours");
    let home = env.path("home");
    for words in [
        ["-C", "../project", "status"],
        ["status", "-C", "../project"],
    ] {
        assert_eq!(project_of(&home, &words), project);
    }
    let nowhere = env.run(&["-C", "nowhere", "status"]);
    assert_eq!(nowhere.code, 1);
    assert!(
        nowhere
            .stderr
            .contains("the directory nowhere does not exist")
    );
}

#[test]
fn doctor_reports_the_host() {
    let env = TestEnv::new();
    let screen = env.ok(&["doctor"]);
    assert_eq!(screen.stderr, "");
    for name in [
        "QEMU",
        "KVM",
        "UEFI",
        "memory",
        "project",
        "cache",
        "port 6443",
        "kubectl",
    ] {
        assert!(screen.stdout.contains(name), "{}", screen.stdout);
    }
    let report = doctor_json(&env, "/usr/bin:/bin", 0);
    let qemu = check(&report, "QEMU");
    assert_eq!(qemu["result"], "ok");
    let found = qemu["found"].as_str().expect("a text");
    assert!(found.ends_with("/qemu-system-x86_64"), "{found}");
    assert!(qemu.get("fixes").is_none(), "nothing to fix");
}

#[test]
fn doctor_prints_install_commands() {
    let env = TestEnv::new();
    let screen = finish(env.command(&["doctor"]).env("PATH", "/nowhere"));
    assert_eq!((screen.code, screen.stderr.as_str()), (1, ""));
    let report = doctor_json(&env, "/nowhere", 1);
    assert_eq!(check(&report, "QEMU")["result"], "missing");
    assert_eq!(check(&report, "kubectl")["result"], "ok", "k3s stands in");
    let fixes = check(&report, "QEMU")["fixes"].as_array().expect("a list");
    assert_eq!(fixes.len(), 4);
    for (distribution, command, fix) in [
        ("NixOS", "nix-shell", 0),
        ("Debian/Ubuntu", "apt-get install", 1),
        ("Fedora", "dnf install", 2),
        ("Arch", "pacman -S", 3),
    ] {
        let fix = fixes[fix].as_str().expect("a text");
        assert!(fix.starts_with(&format!("{distribution}: ")) && fix.contains(command));
        assert!(screen.stdout.contains(fix), "{}", screen.stdout);
    }
    let setup = finish(env.command(&["setup"]).env("PATH", "/nowhere"));
    assert_eq!(setup.code, 1);
    assert!(
        setup
            .stderr
            .contains("qemu-system-x86_64 is not on the PATH")
    );
    assert!(setup.stderr.contains("--install-missing"));
}

fn doctor_json(env: &TestEnv, path: &str, code: i32) -> serde_json::Value {
    let json = finish(env.command(&["doctor", "--json"]).env("PATH", path));
    assert_eq!((json.code, json.stderr.as_str()), (code, ""));
    let report: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(report["schema"], 1);
    assert_eq!(report["ok"], code == 0);
    report
}

fn check<'a>(report: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let mut checks = report["checks"].as_array().expect("a list").iter();
    checks
        .find(|check| check["name"] == name)
        .unwrap_or_else(|| panic!("{name} is checked"))
}

#[test]
fn colors_only_on_terminals_or_by_flag() {
    let env = TestEnv::new();
    let coloured = |words: &[&str]| env.run(words).stderr.contains(ESCAPE);
    assert!(!coloured(&["start"]), "a pipe gets none");
    assert!(coloured(&["--color", "always", "start"]));
    assert!(!coloured(&["--color", "never", "start"]));
    assert_eq!(env.run(&["--color", "blue", "start"]).code, 2);

    let shown = |words: &[&str], no_color: &str| {
        let mut command = env.command(words);
        command.env("TERM", "xterm").env("NO_COLOR", no_color);
        let (code, screen) = on_a_terminal(command, "");
        assert_eq!(code, 4, "{screen}");
        screen.contains(ESCAPE)
    };
    assert!(shown(&["start"], ""), "a terminal gets some");
    assert!(!shown(&["start"], "1"), "unless NO_COLOR says otherwise");
    assert!(!shown(&["start", "--color", "never"], ""));
}

#[test]
fn reset_prompts_only_on_a_terminal() {
    let env = TestEnv::new();
    let config = env.project.join(".k3s-vm/config");
    fs::create_dir(env.project.join(".k3s-vm")).expect("created");
    fs::write(&config, "cpus = 3\n").expect("written");
    let leftover = env.project.join(".k3s-vm/seed.img");
    fs::write(&leftover, "").expect("written");

    let refused = env.run(&["reset"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
    assert!(
        refused
            .stderr
            .contains("hint: to go ahead without asking: k3s-vm reset --yes")
    );

    for answer in ["\n", "n\n", "yep\n"] {
        let (code, screen) = on_a_terminal(env.command(&["reset"]), answer);
        assert_eq!(code, 1, "{screen}");
        assert!(screen.contains("[y/N]") && screen.contains("nothing was changed"));
        assert!(leftover.exists());
    }
    let (code, screen) = on_a_terminal(env.command(&["reset"]), "y\n");
    assert_eq!(code, 0, "{screen}");
    assert!(!leftover.exists());
    assert_eq!(fs::read_to_string(&config).expect("kept"), "cpus = 3\n");
}

#[test]
fn quiet_and_debug_output() {
    let env = TestEnv::new();
    let said = |command: &[&str]| env.ok(command).stderr;
    assert!(said(&["reset"]).contains("nothing to do"));
    assert_eq!(said(&["-q", "reset"]), "");
    assert_eq!(said(&["reset", "--quiet"]), "");
    let failed = env.run(&["-q", "start"]);
    assert!(failed.stderr.contains("error: "), "errors are never quiet");
    for (variable, debug) in [("1", true), ("0", false), ("false", false), ("", false)] {
        let told = finish(env.command(&["-q", "reset"]).env("DEBUG", variable));
        assert_eq!(told.code, 0, "DEBUG={variable:?}: {}", told.stderr);
        assert_eq!(told.stderr.is_empty(), !debug, "DEBUG={variable:?} and -q");
    }
}

#[test]
fn the_log_file_has_times_and_no_colors() {
    let env = TestEnv::new();
    let log = env.path("k3s-vm.log");
    for _ in 0..2 {
        let told = finish(
            env.command(&["-q", "--color", "always", "reset"])
                .env("LOG_FILE", &log),
        );
        assert_eq!((told.code, told.stderr.as_str()), (0, ""));
    }
    let text = fs::read_to_string(&log).expect("a log");
    assert_eq!(text.matches("there is no VM in").count(), 2, "{text}");
    let stamped = text
        .lines()
        .all(|line| line.starts_with("20") && line.contains("INFO"));
    assert!(stamped && !text.contains(ESCAPE), "{text}");
    assert_eq!(mode(&log), 0o600);

    let nowhere = finish(
        env.command(&["reset"])
            .env("K3S_VM_LOG_FILE", "/nowhere/log"),
    );
    assert_eq!(nowhere.code, 1);
    assert!(
        nowhere
            .stderr
            .contains("cannot write the log file /nowhere/log")
    );
    assert!(nowhere.stderr.contains("hint: "));
}

#[test]
fn a_closed_stdout_is_not_a_failure() {
    let env = TestEnv::new();
    let mut help = env.command(&["completions", "bash"]);
    let mut child = help
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    drop(child.stdout.take());
    let ended = ended(child.wait_with_output().expect("it ends"));
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

fn finish(command: &mut std::process::Command) -> Ended {
    ended(command.output().expect("the program runs"))
}
