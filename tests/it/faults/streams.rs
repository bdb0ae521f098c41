//! Output that cannot be written is a failure, except where its reader has gone.

use std::{
    fs::{self, File, OpenOptions},
    process::{Command, Stdio},
};

use super::sandbox::Sandbox;
use crate::support::{code, ended, finish, program};

/// With stdout on a full file system: the exit code, and whether the error says so.
fn on_full(command: &mut Command) -> (i32, String) {
    let full = OpenOptions::new().write(true).open("/dev/full");
    let ended = ended(
        command
            .stdout(full.expect("Linux"))
            .stderr(Stdio::piped())
            .output()
            .expect("the program runs"),
    );
    (ended.code, ended.stderr)
}

/// With a stdout that is closed.
fn on_closed_pipe(command: &mut Command) -> i32 {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    code(
        command
            .stdout(writer)
            .stderr(Stdio::null())
            .status()
            .expect("the program runs"),
    )
}

#[track_caller]
fn fails_only_on_full(sandbox: &Sandbox, arguments: &[&str], usual: i32) {
    let what = arguments.join(" ");
    let (code, stderr) = on_full(&mut sandbox.env.command(arguments));
    assert_eq!(code, 1, "{what}: {stderr}");
    assert!(
        stderr.contains("cannot write to stdout: No space left on device"),
        "{what}: {stderr}"
    );
    let code = on_closed_pipe(&mut sandbox.env.command(arguments));
    assert_eq!(code, usual, "{what}");
}

#[test]
fn without_a_vm() {
    let sandbox = Sandbox::new();
    for (arguments, usual) in [
        (&["--help"][..], 0),
        (&["-h"], 0),
        (&["help", "setup"], 0),
        (&["--version"], 0),
        (&["completions", "bash"], 0),
        (&["man"], 0),
        (&["list", "--json"], 0),
        (&["status"], 4),
        (&["status", "--json"], 4),
        (&["cache", "list", "--json"], 0),
    ] {
        fails_only_on_full(&sandbox, arguments, usual);
    }
    let mut words = sandbox.env.command(&["--", "k3s-vm", "sta"]);
    let (code, stderr) = on_full(words.env("K3S_VM_COMPLETE", "1"));
    assert_eq!(code, 1, "{stderr}");
}

#[test]
fn of_a_vm() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    for (arguments, usual) in [
        (&["kubeconfig"][..], 0),
        (&["kubeconfig", "--print"], 0),
        (&["list"], 0),
        (&["cache", "list"], 0),
        (&["env", "--shell", "sh"], 0),
        (&["status"], 3),
        (&["status", "--json", "--watch"], 3),
        (&["port", "list", "--json"], 0),
        (&["snapshot", "list", "--json"], 0),
        (&["autostart"], 0),
    ] {
        fails_only_on_full(&sandbox, arguments, usual);
    }
}

/// The standard library hides both, and output would be lost without an error.
#[test]
fn closed_or_read_only_stdout() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["--license"],
        &["help", "setup"],
        &["completions", "zsh"],
        &["list", "--json"],
        &["status"],
        &["doctor", "--json"],
    ] {
        let mut read_only = sandbox.env.command(arguments);
        read_only.stdout(File::open("/dev/null").expect("Linux"));
        let mut closed = sandbox.env.tool("sh");
        closed.args(["-c", "exec \"$@\" >&-", "sh"]);
        closed.arg(program()).args(arguments);
        for mut command in [read_only, closed] {
            let ended = ended(command.stderr(Stdio::piped()).output().expect("it runs"));
            assert_eq!(ended.code, 1, "{arguments:?}: {ended:?}");
            let reason = "cannot write to stdout: Bad file descriptor";
            assert!(ended.stderr.contains(reason), "{arguments:?}: {ended:?}");
        }
    }
    let bundle = sandbox.env.command(&["doctor", "--bundle", "-"]);
    sandbox.fails("--bundle -", bundle, 2, &["stdout"]);
    assert!(!sandbox.env.project.join("-").exists());
}

/// A shell that evaluates `k3s-vm env` would run the log's lines.
#[test]
fn stdout_as_the_log_file() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    for path in ["/dev/stdout", "/proc/self/fd/1"] {
        let merge = |variable: &str| {
            let mut merge = sandbox.env.command(&["kubeconfig", "--merge"]);
            merge.env(variable, path);
            merge
        };
        let ended = finish(merge("LOG_FILE"));
        assert_eq!(
            (ended.code, ended.stdout.lines().count()),
            (0, 1),
            "{ended:?}"
        );
        let fault = format!("K3S_VM_LOG_FILE={path}");
        sandbox.fails(&fault, merge("K3S_VM_LOG_FILE"), 1, &["it is stdout"]);
    }
}

/// The guest and QEMU print what they like. A terminal gets none of what would steer it, and a pipe gets all.
#[test]
fn logs_do_not_steer_a_terminal() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    let copy = "\u{1b}]52;c;b3duZWQ=\u{7}";
    for name in ["console", "qemu"] {
        let text = format!("begin {copy}\u{9b}5n\u{1b}[31mred\u{1b}[0m\r\nend\n");
        fs::write(sandbox.file(&format!("{name}.log")), &text).expect("written");
        let command = format!("{} logs {name}", program().display());
        let mut script = sandbox.env.tool("script");
        script
            .args(["-qec", &command, "/dev/null"])
            .env("TERM", "xterm");
        let shown = finish(script).stdout;
        assert!(
            shown.contains("begin ") && shown.contains("end"),
            "{shown:?}"
        );
        let steers = |c: char| c.is_control() && !matches!(c, '\r' | '\n');
        assert!(!shown.contains(steers), "{name}: {shown:?}");
    }
}
