//! Every step of setup, start, stop and reset is the last one of a command once, by SIGKILL, SIGINT and SIGTERM, and every
//! file operation fails once.
//!
//! The steps are not listed here. They are those that strace sees the command make (see `steps`), so a step that is new
//! is a kill point from its first day. Each step has SIGKILL and, in turn, one of the others; `tests/run.sh all` tries all
//! of them.

use std::{collections::BTreeSet, fs, process::Command, thread};

use rustix::process::Signal;

use super::{
    sandbox::{Sandbox, eventually, say},
    steps::{Disturbance, Step, Traced},
    table::row,
};
use crate::support::{all, finish, free_port, names, private_dir, retried, turn};

/// How many scenes of a command are played at the same time; they mostly wait for the disk and for QEMU.
const AT_ONCE: usize = 2;

/// A command to kill: the state in which it begins, and its arguments.
struct Verb {
    name: &'static str,
    prepare: fn(&Sandbox),
    command: fn(&Sandbox) -> Command,
    /// The same command, to its end.
    again: fn(&Sandbox),
}

#[test]
fn setup_at_every_step() {
    at_every_step(&Verb {
        name: "setup",
        prepare: |sandbox| {
            for made in [
                &sandbox.env.cache,
                &sandbox.file(""),
                &sandbox.env.path("run/k3s-vm"),
            ] {
                let _ = fs::remove_dir_all(made);
            }
        },
        command: |sandbox| sandbox.setup(&["--timeout", "1s", "--api-port", &port(sandbox)]),
        again: |sandbox| sandbox.continues(sandbox.setup(&[])),
    });
}

#[test]
fn setup_from_a_prepared_memory_at_every_step() {
    at_every_step(&Verb {
        name: "setup from a prepared memory",
        prepare: Sandbox::has_template_memory,
        command: |sandbox| sandbox.setup(&["--timeout", "1s", "--api-port", &port(sandbox)]),
        again: |sandbox| sandbox.continues(sandbox.setup(&[])),
    });
}

#[test]
fn setup_from_a_template_at_every_step() {
    at_every_step(&Verb {
        name: "setup from a template",
        prepare: |sandbox| {
            let config = format!("api_port = {}\nshare_identity = true\n", port(sandbox));
            fs::write(sandbox.file("config"), config).expect("written");
            sandbox.has_template_memory();
        },
        command: |sandbox| sandbox.setup(&["--timeout", "1s"]),
        again: |sandbox| {
            let setup = finish(sandbox.setup(&["--timeout", "1s"]));
            assert_eq!(setup.code, 1, "{setup:?}");
            assert!(!setup.stderr.contains("boots"), "{setup:?}");
            assert_eq!(sandbox.status()["process"]["run_state"], "running");
        },
    });
}

#[test]
fn start_at_every_step() {
    at_every_step(&Verb {
        name: "start",
        prepare: Sandbox::stopped,
        command: |sandbox| sandbox.env.command(&["start", "--timeout", "1s"]),
        again: |sandbox| sandbox.continues(sandbox.env.command(&["start"])),
    });
}

#[test]
fn stop_at_every_step() {
    at_every_step(&Verb {
        name: "stop",
        prepare: running,
        command: |sandbox| sandbox.env.command(&["stop", "--timeout", "1s"]),
        again: |sandbox| drop(sandbox.env.ok(&["stop", "--timeout", "1s"])),
    });
}

#[test]
fn reset_at_every_step() {
    at_every_step(&Verb {
        name: "reset",
        prepare: running,
        command: |sandbox| sandbox.env.command(&["reset", "--yes"]),
        again: |_| {},
    });
}

#[test]
fn suspend_at_every_step() {
    at_every_step(&Verb {
        name: "stop --suspend",
        prepare: |sandbox| {
            sandbox.runs();
            hide_key(sandbox);
        },
        command: |sandbox| sandbox.env.command(&["stop", "--suspend"]),
        again: lives_on,
    });
}

#[test]
fn resume_at_every_step() {
    at_every_step(&Verb {
        name: "start of a suspended VM",
        prepare: |sandbox| {
            sandbox.runs();
            hide_key(sandbox);
            assert_eq!(sandbox.suspend().code, 0);
            show_key(sandbox);
        },
        command: |sandbox| sandbox.env.command(&["start", "--timeout", "1s"]),
        again: lives_on,
    });
}

/// Without its key, no command waits for a guest that does not answer.
fn hide_key(sandbox: &Sandbox) {
    fs::rename(sandbox.file("id_ed25519"), sandbox.env.path("key")).expect("moved");
}

fn show_key(sandbox: &Sandbox) {
    let _ = fs::rename(sandbox.env.path("key"), sandbox.file("id_ed25519"));
}

/// The guest that ran before the command runs again, in its old QEMU or from its memory, and never boots.
fn lives_on(sandbox: &Sandbox) {
    show_key(sandbox);
    let qemu = sandbox.env.pid();
    let start = sandbox.env.run(&["start", "--timeout", "1s"]);
    assert_eq!(start.code, 1, "{start:?}");
    assert!(!start.stderr.contains("instead of resuming"), "{start:?}");
    assert_eq!(sandbox.status()["process"]["run_state"], "running");
    sandbox.state_is_gone();
    let resumed = sandbox
        .processes()
        .iter()
        .any(|it| it.contains(" -incoming "));
    assert!(
        resumed || (qemu.is_some() && qemu == sandbox.env.pid()),
        "{start:?}"
    );
}

/// The scene's own port: machines that start at once race for the usual one, and need further steps for another.
fn port(sandbox: &Sandbox) -> String {
    fs::read_to_string(sandbox.env.path("port")).expect("noted by `play`")
}

/// A machine that runs and that no command is at work on.
fn running(sandbox: &Sandbox) {
    let setup = sandbox.booting();
    setup.signal(Signal::KILL);
    setup.end();
}

/// What is done to every step, and the exit code that shows that it was reached.
const DISTURBANCES: [(&str, Disturbance, i32); 4] = [
    ("SIGKILL", Disturbance::Signal(Signal::KILL), 137),
    ("SIGINT", Disturbance::Signal(Signal::INT), 130),
    ("SIGTERM", Disturbance::Signal(Signal::TERM), 143),
    ("EIO", Disturbance::Error("EIO"), 1),
];

/// Disturbs the command at each of its steps, in each way.
fn at_every_step(verb: &Verb) {
    let counts: Vec<[usize; 4]> = thread::scope(|scope| {
        let players: Vec<_> = (0..AT_ONCE)
            .map(|turn| scope.spawn(move || play(verb, turn)))
            .collect();
        let counts = players
            .into_iter()
            .map(|player| player.join().expect("survived"));
        counts.collect()
    });
    let sum = |nth| counts.iter().map(|counts| counts[nth]).sum();
    print_counts(verb.name, std::array::from_fn(sum));
}

/// The steps to which only a guest with a cluster comes: its kubeconfig is fetched and written. A command that is killed there leaves
/// a machine that runs, and that the next start finds well.
pub(super) fn arriving_at_every_step(sandbox: &Sandbox) {
    let arriving = || {
        fs::remove_file(sandbox.env.project.join(".kube/config"))
            .expect("written by the last start");
        sandbox.env.command(&["start"])
    };
    let (_, _, steps) = Traced::start(sandbox, &arriving(), None).finish();
    let steps = distinct(steps);
    let points = points(&steps);
    for &(step, nth) in &points {
        let (name, disturbance, code) = DISTURBANCES[nth];
        let (ended, said, _) =
            Traced::start(sandbox, &arriving(), Some((step, disturbance))).finish();
        let what = format!("start of a running machine, {name} at {step}");
        say(&format!("    {what}: {ended}"));
        expect_end(
            (ended, &said),
            code,
            is_closing(step, &steps).then_some(0),
            &what,
        );
        sandbox.env.ok(&["start"]);
        sandbox.env.ok(&["status"]);
    }
    print_counts("a start that finds its guest running", counts(&points));
}

/// Which step is disturbed in which way.
fn points(steps: &[Step]) -> Vec<(&Step, usize)> {
    let others = |step: &Step| -> Vec<usize> {
        let others = 1..DISTURBANCES.len();
        others
            .filter(|&nth| is_tried(step, DISTURBANCES[nth].1))
            .collect()
    };
    let mut points = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let others = others(step);
        let in_turn = (at + turn()) % others.len().max(1);
        points.push((step, 0));
        let tried = others.into_iter().enumerate();
        points.extend(
            tried.filter_map(|(its, nth)| (all() || its == in_turn).then_some((step, nth))),
        );
    }
    points
}

/// How many points there are by disturbance.
fn counts(points: &[(&Step, usize)]) -> [usize; 4] {
    let mut counts = [0; DISTURBANCES.len()];
    for &(_, nth) in points {
        counts[nth] += 1;
    }
    counts
}

fn print_counts(command: &str, counts: [usize; 4]) {
    for ((name, _, code), count) in DISTURBANCES.iter().zip(counts) {
        let said = format!("{count} points, all survived");
        row(
            &format!("{name} at each step of {command}"),
            *code,
            &said,
            &[],
        );
    }
}

fn is_tried(step: &Step, disturbance: Disturbance) -> bool {
    match disturbance {
        Disturbance::Signal(Signal::KILL) => true,
        // What is flushed makes a difference after a power cut only.
        Disturbance::Signal(_) => step.is_observable(),
        Disturbance::Error(_) => step.is_of_files(),
    }
}

/// Every so many-th point, in a scene of its own; how many there were by disturbance.
fn play(verb: &Verb, turn: usize) -> [usize; 4] {
    let sandbox = Sandbox::new();
    private_dir(&sandbox.file(""));
    // It is made once, and what follows is the same each time.
    let key = sandbox.env.path("home/.config/k3s-vm/key");
    fs::create_dir_all(key.parent().expect("a directory")).expect("created");
    fs::write(&key, format!("{}=\n", "A".repeat(43))).expect("written");
    let own = free_port();
    fs::write(sandbox.env.path("port"), own.to_string()).expect("written");
    let config = format!("api_port = {own}\n");
    fs::write(sandbox.file("config"), config).expect("written");
    (verb.prepare)(&sandbox);
    let undisturbed = Traced::start(&sandbox, &(verb.command)(&sandbox), None).finish();
    let steps = distinct(undisturbed.2);
    assert!(!steps.is_empty(), "strace sees no step of {}", verb.name);
    let mine: Vec<_> = points(&steps)
        .into_iter()
        .skip(turn)
        .step_by(AT_ONCE)
        .collect();
    // On a busy host a command may reach its own limit before a late step: once, that does not count.
    let mut unreached = 0;
    for &(step, nth) in &mine {
        let (name, disturbance, code) = DISTURBANCES[nth];
        let what = format!("{}, {name} at {step}", verb.name);
        let closing = is_closing(step, &steps).then_some(undisturbed.0);
        let mut step = step.clone();
        for last in [false, false, false, false, true] {
            let (ended, said, seen) = ends_at(verb, &sandbox, &step, disturbance, &what);
            let missed = !is_end((ended, &said), code, closing);
            if last && missed && unreached == 0 && said.contains("not done within 1s") {
                unreached += 1;
                retried(&format!("{what} was not reached in time"));
                break;
            }
            if last || !missed {
                expect_end((ended, &said), code, closing, &what);
                break;
            }
            retried(&format!("{what} was missed: {ended}"));
            // What QEMU is asked every so often has been asked more or fewer times before it.
            let found = seen.into_iter().find(|it| it.is_later_or_earlier(&step));
            step = found.unwrap_or(step);
        }
    }
    counts(&mine)
}

/// Whether all work is done before that step: QEMU is asked for its last words and told to end, or the record is saved
/// for the last time, and what follows is tidied up at once.
fn is_closing(step: &Step, steps: &[Step]) -> bool {
    let position = |is_so: &dyn Fn(&Step) -> bool| steps.iter().rposition(is_so);
    let says = |at: usize, what| steps[at].to_string() == what;
    let last_work = position(&|it| it.to_string() == "sendto quit")
        .map(|quit| quit - usize::from(quit > 0 && says(quit - 1, "sendto query-chardev")))
        .or_else(|| position(&|it| it.to_string().ends_with("/record.json")));
    position(&|it| std::ptr::eq(it, step)) >= last_work
}

/// The disturbance ends the command, and an error that it is of says so. In its closing steps, which are not worth a
/// failure, a command may come to the end that it comes to undisturbed.
fn is_end((ended, said): (i32, &str), code: i32, closing: Option<i32>) -> bool {
    let of_it = ended == code && (code != 1 || said.contains("Input/output error"));
    of_it || (code != 137 && closing == Some(ended))
}

#[track_caller]
fn expect_end((ended, said): (i32, &str), code: i32, closing: Option<i32>, what: &str) {
    assert!(
        is_end((ended, said), code, closing),
        "{what}: {ended}: {said}"
    );
}

/// Each step once: a monitor that is asked again and again is one step.
fn distinct(steps: Vec<Step>) -> Vec<Step> {
    let mut seen = BTreeSet::new();
    steps
        .into_iter()
        .filter(|step| step.is_of_files() || seen.insert(step.to_string()))
        .collect()
}

fn ends_at(
    verb: &Verb,
    sandbox: &Sandbox,
    step: &Step,
    disturbance: Disturbance,
    what: &str,
) -> (i32, String, Vec<Step>) {
    let _ = sandbox.env.run(&["reset", "--yes"]);
    (verb.prepare)(sandbox);
    let command = (verb.command)(sandbox);
    let (ended, said, steps) = Traced::start(sandbox, &command, Some((step, disturbance))).finish();
    let error = said.lines().find(|line| line.starts_with("error:"));
    say(&format!(
        "    {what}: {ended}: {}",
        error.unwrap_or_default()
    ));
    status_is_true(sandbox, what);
    (verb.again)(sandbox);
    sandbox.env.ok(&["reset", "--yes"]);
    sandbox.nothing_runs();
    let keeps = [".gitignore", "approved", "config", "id", "lock"];
    let kept = names(&sandbox.file(""));
    assert!(
        kept.iter().all(|name| keeps.contains(&name.as_str())),
        "{what}: {kept:?}"
    );
    (ended, said, steps)
}

/// Running is what has a process, and nothing else is.
fn status_is_true(sandbox: &Sandbox, what: &str) {
    eventually(&format!("{what}: status tells the truth"), || {
        let runs = !sandbox.processes().is_empty();
        let status = sandbox.env.run(&["status"]);
        runs == (status.code == 5) && [3, 4, 5].contains(&status.code)
    });
}
