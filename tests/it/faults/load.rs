//! Many commands at once on one machine, and many machines at once on one host.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, TryRecvError, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    machines::Elsewhere,
    sandbox::{Background, Sandbox, eventually, say},
    table::row,
};
use crate::support::Ended;

const COMMANDS: usize = 50;
const MACHINES: usize = 20;
/// Ten boots of a guest that boots nothing come one after the other.
const PATIENCE: Duration = Duration::from_secs(300);

#[test]
fn fifty_commands_at_once() {
    let sandbox = Sandbox::new();
    // A QEMU that a killed setup left behind is in the game from the beginning.
    sandbox.left_running();
    let began = Instant::now();
    let commands: Vec<_> = (0..COMMANDS)
        .map(|number| {
            let verb = ["status", "setup", "start", "stop", "reset"][number % 5];
            let command = match verb {
                "status" => sandbox.env.command(&["status", "--json"]),
                "setup" => sandbox.setup(&["--timeout", "1s"]),
                "start" => sandbox.env.command(&["start", "--timeout", "1s"]),
                "stop" => sandbox.env.command(&["stop", "--timeout", "1s"]),
                _ => sandbox.env.command(&["reset", "--yes"]),
            };
            (verb, Background::start(&sandbox, command))
        })
        .collect();
    let (at_work, over) = channel();
    let (looks, slowest, states) = thread::scope(|scope| {
        let sandbox = &sandbox;
        let reader = scope.spawn(move || read_until(sandbox, &over));
        // Dropped also when an assertion fails.
        let at_work = at_work;
        let mut ends: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (verb, command) in commands {
            let ended = command.end_within(PATIENCE);
            ends.entry(verb).or_default().push(ended.code);
            expect_end(verb, &ended);
        }
        drop(at_work);
        say(&format!("  {ends:?}"));
        reader.join().expect("the reader saw nothing wrong")
    });
    say(&format!(
        "  {COMMANDS} commands in {:.1?}, meanwhile {looks} looks, the slowest of {slowest:.1?}, at {states:?}",
        began.elapsed()
    ));
    assert!(states.len() > 1, "there was something to see: {states:?}");
    let last = sandbox.env.ok(&["reset", "--yes"]);
    let fault = format!("{COMMANDS} commands at once on one VM");
    row(
        &fault,
        last.code,
        "each ends as if it were alone",
        &sandbox.left(),
    );
    sandbox.nothing_runs();
    sandbox.continues(sandbox.setup(&[]));
}

/// The expected ends of a command that ran among others: the guest boots nothing, so that no setup
/// succeeds.
#[track_caller]
fn expect_end(verb: &str, ended: &Ended) {
    let (codes, word): (&[i32], &str) = match verb {
        "status" => (&[3, 4, 5], ""),
        "setup" => (&[1], "the VM was not ready within 1s"),
        "start" if ended.code == 4 => (&[4], "there is no VM in"),
        "start" => (&[1], "the VM was not ready within 1s"),
        "stop" if ended.code == 4 => (&[4], "there is no VM in"),
        "stop" => (&[0], "stopped"),
        _ => (&[0], "deleted the VM"),
    };
    assert!(codes.contains(&ended.code), "{verb}: {ended:?}");
    assert!(ended.stderr.contains(word), "{verb}: {ended:?}");
}

/// Reads the status of the VM until no command is running any more; each look is of one of the states that there are, and waits for
/// none of the commands.
fn read_until(sandbox: &Sandbox, over: &Receiver<()>) -> (usize, Duration, BTreeSet<String>) {
    let (mut looks, mut slowest, mut states) = (0, Duration::ZERO, BTreeSet::new());
    while over.try_recv() != Err(TryRecvError::Disconnected) {
        let began = Instant::now();
        let look = sandbox.env.run(&["status", "--json"]);
        let took = began.elapsed();
        let status: serde_json::Value =
            serde_json::from_str(&look.stdout).unwrap_or_else(|error| panic!("{error}: {look:?}"));
        let state = status["state"].as_str().unwrap_or_default().to_owned();
        let (code, machine, process) = match state.as_str() {
            "absent" => (4, false, false),
            "stopped" => (3, true, false),
            _ => (5, true, true),
        };
        assert_eq!(look.code, code, "{look:?}");
        assert_eq!(status["machine"].is_object(), machine, "{look:?}");
        assert_eq!(status["process"].is_object(), process, "{look:?}");
        assert_eq!(status["healthy"], false, "{look:?}");
        assert!(!look.stderr.contains("waiting for"), "{look:?}");
        states.insert(state);
        slowest = slowest.max(took);
        looks += 1;
    }
    (looks, slowest, states)
}

#[test]
fn twenty_vms_on_one_host() {
    let sandbox = Sandbox::new();
    let image = halting_image(&sandbox.env.path("halt.img"));
    let image = image.display().to_string();
    let machines: Vec<_> = (1..=MACHINES)
        .map(|number| {
            let project = sandbox.env.path(&format!("project-{number}"));
            fs::create_dir(&project).expect("created");
            sandbox.elsewhere(project)
        })
        .collect();
    let began = Instant::now();
    let setups: Vec<_> = machines
        .iter()
        .map(|machine| {
            let flags = ["--image", &image, "--cpus", "1"];
            Background::start(&sandbox, machine.here(sandbox.setup(&flags)))
        })
        .collect();
    for (machine, setup) in machines.iter().zip(&setups) {
        let console = machine.project.join(".k3s-vm/console.log");
        eventually("the boot sector speaks", || {
            assert!(setup.is_running(), "{}", setup.said());
            fs::read(&console).is_ok_and(|said| said == b"k")
        });
    }
    let booted = began.elapsed();
    let told: Vec<_> = machines.iter().map(Elsewhere::status).collect();
    let tells = |pointer: &str| {
        let all: BTreeSet<String> = told
            .iter()
            .filter_map(|status| status.pointer(pointer))
            .map(ToString::to_string)
            .collect();
        assert_eq!(all.len(), MACHINES, "{pointer}: {all:?}");
    };
    for own in [
        "/machine/name",
        "/machine/uuid",
        "/process/pid",
        "/process/api_port",
        "/process/ssh_port",
        "/process/monitor",
    ] {
        tells(own);
    }
    for (machine, setup) in machines.iter().zip(setups) {
        setup.signal(Signal::KILL);
        drop(setup);
        let stop = machine.run(&["stop", "--force"]);
        assert_eq!(stop.code, 0, "{stop:?}");
        assert_eq!(machine.status()["state"], "stopped");
    }
    say(&format!(
        "  {MACHINES} VMs in their boot sectors after {booted:.1?}, all stopped after {:.1?}",
        began.elapsed()
    ));
    let fault = format!("{MACHINES} VMs at once on one host");
    row(
        &fault,
        0,
        "each has its own process, ports and socket",
        &sandbox.left(),
    );
    sandbox.nothing_runs();
}

/// A boot sector that writes one letter to the first serial port and halts its processor for good.
fn halting_image(path: &Path) -> PathBuf {
    let code = [
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xb0, b'k', // mov al, 'k'
        0xee, // out dx, al
        0xfa, // cli
        0xf4, // hlt
        0xeb, 0xfd, // jmp to hlt
    ];
    let mut bytes = vec![0; 2 << 20];
    bytes[..code.len()].copy_from_slice(&code);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(path, bytes).expect("written");
    path.to_owned()
}
