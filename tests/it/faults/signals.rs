//! Ctrl-C and its kin during start, stop and reset, also as keys of a real terminal.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Signal,
};

use super::{
    sandbox::{Background, Sandbox, eventually},
    table::record_stopped_fault,
};
use crate::support::Ended;

const SIGNALS: [(Signal, &str, i32); 3] = [
    (Signal::INT, "SIGINT", 130),
    (Signal::TERM, "SIGTERM", 143),
    (Signal::HUP, "SIGHUP", 129),
];

#[track_caller]
fn runs(sandbox: &Sandbox) {
    eventually("the VM runs", || {
        sandbox.status()["process"]["run_state"] == "running"
    });
}

#[test]
fn during_start() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    for (signal, name, code) in SIGNALS {
        let start = Background::start(&sandbox, sandbox.env.command(&["start"]));
        runs(&sandbox);
        start.signal(signal);
        let ended = start.end();
        record_stopped_fault(&sandbox, &format!("{name} during start"), &ended);
        assert_eq!(ended.code, code);
        for word in ["error: interrupted", "hint: run the same command again"] {
            assert!(ended.stderr.contains(word), "{}", ended.stderr);
        }
        assert_eq!(sandbox.status()["state"], "stopped");
    }
    sandbox.continues(sandbox.env.command(&["start"]));
}

/// The guest has been asked to power off and may still do so; QEMU is not killed.
#[test]
fn during_stop() {
    let sandbox = Sandbox::new();
    sandbox.left_running();
    let qemu = sandbox.env.pid();
    let stop = Background::start(&sandbox, sandbox.env.command(&["stop"]));
    stop.says("shutting down the guest");
    stop.signal(Signal::INT);
    let ended = stop.end();
    assert_eq!(ended.code, 130, "{ended:?}");
    assert!(ended.stderr.contains("error: interrupted"), "{ended:?}");
    assert_eq!(sandbox.env.pid(), qemu);
    assert_eq!(sandbox.status()["process"]["run_state"], "running");
    let again = sandbox.env.ok(&["stop", "--timeout", "1s"]);
    record_stopped_fault(&sandbox, "Ctrl-C during stop, stop again", &again);
    assert!(again.stderr.contains("stopped by force"), "{again:?}");
}

#[test]
fn keys_of_a_terminal() {
    let sandbox = Sandbox::new();
    for (fault, code, command) in [
        ("Ctrl-C on a terminal during setup", 130, sandbox.setup(&[])),
        (
            "Ctrl-C on a terminal during start",
            130,
            sandbox.env.command(&["start"]),
        ),
    ] {
        let terminal = Terminal::with(&sandbox, &command);
        runs(&sandbox);
        let ended = terminal.press(b"\x03");
        record_stopped_fault(&sandbox, fault, &ended);
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.stderr.contains("error: interrupted"), "{ended:?}");
    }
}

/// Any other answer than yes changes nothing.
#[test]
fn at_the_prompt_of_reset() {
    let sandbox = Sandbox::new();
    sandbox.left_running();
    let qemu = sandbox.env.pid();
    // What a shell calls 130 is a death by the signal, before there is anything to end.
    for (key, how, code) in [(b"\x03", "Ctrl-C", -1), (b"\x04", "end of input", 1)] {
        let terminal = Terminal::with(&sandbox, &sandbox.env.command(&["reset"]));
        terminal.shows("[y/N]");
        let ended = terminal.press(key);
        assert!([code, 130].contains(&ended.code), "{how}: {ended:?}");
        assert_eq!(sandbox.status()["process"]["run_state"], "running");
        assert_eq!(sandbox.env.pid(), qemu);
    }
    let ended = sandbox.env.ok(&["reset", "--yes"]);
    record_stopped_fault(
        &sandbox,
        "Ctrl-C at the question of reset, reset --yes",
        &ended,
    );
}

/// A terminal that a command has to itself, as a login shell would give it.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: File,
    line: OwnedFd,
    settings: String,
}

impl Terminal {
    fn with(sandbox: &Sandbox, command: &Command) -> Self {
        let terminal = nix::pty::openpty(None, None).expect("a terminal");
        let side = || Stdio::from(terminal.slave.try_clone().expect("cloned"));
        let mut session = sandbox.env.tool("setsid");
        session
            .args(["--ctty", "--wait"])
            // A shell's background job ignores what a shell's foreground job does not.
            .args(["env", "--default-signal=INT,QUIT"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(side())
            .stdout(side())
            .stderr(side());
        let settings = settings(&terminal.slave);
        let keyboard = File::from(terminal.master);
        Self {
            child: session.spawn().expect("setsid runs"),
            screen: keyboard.try_clone().expect("cloned"),
            keyboard,
            line: terminal.slave,
            settings,
        }
    }

    /// Returns once that stands on the screen.
    fn shows(&self, text: &str) {
        let mut seen = Vec::new();
        let mut some = [0; 1024];
        while !String::from_utf8_lossy(&seen).contains(text) {
            let limit = Timespec {
                tv_sec: 60,
                tv_nsec: 0,
            };
            let mut screen = [PollFd::new(&self.screen, PollFlags::IN)];
            let ready = poll(&mut screen, Some(&limit)).expect("a screen");
            assert_ne!(ready, 0, "in vain waited for {text}: {seen:?}");
            let read = (&self.screen).read(&mut some).expect("a screen");
            seen.extend_from_slice(&some[..read]);
        }
    }

    /// How the command ended after that key; the terminal is as it was.
    #[track_caller]
    fn press(mut self, key: &[u8]) -> Ended {
        self.keyboard.write_all(key).expect("typed");
        eventually("it ends", || {
            self.child.try_wait().expect("a child").is_some()
        });
        let status = self
            .child
            .wait()
            .expect("wait until it ends, then run the same command again");
        assert_eq!(settings(&self.line), self.settings, "the terminal is sane");
        drop(self.line);
        let mut seen = Vec::new();
        let mut some = [0; 1024];
        while let Ok(read @ 1..) = self.screen.read(&mut some) {
            seen.extend_from_slice(&some[..read]);
        }
        let shown = String::from_utf8_lossy(&seen).replace('\r', "");
        // What the terminal itself shows for a key.
        let shown = shown.replace("^C", "");
        assert!(
            !shown.contains("\x1b[?25l") || shown.contains("\x1b[?25h"),
            "a cursor: {shown}"
        );
        Ended {
            code: status.code().unwrap_or(-1),
            stdout: String::new(),
            stderr: shown,
        }
    }
}

fn settings(terminal: &OwnedFd) -> String {
    let settings = rustix::termios::tcgetattr(terminal).expect("a terminal");
    format!("{settings:?}")
}
