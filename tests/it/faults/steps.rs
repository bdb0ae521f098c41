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

use super::scene::{Scene, eventually, send};
use crate::support::names;

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
    /// Whether it is one that others can see: a file gets or loses its name, a child starts, the monitor is told.
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

/// A command under strace.
pub(super) struct Traced {
    strace: Child,
    /// Whether strace is silent about all that is not done to one path.
    of_one_path: bool,
    pid: PathBuf,
    trace: PathBuf,
    said: PathBuf,
}

impl Traced {
    pub(super) fn start(
        scene: &Scene,
        command: &Command,
        disturbed: Option<(&Step, Disturbance)>,
    ) -> Self {
        let unique = names(&scene.env.path("")).len();
        let [pid, trace, said] =
            ["pid", "trace", "said"].map(|kind| scene.env.path(&format!("{kind}-{unique}")));
        let mut strace = Command::new("strace");
        strace
            .args([
                "--follow-forks",
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
                "1+".to_owned()
            } else {
                step.nth.to_string()
            };
            strace.arg(format!("--inject={}:{what}:when={when}", step.call));
        }
        let file = File::create(&said).expect("created");
        strace
            .args(["sh", "-c", "echo $$ > \"$0\"; exec \"$@\""])
            .arg(&pid)
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(command.get_current_dir().expect("a project"))
            .env_clear()
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("shared"))
            .stderr(file);
        Self {
            strace: strace.spawn().expect("strace runs"),
            of_one_path: disturbed.is_some_and(|(step, _)| step.unique),
            pid,
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

    fn main(&self) -> String {
        let pid = fs::read_to_string(&self.pid).unwrap_or_default();
        pid.trim().to_owned()
    }

    /// How the program itself ended, if it has: 130 and the like for signals as a shell tells it.
    fn end(&self) -> Option<i32> {
        let lines = self.lines();
        let main = self.main();
        let (_, last) = lines
            .iter()
            .rev()
            .find(|(pid, rest)| *pid == main && rest.starts_with("+++ "))?;
        match last.strip_prefix("+++ exited with ") {
            Some(code) => code.trim_end_matches(" +++").parse().ok(),
            None if last.contains("SIGKILL") => Some(137),
            None if last.contains("SIGINT") => Some(130),
            None if last.contains("SIGTERM") => Some(143),
            None => Some(-1),
        }
    }

    /// What the program said so far.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    fn has_ended(&self) -> bool {
        self.end().is_some()
    }

    /// Waits for the program's end and lets go of what it has left running; its exit code, what it said, its steps.
    pub(super) fn finish(mut self) -> (i32, String, Vec<Step>) {
        eventually("the traced command ends", || self.has_ended());
        send(Signal::TERM, self.strace.id());
        self.strace.wait().expect("reaped");
        (self.end().expect("it has ended"), self.said(), self.steps())
    }

    fn steps(&self) -> Vec<Step> {
        let (lines, main) = (self.lines(), self.main());
        let threads = threads(&lines, &main);
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

/// The threads of the program: the main one, and those that the kernel started as its threads. Children have no
/// `parent_tid`; what they do is not the program's.
fn threads(lines: &[(String, String)], main: &str) -> BTreeSet<String> {
    let mut threads = BTreeSet::from([main.to_owned()]);
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
