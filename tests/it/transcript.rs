//! A test that prints its steps: each command line as a person would type it, what it printed, how it ended.
//! `cargo test -- --nocapture` shows it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use crate::support::{COMMAND_TIMEOUT, Ended, TestEnv, finish_showing, program};

/// `wait_until CONDITION` for each line of shell, and for the shells that it starts. It has a deadline, after which it ends
/// the line and what the line has begun in the background.
const WAIT_UNTIL: &str = r#"() {
    local deadline=$((SECONDS + 300))
    until eval "$1"; do
        if ((SECONDS >= deadline)); then
            echo "waited in vain for: $1" >&2
            kill -KILL $(jobs -p) 2>/dev/null
            exit 124
        fi
        sleep 0.05
    done
}"#;

/// A healthy guest's clock is off by that many seconds at most: `CLOCK_SKEW` of the program, and one for a fraction that a
/// clock of whole seconds does not tell.
pub(crate) const CLOCK_SKEW: u64 = 5 + 1;
/// A pause of that length is seen in a guest's clock that was not set.
pub(crate) const LONG_PAUSE: Duration = Duration::from_secs(CLOCK_SKEW + 2);

/// A user at a shell, whose `PATH` has the built program as `k3s-vm`.
pub(crate) struct Story {
    pub(crate) env: TestEnv,
    path: String,
    limit: Duration,
}

/// What came of a command line.
#[derive(Debug)]
pub(crate) struct Told {
    line: String,
    pub(crate) ended: Ended,
    /// By the clock.
    pub(crate) seconds: f64,
}

impl Story {
    /// In a new project directory of that name.
    pub(crate) fn begin(project: &str) -> Self {
        let env = TestEnv::named(project);
        let bin = env.path("bin");
        std::fs::create_dir(&bin).expect("created");
        std::os::unix::fs::symlink(program(), bin.join("k3s-vm")).expect("linked");
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", bin.display());
        Self {
            env,
            path,
            limit: COMMAND_TIMEOUT,
        }
    }

    /// With another limit of each command line.
    pub(crate) fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// With the programs of `directory` before all others.
    pub(crate) fn with_programs_of(self, directory: &Path) -> Self {
        let before = |path: &str| format!("{}:{path}", directory.display());
        let path = before(&self.path);
        let mut env = self.env;
        env.programs = before(&env.programs.to_string_lossy()).into();
        Self { env, path, ..self }
    }

    /// With a QEMU whose options a few lines of bash change before it starts.
    pub(crate) fn with_changed_qemu(self, change: &str) -> Self {
        let directory = self.env.path("changed-qemu");
        fs::create_dir(&directory).expect("created");
        let program = directory.join("qemu-system-x86_64");
        // The next one on the PATH.
        let next = "exec \"$(type -aP qemu-system-x86_64 | sed -n 2p)\" \"$@\"";
        let script = format!("#!/bin/bash\n{change}\n{next}\n");
        fs::write(&program, script).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
        self.with_programs_of(&directory)
    }

    /// Runs a line of shell in the project's directory and shows it with its output.
    pub(crate) fn run(&self, line: &str) -> Told {
        say(&format!("\n  $ {line}"));
        let mut shell = self.env.tool("bash");
        shell
            .args(["-o", "pipefail", "-c", line])
            .env("PATH", &self.path)
            // A function, as bash exports it.
            .env("BASH_FUNC_wait_until%%", WAIT_UNTIL);
        let began = Instant::now();
        let show = |line: &str| say(&format!("    {}", line.trim_end()));
        let ended = finish_showing(shell, self.limit, show);
        let seconds = began.elapsed().as_secs_f64();
        say(&format!("  = {} in {seconds:.1} s", ended.code));
        Told {
            line: line.to_owned(),
            ended,
            seconds,
        }
    }

    /// Returns once the condition, a line of shell, holds. It has two minutes.
    #[track_caller]
    pub(crate) fn until(&self, condition: &str) {
        // Not within quotes: it has some of its own.
        let line = format!("condition() {{ {condition}; }}; wait_until condition");
        self.run(&line).succeeds();
    }

    /// The guest knows the time.
    #[track_caller]
    pub(crate) fn knows_the_time(&self) {
        is_the_time(CLOCK_SKEW, || {
            self.run("k3s-vm ssh date +%s").succeeds().ended.stdout
        });
        found("the guest knows the time");
    }

    /// A file of the machine.
    pub(crate) fn file(&self, name: &str) -> std::path::PathBuf {
        self.env.project.join(".k3s-vm").join(name)
    }

    /// The running machine's QEMU.
    pub(crate) fn qemu(&self) -> i32 {
        self.env.pid().expect("QEMU runs and has a pidfile")
    }

    /// The machine as `status --json` describes it.
    pub(crate) fn status(&self) -> serde_json::Value {
        let told = self.env.run(&["status", "--json"]);
        serde_json::from_str(&told.stdout).expect("one JSON document")
    }
}

impl Told {
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.ended.code, code, "`{}`: {:#?}", self.line, self.ended);
        self
    }

    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        self.exits(0)
    }

    /// To people or to a pipe.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        let said = self.ended.stdout.contains(text) || self.ended.stderr.contains(text);
        assert!(said, "`{}` says {text:?}: {:#?}", self.line, self.ended);
        self
    }

    #[track_caller]
    pub(crate) fn never_says(self, text: &str) -> Self {
        let said = self.ended.stdout.contains(text) || self.ended.stderr.contains(text);
        assert!(
            !said,
            "`{}` never says {text:?}: {:#?}",
            self.line, self.ended
        );
        self
    }

    /// To a pipe, and nothing else.
    #[track_caller]
    pub(crate) fn prints(self, line: &str) -> Self {
        assert_eq!(self.ended.stdout.trim_end(), line, "`{}`", self.line);
        self
    }
}

/// The guest prints a time of day in seconds, between the question and the answer; it may be off by so many.
#[track_caller]
pub(crate) fn is_the_time(off: u64, ask: impl FnOnce() -> String) {
    let now = || {
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
        now.as_secs()
    };
    let asked = now();
    let told: u64 = ask().trim().parse().expect("seconds");
    let answered = now();
    let right = asked - off..=answered + off;
    assert!(right.contains(&told), "{asked}, {told}, {answered}");
}

/// A part of the story.
pub(crate) fn chapter(title: &str) {
    say(&format!("\n━━ {title}"));
}

/// What was looked at and found to be so.
pub(crate) fn found(fact: &str) {
    say(&format!("  ✓ {fact}"));
}

#[expect(
    clippy::print_stderr,
    reason = "shown to the person who runs the tests; the harness captures it otherwise"
)]
fn say(line: &str) {
    eprintln!("{line}");
}
