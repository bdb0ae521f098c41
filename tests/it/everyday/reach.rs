//! Into the guest and back: shells and commands, OpenSSH's own client, and files.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    pty::{Winsize, openpty},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::story_of;
use crate::{
    support::{code, mode},
    transcript::{Story, chapter, found},
};

#[test]
fn ssh_behaves_like_a_local_shell() {
    let story = story_of("near 100%d");
    exit_codes_are_those_of_the_command(&story);
    signals_reach_the_command(&story);
    terminals_have_the_same_size(&story);
    the_agent_is_forwarded(&story);
    openssh_connects(&story);
}

#[test]
fn cp_copies_both_ways() {
    let story = story_of("copies");
    copies_are_named_like_those_of_docker_cp(&story);
    failed_copies_are_explained(&story);
    interrupted_copies_leave_nothing(&story);
    a_hostile_guest_writes_nothing_else(&story);
    a_stopped_vm_is_not_reached(&story);
}

fn copies_are_named_like_those_of_docker_cp(story: &Story) {
    chapter("a folder into the guest: new, into one that is there, and only what is in it");
    story
        .run(
            "mkdir -p src/sub && echo one >src/a && echo two >src/sub/b && ln -s /nowhere src/link && \
             chmod 640 src/a && chmod 750 src/sub && touch -d '2020-01-02 03:04:05Z' src/a",
        )
        .succeeds();
    story
        .run("k3s-vm cp src :/srv/new && k3s-vm cp src :/srv/new && k3s-vm cp src/. guest:/srv/")
        .succeeds()
        .says("copied src (8 B in ");
    story
        .run("k3s-vm ssh 'cd /srv && find * | sort | xargs; stat -c %a,%U,%Y new/a; stat -c %a new/sub; readlink new/link'")
        .prints(
            "a link new new/a new/link new/src new/src/a new/src/link new/src/sub new/src/sub/b new/sub new/sub/b sub sub/b\n\
             640,root,1577934245\n750\n/nowhere",
        );
    story
        .run("k3s-vm ssh 'chmod 711 /srv; echo own >/srv/own' && chmod 700 src && k3s-vm cp src/. :/srv && \
              k3s-vm ssh 'stat -c %a /srv; cat /srv/own; ls -A /srv'")
        .succeeds()
        .says("711")
        .says("own");

    story
        .run("k3s-vm cp -q src :near && k3s-vm cp -q src/. :near && k3s-vm cp -q src/. :./near/ && k3s-vm ssh 'ls -A /root/near | xargs; ls -d .k3s-vm-cp.*'")
        .prints("a link sub");

    chapter("files, several at once, odd names, and back again");
    story
        .run("k3s-vm cp src/a \"guest:/srv/it's; odd\" && k3s-vm ssh cat \"/srv/it\\\\'s*\"")
        .succeeds()
        .says("one");
    story
        .run("k3s-vm cp src/a src/sub/b :/srv/new/ && k3s-vm cp :/srv/new back && find back | sort | xargs && stat -c %a,%Y back/a")
        .succeeds()
        .says("back/src/sub/b back/sub back/sub/b")
        .says("640,1577934245");
    story
        .run("echo old >back/a; echo own >back/own; k3s-vm cp :/srv/new/. back && cat back/a back/own")
        .succeeds()
        .says("one")
        .says("own");
    story
        .run("k3s-vm cp :/etc/resolv.conf :/etc/hostname . && test -f resolv.conf -a ! -L resolv.conf && k3s-vm cp :.bashrc rc && test -s rc")
        .succeeds();
    story
        .run("head -c 5M /dev/urandom >big && k3s-vm cp -q big :/root/ && k3s-vm cp -q :/root/big copy && cmp big copy")
        .succeeds()
        .never_says("copied");
}

fn failed_copies_are_explained(story: &Story) {
    chapter("what cannot be copied is said, and why");
    for (line, code, said) in [
        (
            "k3s-vm cp nope :/tmp",
            1,
            "nope does not exist on this host",
        ),
        ("k3s-vm cp :/nope .", 1, "/nope does not exist in the guest"),
        (
            "k3s-vm cp src/a :/nope/x",
            1,
            "/nope does not exist in the guest",
        ),
        (
            "k3s-vm cp src/a :/nope/",
            1,
            "/nope/ does not exist in the guest",
        ),
        (
            "k3s-vm cp :/etc/hostname nope/x",
            1,
            "nope does not exist on this host",
        ),
        (
            "k3s-vm cp :/etc/hostname nope/",
            1,
            "nope/ does not exist on this host",
        ),
        (
            "k3s-vm cp src :/etc/hostname",
            1,
            "/etc/hostname is not a directory",
        ),
        ("k3s-vm cp :/srv src/a", 1, "src/a is not a directory"),
        ("k3s-vm cp :/etc/hostname src/sub/../", 0, ""),
        (
            "mkdir src/issue; k3s-vm cp :/etc/issue src",
            1,
            "src/issue by a file",
        ),
        (
            "k3s-vm cp :/dev/null .",
            1,
            "/dev/null is neither a file nor a directory",
        ),
        (
            "k3s-vm cp src/a src/link",
            2,
            "from this host to the guest, or from the guest to this host",
        ),
        ("k3s-vm cp :a :b", 2, "the guest's paths begin with a colon"),
        ("k3s-vm cp src/a", 2, "SRC"),
        (
            "k3s-vm cp src/a :/proc/sys/",
            1,
            "the guest cannot copy it: ",
        ),
        (
            "mkfifo src/s; k3s-vm cp src :/tmp/s",
            0,
            "copied with differences: ",
        ),
    ] {
        story.run(line).exits(code).says(said);
    }
    story
        .run("k3s-vm ssh 'mkdir -p /mnt/s && mount -t tmpfs -o size=1M none /mnt/s'; k3s-vm cp big :/mnt/s/")
        .exits(1)
        .says("the guest's disk is full")
        .never_says("copied");
    story
        .run("k3s-vm ssh 'ls -A /mnt/s; umount /mnt/s'")
        .succeeds()
        .prints("");
    story
        .run("unshare -Urm bash -c 'mkdir small; mount -t tmpfs -o size=1m none small && k3s-vm cp :/root/big small/ || ls -A small | wc -l'")
        .says("No space left on device")
        .says("free space")
        .prints("0");
    story.run("ls -A src back . | grep k3s-vm-cp").exits(1);
}

fn interrupted_copies_leave_nothing(story: &Story) {
    chapter("an interrupted copy leaves nothing");
    story
        .run(
            "k3s-vm ssh 'truncate -s 1G sparse'; k3s-vm cp :sparse half & \
             wait_until '[ -e .k3s-vm-cp.*/it ]'; kill -INT $!; wait $!; code=$?; ls -A | grep -e half -e cp; exit $code",
        )
        .exits(130)
        .says("interrupted; incomplete files were removed")
        .prints("");
    story
        .run(
            "truncate -s 1G half; k3s-vm cp half : & wait_until \"k3s-vm ssh 'ls -d .k3s-vm-cp.*/it' 2>/dev/null\"; \
             kill -KILL $!; wait $!; code=$?; wait_until \"k3s-vm ssh '! ls -d .k3s-vm-cp.*' 2>/dev/null\"; \
             k3s-vm ssh ls half; rm half; exit $code",
        )
        .exits(137)
        .says("cannot access 'half'");
}

fn a_hostile_guest_writes_nothing_else(story: &Story) {
    chapter("a guest whose tar sends links, and files through them");
    story
        .run(
            "mkdir -p outside evil/1 evil/2/l && ln -s \"$PWD/outside\" evil/1/l && echo x >evil/2/l/x && \
             tar -C evil/1 -cf evil/tar . && tar -C evil/2 -rf evil/tar ./l/x && k3s-vm cp evil/tar :/root/evil.tar && \
             k3s-vm ssh 'printf \"#!/bin/sh\\ncat /root/evil.tar\\n\" >/usr/local/bin/tar; chmod +x /usr/local/bin/tar'",
        )
        .succeeds();
    story
        .run("k3s-vm cp :/etc/ssh got; code=$?; ls -A outside; ls -d got .k3s-vm-cp.*; exit $code")
        .exits(1)
        .says("the guest sent \"./l/x\", which is outside of the copied directory")
        .prints("");
    story.run("k3s-vm ssh rm /usr/local/bin/tar").succeeds();
}

fn a_stopped_vm_is_not_reached(story: &Story) {
    chapter("VMs that are suspended, stopped or gone");
    let everyone = |code: i32, said: &str| {
        for line in [
            "k3s-vm ssh true",
            "k3s-vm ssh-config",
            "k3s-vm cp src/a :/tmp",
            "k3s-vm cp :/etc/hostname .",
        ] {
            story.run(line).exits(code).says(said);
        }
    };
    story.run("k3s-vm stop --suspend").succeeds();
    everyone(3, "is suspended");
    story.run("k3s-vm stop --power-off").succeeds();
    everyone(3, "is stopped");
    story.run("k3s-vm reset --yes").succeeds();
    everyone(4, "there is no VM in ");
}

fn exit_codes_are_those_of_the_command(story: &Story) {
    chapter("exit codes, pipes that end early, and both ways at once");
    story.run("k3s-vm ssh exit 7").exits(7);
    story.run("k3s-vm ssh 'kill -USR1 $$'").exits(128 + 10);
    story.run("k3s-vm ssh yes | head -n 1").exits(141).says("y");
    story
        .run("truncate -s 30M zeros && k3s-vm ssh true <zeros; code=$?; rm zeros; exit $code")
        .succeeds();
    story
        .run("head -c 12M /dev/urandom >bytes && k3s-vm ssh cat <bytes | cmp - bytes; rm bytes")
        .succeeds();
    story
        .run("k3s-vm ssh -t tty")
        .says("warning: no terminal for the command: stdin is not a terminal")
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
    // The second signal is sent when the first has reached the command, which continues.
    story
        .run(
            "mkfifo ready; k3s-vm ssh 'trap echo TERM; echo; while :; do sleep 0.1 4321; done' >ready & exec 3<ready; \
             read -r line <&3; kill -TERM $!; read -r line <&3; kill -TERM $!; wait $!; code=$?; rm ready; exit $code",
        )
        .exits(137);
    story.run("k3s-vm ssh \"pgrep -f '432[1]'\"").exits(1);
    found("no command is left");
}

fn terminals_have_the_same_size(story: &Story) {
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

fn the_agent_is_forwarded(story: &Story) {
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
        .run("k3s-vm ssh-config --name vm | ssh -F /dev/stdin vm exit 3")
        .exits(3);
    assert_eq!(mode(&story.file("known_hosts")), 0o600);
    story
        .run("k3s-vm ssh-config --name 'a b'")
        .exits(2)
        .says("a host's name takes");

    chapter("a guest that has another host key than the VM is not let near the agent");
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
        let began = Instant::now();
        while !self.shown.contains(text) {
            let in_time = began.elapsed() < Duration::from_secs(120);
            assert!(in_time, "waited in vain for {text:?}: {}", self.shown);
            // The screen itself outlives the program.
            let ended = self.child.try_wait().expect("looked at");
            let mut screen = [PollFd::new(&self.master, PollFlags::IN)];
            let wait = Timespec {
                tv_sec: i64::from(ended.is_none()),
                tv_nsec: 0,
            };
            if poll(&mut screen, Some(&wait)).expect("polled") == 0 {
                assert!(ended.is_none(), "ended without {text:?}: {}", self.shown);
                continue;
            }
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
