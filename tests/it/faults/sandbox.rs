//! Where a fault happens: a project whose setup would come to a guest that boots nothing, unless the fault is before.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

use k3s_vm::base::Digest;
use rustix::process::{Pid, Signal, kill_process};

use super::{
    small,
    table::{record_stopped_fault, temporary_files},
};
use crate::support::{Ended, TestEnv, VERSION, code, dead_image, finish, names};

/// What none of the tests comes near to, even on a busy host.
const PATIENCE: Duration = Duration::from_secs(180);

/// A project with everything that a setup needs.
pub(super) struct Sandbox {
    pub(super) env: TestEnv,
    pub(super) image: PathBuf,
    pub(super) mirror: PathBuf,
    /// The process whose mount table its commands see, if it is not the usual one.
    pub(super) mounts: Option<u32>,
}

impl Sandbox {
    pub(super) fn new() -> Self {
        Self::named("project")
    }

    pub(super) fn named(project: &str) -> Self {
        let env = TestEnv::named(project);
        let image = dead_image(&env.path("dead.img"));
        let mirror = env.path("mirror");
        small_release(&mirror.join(VERSION));
        Self {
            env,
            image,
            mirror,
            mounts: None,
        }
    }

    /// `setup` of that project, with further flags.
    pub(super) fn setup(&self, flags: &[&str]) -> Command {
        self.setup_from(&format!("file://{}", self.mirror.display()), flags)
    }

    /// The same, with releases from `mirror`.
    pub(super) fn setup_from(&self, mirror: &str, flags: &[&str]) -> Command {
        let mut command = self.env.command(&["setup"]);
        // What comes last holds, and the image is nearly always the same.
        if !flags.contains(&"--image") {
            command.arg("--image").arg(&self.image);
        }
        for (flag, value) in [
            ("--k3s-mirror", mirror),
            ("--k3s-version", VERSION),
            ("--memory", "1GiB"),
            ("--accel", "tcg"),
            ("--timeout", "5m"),
        ] {
            if !flags.contains(&flag) {
                command.args([flag, value]);
            }
        }
        command.args(flags);
        self.inside(command)
    }

    /// A file of `.k3s-vm/`.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.seen(&self.env.project).join(".k3s-vm").join(name)
    }

    /// Where a path of the scene's mount table is seen from here.
    pub(super) fn seen(&self, path: &Path) -> PathBuf {
        match self.mounts {
            None => path.to_owned(),
            Some(keeper) => small::seen(keeper, path),
        }
    }

    /// The command, where the scene's file systems are.
    pub(super) fn inside(&self, command: Command) -> Command {
        match self.mounts {
            None => command,
            Some(keeper) => small::enter(&self.env, keeper, &command),
        }
    }

    /// `setup` in the background, once its QEMU is at work.
    pub(super) fn booting(&self) -> Background {
        let setup = Background::start(self, self.setup(&[]));
        eventually("the VM runs", || {
            self.status()["process"]["run_state"] == "running"
        });
        setup
    }

    /// A machine that is there and does not run.
    pub(super) fn stopped(&self) {
        let setup = self.booting();
        setup.signal(Signal::INT);
        assert_eq!(setup.end().code, 130);
        assert_eq!(self.state(), "stopped");
    }

    /// Without the fault the same command comes to where QEMU runs, and is ended there.
    #[track_caller]
    pub(super) fn continues(&self, command: Command) {
        let ended = self.comes_to_boot(command);
        assert_eq!(self.left(), Vec::<String>::new(), "{ended:?}");
    }

    /// The same in spite of the fault.
    #[track_caller]
    pub(super) fn survives(&self, fault: &str, command: Command, words: &[&str]) -> Ended {
        let mut ended = self.comes_to_boot(command);
        // The rest is the test's own doing.
        let own = ended.stderr.find("error: interrupted");
        ended.stderr.truncate(own.expect("interrupted"));
        record_stopped_fault(self, fault, &ended);
        for word in words {
            let stderr = &ended.stderr;
            assert!(
                stderr.contains(word),
                "{fault}: {word:?} is not in\n{stderr}"
            );
        }
        ended
    }

    #[track_caller]
    fn comes_to_boot(&self, command: Command) -> Ended {
        let command = Background::start(self, command);
        eventually("the VM runs", || {
            assert!(command.is_running(), "{}", command.said());
            self.status()["process"]["run_state"] == "running" && command.said() != ""
        });
        command.signal(Signal::INT);
        let ended = command.end();
        assert_eq!(ended.code, 130);
        ended
    }

    pub(super) fn status(&self) -> serde_json::Value {
        let ended = finish(self.inside(self.env.command(&["status", "--json"])));
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
    }

    fn state(&self) -> String {
        self.status()["state"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Nothing is left behind: see [`Sandbox::left`].
    #[track_caller]
    pub(super) fn nothing_runs(&self) {
        assert_eq!(self.left(), Vec::<String>::new());
    }

    /// What a command that has ended should not have left: processes, sockets, temporary files, a held lock.
    pub(super) fn left(&self) -> Vec<String> {
        let mut left = self.processes();
        left.extend(names(&self.env.path("run/k3s-vm")));
        left.extend(temporary_files(&self.seen(&self.env.project)));
        left.extend(temporary_files(&self.seen(&self.env.cache)));
        let lock = File::open(self.file("lock"));
        if lock.is_ok_and(|lock| lock.try_lock_shared().is_err()) {
            left.push("a held lock".to_owned());
        }
        left
    }

    /// The command lines in which the project occurs, as the kernel has them.
    pub(super) fn processes(&self) -> Vec<String> {
        let project = self.env.project.to_string_lossy().into_owned();
        let all = fs::read_dir("/proc").expect("Linux").flatten();
        all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains(&project))
            .collect()
    }

    /// Runs `command` and expects it to fail with that exit code and with all of `words`, leaving nothing running.
    #[track_caller]
    pub(super) fn fails(&self, fault: &str, command: Command, code: i32, words: &[&str]) -> Ended {
        let ended = finish(command);
        record_stopped_fault(self, fault, &ended);
        assert_eq!(ended.code, code, "{fault}: {}", ended.stderr);
        for word in words {
            assert!(
                ended.stderr.contains(word),
                "{fault}: {word:?} is not in\n{}",
                ended.stderr
            );
        }
        assert_eq!(ended.stdout, "", "{fault}: a pipe gets nothing");
        ended
    }
}

/// A line for those who watch.
#[expect(
    clippy::print_stdout,
    reason = "`--nocapture` shows what the faults say"
)]
pub(super) fn say(line: &str) {
    println!("{line}");
}

/// A command that runs while the test continues. It is ended when this is dropped.
pub(super) struct Background {
    child: Child,
    stderr: PathBuf,
}

impl Background {
    pub(super) fn start(sandbox: &Sandbox, mut command: Command) -> Self {
        let unique = names(&sandbox.env.path("")).len();
        let stderr = sandbox.env.path(&format!("stderr-{unique}"));
        let file = File::create(&stderr).expect("created");
        let stdout = file.try_clone().expect("shared");
        let child = command
            .stdout(stdout)
            .stderr(file)
            .spawn()
            .expect("the program runs");
        Self { child, stderr }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn said(&self) -> String {
        fs::read_to_string(&self.stderr).expect("readable")
    }

    /// Returns once the command has said that.
    #[track_caller]
    pub(super) fn says(&self, text: &str) {
        eventually(text, || self.said().contains(text));
    }

    pub(super) fn is_running(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // The state stands behind the name (proc_pid_stat(5)); a zombie has ended.
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    pub(super) fn signal(&self, signal: Signal) {
        send(signal, self.pid());
    }

    /// How it ended; it has to within [`PATIENCE`].
    #[track_caller]
    pub(super) fn end(self) -> Ended {
        self.end_within(PATIENCE)
    }

    /// The same, for one that has much before it.
    #[track_caller]
    pub(super) fn end_within(mut self, patience: Duration) -> Ended {
        within(patience, "the command ends", || !self.is_running());
        let status = self.child.wait().expect("reaped");
        Ended {
            code: code(status),
            stdout: String::new(),
            stderr: self.said(),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that the test knows to be its own or its QEMU.
pub(super) fn send(signal: Signal, pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
    kill_process(pid, signal).expect("signalled");
}

/// Returns once it is so; a test that waits for [`PATIENCE`] has failed.
#[track_caller]
pub(super) fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    within(PATIENCE, what, is_so);
}

/// The same within another limit.
#[track_caller]
pub(super) fn within(patience: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < patience, "in vain waited for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A release of which nothing is ever run.
fn small_release(directory: &Path) {
    let binary: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
    fs::create_dir_all(directory).expect("created");
    let sums = format!("{}  k3s\n", Digest::of(&binary));
    fs::write(directory.join("sha256sum-amd64.txt"), sums).expect("written");
    fs::write(directory.join("k3s"), binary).expect("written");
}

/// A program of the test's own, in a directory for the `PATH`.
pub(super) fn program(sandbox: &Sandbox, name: &str, script: &str) -> OsString {
    let directory = sandbox.env.path("bin");
    fs::create_dir_all(&directory).expect("created");
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made a program");
    directory.into()
}

/// The same command under another mount table, which `script` changes before it runs `"$@"`. As root, or in a user
/// namespace where there is no root.
pub(super) fn in_other_mounts(sandbox: &Sandbox, command: &Command, script: &str) -> Command {
    let mut unshare = sandbox.env.tool("unshare");
    let variables = command.get_envs();
    unshare
        .env_clear()
        .envs(variables.filter_map(|(name, value)| Some((name, value?))))
        .args(["--map-root-user", "--mount", "sh", "-ec", script, "sh"])
        .arg(command.get_program())
        .args(command.get_args().map(OsStr::to_owned));
    unshare
}
