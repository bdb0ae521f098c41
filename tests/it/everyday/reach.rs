//! Into the guest and back: shells and commands, OpenSSH's own client, and files.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command, Stdio},
};

use nix::{
    pty::{Winsize, openpty},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::story_of;
use crate::{
    support::{code, mode},
    telling::{Story, chapter, found},
};

#[test]
fn a_guest_is_as_near_as_a_local_shell() {
    let story = story_of("near 100%d");
    commands_end_as_they_do_here(&story);
    signals_reach_the_command(&story);
    terminals_are_as_large_as_ours(&story);
    agents_are_lent(&story);
    openssh_connects(&story);
}

fn commands_end_as_they_do_here(story: &Story) {
    chapter("exit codes, pipes that end early, and both ways at once");
    story.run("k3s-vm ssh exit 7").exits(7);
    story.run("k3s-vm ssh 'kill -USR1 $$'").exits(128 + 10);
    story.run("k3s-vm ssh yes | head -n 1").exits(141).says("y");
    story
        .run("head -c 30M /dev/zero | k3s-vm ssh true")
        .succeeds();
    story
        .run("head -c 12M /dev/urandom >bytes && k3s-vm ssh cat <bytes | cmp - bytes; rm bytes")
        .succeeds();
    story
        .run("k3s-vm ssh -t tty")
        .says("warning: the command gets no terminal, for stdin is none")
        .prints("not a tty");
}

fn signals_reach_the_command(story: &Story) {
    chapter("a signal ends what runs in the guest, and nothing is left there");
    let ended_by = |signal: &str, command: &str| {
        story.run(&format!(
            "mkfifo ready; k3s-vm ssh '{command}' >ready & read -r line <ready; \
             kill -{signal} $!; wait $!; code=$?; rm ready; exit $code"
        ))
    };
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        ended_by(signal, "echo; sleep 4321").exits(code);
    }
    ended_by(
        "TERM",
        "trap \"exit 9\" TERM; echo; while :; do sleep 0.1; done",
    )
    .exits(9);
    story
        .run(
            "mkfifo ready; k3s-vm ssh 'trap \"\" TERM; echo; while :; do sleep 0.1 4321; done' >ready & \
             read -r line <ready; kill -TERM $!; sleep 1; kill -TERM $!; wait $!; code=$?; rm ready; exit $code",
        )
        .exits(143);
    story.run("k3s-vm ssh \"pgrep -f '432[1]'\"").exits(1);
    found("no command is left");
}

fn terminals_are_as_large_as_ours(story: &Story) {
    chapter("a terminal in the guest has the size of ours, and Ctrl-C is a key");
    let mut screen = Screen::of(
        story,
        &[
            "ssh",
            "--tty",
            "trap 'stty size' WINCH; trap 'echo caught; exit 5' INT; stty size; while :; do sleep 0.1; done",
        ],
    );
    screen.shows("30 100");
    screen.resize(33, 111);
    screen.shows("33 111");
    screen.types("\u{3}");
    screen.shows("caught");
    assert_eq!(screen.ends(), 5);

    let mut screen = Screen::of(story, &["ssh"]);
    screen.types("echo $((6 * 7)) $TERM\n");
    screen.shows("42 dumb");
    screen.signal(Signal::SIGTERM);
    assert_eq!(screen.ends(), 143);
    found("a signal leaves the terminal as it was");
    story
        .run("k3s-vm ssh \"pgrep -cf 'sleep 0.[1]'\"")
        .exits(1)
        .prints("0");
}

fn agents_are_lent(story: &Story) {
    chapter("the host's SSH agent, for as long as a command runs");
    story
        .run("k3s-vm ssh --forward-agent true")
        .exits(1)
        .says("there is no SSH agent to forward: SSH_AUTH_SOCK is not set");
    story
        .run("SSH_AUTH_SOCK=/nowhere k3s-vm ssh -A true")
        .exits(1)
        .says("the SSH agent at /nowhere (SSH_AUTH_SOCK) does not answer");
    story
        .run(
            "ssh-keygen -q -t ed25519 -N '' -C key-of-the-host -f key && ssh-agent bash -c \
             'ssh-add -q key && k3s-vm ssh -A ssh-add -l && ! k3s-vm ssh ssh-add -l'; code=$?; rm key*; exit $code",
        )
        .succeeds()
        .says("key-of-the-host")
        .says("Could not open a connection to your authentication agent");
}

fn openssh_connects(story: &Story) {
    chapter("OpenSSH's own client, from a project whose path has a space and a percent sign");
    story
        .run("k3s-vm ssh-config --name vm >ssh.conf && ssh -F ssh.conf vm hostname")
        .succeeds()
        .prints(story.status()["machine"]["name"].as_str().expect("a name"));
    story
        .run("scp -q -F ssh.conf vm:/etc/os-release . && grep ^ID= os-release")
        .succeeds()
        .prints("ID=debian");
    story
        .run("k3s-vm ssh-config | ssh -F /dev/stdin $(k3s-vm ssh hostname) exit 3")
        .exits(3);
    assert_eq!(mode(&story.file("known_hosts")), 0o600);
    story
        .run("k3s-vm ssh-config --name 'a b'")
        .exits(2)
        .says("a host's name takes");

    chapter("a guest that has another host key than the machine is not let near the agent");
    story
        .run(
            "cp .k3s-vm/known_hosts kept && ssh-keygen -q -t ed25519 -N '' -C '' -f other && \
             echo \"$(cut -d ' ' -f 1 kept) $(cat other.pub)\" >.k3s-vm/known_hosts && ssh -F ssh.conf vm true",
        )
        .exits(255)
        .says("Host key verification failed");
    story
        .run("k3s-vm ssh-config --name vm >ssh.conf && cmp kept .k3s-vm/known_hosts && ssh -F ssh.conf vm true")
        .succeeds();
    story.run("rm kept other* ssh.conf os-release").succeeds();
}

/// The program on a terminal of its own.
struct Screen {
    child: Child,
    master: File,
    shown: String,
    before: nix::sys::termios::Termios,
    slave: std::os::fd::OwnedFd,
}

impl Screen {
    fn of(story: &Story, arguments: &[&str]) -> Self {
        let size = Winsize {
            ws_row: 30,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let terminal = openpty(&size, None).expect("a terminal");
        let before = nix::sys::termios::tcgetattr(&terminal.slave).expect("its settings");
        let side = || Stdio::from(terminal.slave.try_clone().expect("cloned"));
        let mut command: Command = story.env.command(arguments);
        command.stdin(side()).stdout(side()).stderr(side());
        Self {
            child: command.spawn().expect("the program runs"),
            master: File::from(terminal.master),
            shown: String::new(),
            before,
            slave: terminal.slave,
        }
    }

    /// Reads on until that is on the screen, behind what was looked for before.
    fn shows(&mut self, text: &str) {
        let mut some = [0; 4096];
        while !self.shown.contains(text) {
            let read = self.master.read(&mut some).expect("the screen");
            self.shown += &String::from_utf8_lossy(&some[..read]);
        }
        let end = self.shown.find(text).expect("it is there") + text.len();
        self.shown.drain(..end);
        found(text);
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("typed");
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = rustix::termios::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&self.master, size).expect("resized");
        // Which the kernel sends only to those whose controlling terminal it is.
        self.signal(Signal::SIGWINCH);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("sent");
    }

    /// Waits for its end, and sees that the terminal is as it was.
    fn ends(mut self) -> i32 {
        let code = code(self.child.wait().expect("it ends"));
        let after = nix::sys::termios::tcgetattr(&self.slave).expect("its settings");
        assert_eq!(after.local_flags, self.before.local_flags);
        assert_eq!(after.input_flags, self.before.input_flags);
        assert_eq!(after.output_flags, self.before.output_flags);
        code
    }
}
