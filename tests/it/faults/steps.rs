//! The steps of a command as the kernel sees them, found and disturbed from outside by strace: nothing in the program
//! knows of it, and a step that is new is found like the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::Signal;

use super::sandbox::{Sandbox, eventually, send};
use crate::support::{code, names};

/// The calls that change a file or directory for good.
const FILES: &str = "rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,\
    fsync,fdatasync,ftruncate";
/// The calls that start a child, and those by which the monitor hears a command.
const OTHERS: &str = "clone,clone3,fork,vfork,connect,sendto";

/// One call of a command.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// The system call.
    call: String,
    /// What it is done to: a path, a child's kind, a monitor command.
    subject: String,
    /// All paths that it names.
    paths: Vec<String>,
    /// Whether nothing else in the command is done to the same subject by the same call.
    unique: bool,
    /// How many such calls its thread has made with it.
    nth: usize,
}

/// What is done to a step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Disturbance {
    /// A signal arrives before the kernel does it.
    Signal(Signal),
    /// It fails with that error.
    Error(&'static str),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.call, self.subject)
    }
}

impl Step {
    /// What a command does by that call to that path, to which it is done once or for the first time then.
    pub(super) fn to(call: &str, path: &Path) -> Self {
        let path = path.to_string_lossy().into_owned();
        Self {
            call: call.to_owned(),
            subject: path.clone(),
            paths: vec![path],
            unique: true,
            nth: 1,
        }
    }

    /// Whether it is one that others can see: a file gets or loses its name, a child starts, the monitor gets a command.
    pub(super) fn is_observable(&self) -> bool {
        !self.call.ends_with("sync") && !self.call.starts_with("ftruncate")
    }

    /// Whether it is the same step at another count: what is asked until it is so was asked more or fewer times before it,
    /// and a disturbance has missed it.
    pub(super) fn is_later_or_earlier(&self, other: &Self) -> bool {
        self.to_string() == other.to_string() && self.nth != other.nth
    }

    /// The old and the new name of what is renamed.
    pub(super) fn renames(&self) -> Option<(&Path, &Path)> {
        match self.paths.as_slice() {
            [from, to] if self.call.starts_with("rename") => Some((from.as_ref(), to.as_ref())),
            _ => None,
        }
    }

    /// Whether it puts that file or directory on the disk.
    pub(super) fn flushes(&self, path: &Path) -> bool {
        self.call.ends_with("sync") && self.paths.first().is_some_and(|it| Path::new(it) == path)
    }

    /// Whether it is done to a file or directory.
    pub(super) fn is_of_files(&self) -> bool {
        FILES.split(',').any(|call| call == self.call)
    }
}

/// A command under strace. What it executes in its turn, QEMU above all, is let go of by then.
pub(super) struct Traced {
    strace: Child,
    /// Whether strace is silent about all that is not done to one path.
    of_one_path: bool,
    trace: PathBuf,
    said: PathBuf,
}

impl Traced {
    pub(super) fn start(
        sandbox: &Sandbox,
        command: &Command,
        disturbed: Option<(&Step, Disturbance)>,
    ) -> Self {
        let unique = names(&sandbox.env.path("")).len();
        let [trace, said] =
            ["trace", "said"].map(|kind| sandbox.env.path(&format!("{kind}-{unique}")));
        let mut strace = Command::new("strace");
        strace
            .args([
                "--follow-forks",
                "--detach-on=execve",
                "--interruptible=anywhere",
                "--decode-fds=path",
                "--string-limit=500",
                "--output",
            ])
            .arg(&trace)
            .arg(format!("--trace={FILES},{OTHERS}"));
        if let Some((step, disturbance)) = disturbed {
            let what = match disturbance {
                Disturbance::Signal(signal) => format!("signal={}", signal.as_raw()),
                Disturbance::Error(error) => format!("error={error}"),
            };
            // strace counts the calls of each thread, and threads take turns: a subject is the better mark.
            let when = if step.unique {
                // A rename is known to strace by its old name, others by their last one.
                for path in &step.paths {
                    strace.arg(format!("--trace-path={path}"));
                }
                let once = matches!(disturbance, Disturbance::Signal(Signal::STOP));
                if once { "1" } else { "1+" }.to_owned()
            } else {
                step.nth.to_string()
            };
            strace.arg(format!("--inject={}:{what}:when={when}", step.call));
        }
        strace
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(command.get_current_dir().expect("a project"))
            .env_clear()
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            );
        let mut strace = sandbox.inside(strace);
        let file = File::create(&said).expect("created");
        strace
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("shared"))
            .stderr(file);
        Self {
            strace: strace.spawn().expect("strace runs"),
            of_one_path: disturbed.is_some_and(|(step, _)| step.unique),
            trace,
            said,
        }
    }

    /// What was traced so far.
    fn lines(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(&self.trace).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        lines
            .map(|(pid, rest)| (pid.to_owned(), rest.trim_start().to_owned()))
            .collect()
    }

    /// What the program said so far.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// Waits until the program is stopped by the signal that is its disturbance; its process.
    pub(super) fn stopped(&self) -> u32 {
        let mut stopped = None;
        eventually("the traced command is stopped", || {
            let lines = self.lines();
            stopped = lines
                .into_iter()
                .find(|(_, rest)| rest.starts_with("--- stopped by SIGSTOP"));
            stopped.is_some()
        });
        let (process, _) = stopped.expect("it is stopped");
        process.parse().expect("a number")
    }

    /// Waits for the program's end, which strace makes its own; its exit code, what it said, its steps.
    pub(super) fn finish(mut self) -> (i32, String, Vec<Step>) {
        let mut status = None;
        eventually("the traced command ends", || {
            status = self.strace.try_wait().expect("a child");
            status.is_some()
        });
        let code = code(status.expect("wait until it ends, then run the same command again"));
        (code, self.said(), self.steps())
    }

    fn steps(&self) -> Vec<Step> {
        let lines = self.lines();
        let threads = threads(&lines);
        let mut counts = BTreeMap::new();
        let mut steps: Vec<Step> = Vec::new();
        for (pid, rest) in &lines {
            let Some((call, arguments)) = rest.split_once('(') else {
                continue;
            };
            let of_files = FILES.split(',').any(|it| it == call);
            let known = of_files || OTHERS.split(',').any(|it| it == call);
            if !known || !(self.of_one_path || threads.contains(pid)) {
                continue;
            }
            let nth: &mut usize = counts.entry((pid, call)).or_default();
            *nth += 1;
            let Some(subject) = subject(call, arguments) else {
                continue;
            };
            // Temporary files and what is called after a machine or its directory have other names in each run.
            let own = [".tmp-", "/run/k3s-vm/", "/cache/users/", "/cache/prepared/"];
            steps.push(Step {
                call: call.to_owned(),
                unique: of_files && !own.iter().any(|it| subject.contains(it)),
                subject,
                paths: quoted(arguments),
                nth: *nth,
            });
        }
        let all: Vec<String> = steps.iter().map(Step::to_string).collect();
        for step in &mut steps {
            let name = step.to_string();
            step.unique &= all.iter().filter(|other| **other == name).count() == 1;
        }
        steps
    }
}

/// Ends strace, and the program with it, where a test has failed.
impl Drop for Traced {
    fn drop(&mut self) {
        if self.strace.try_wait().is_ok_and(|status| status.is_none()) {
            send(Signal::TERM, self.strace.id());
            let _ = self.strace.wait();
        }
    }
}

/// The threads of the program: the main one, which is the first to do anything, and those that the kernel started as its
/// threads. Children have no `parent_tid`; what they do is not the program's.
fn threads(lines: &[(String, String)]) -> BTreeSet<String> {
    let mut threads = BTreeSet::from_iter(lines.first().map(|(main, _)| main.clone()));
    for (pid, rest) in lines {
        if let Some((_, tid)) = rest.split_once("=> {parent_tid=[")
            && threads.contains(pid)
        {
            threads.insert(tid.chars().take_while(char::is_ascii_digit).collect());
        }
    }
    threads
}

/// The paths of a call: its texts, else that of its file descriptor.
fn quoted(arguments: &str) -> Vec<String> {
    let between = |marks: &[char]| {
        let parts = arguments.split(marks).skip(1).step_by(2);
        parts.map(str::to_owned).collect::<Vec<_>>()
    };
    let texts = between(&['"']);
    if texts.is_empty() {
        between(&['<', '>'])
    } else {
        texts
    }
}

/// What a call is about; nothing for those that are no step of their own.
fn subject(call: &str, arguments: &str) -> Option<String> {
    match call {
        "connect" => arguments
            .contains("qmp.sock")
            .then(|| "the monitor".to_owned()),
        "sendto" => {
            let command = arguments.split_once(r#"\"execute\":\""#)?.1;
            Some(command.split('\\').next()?.to_owned())
        }
        "clone" | "clone3" | "fork" | "vfork" => {
            (!arguments.contains("CLONE_THREAD")).then(|| "a child".to_owned())
        }
        // The last path is the new name of a renamed file.
        _ => {
            let path = quoted(arguments).pop()?;
            Some(match path.split_once(".tmp-") {
                Some((directory, _)) => format!("{directory}.tmp-"),
                None => path,
            })
        }
    }
}
