//! The figures of the program: `cargo bench`. Prints, and asserts nothing but that it measured what it says.
//!
//! Whole processes are timed from outside, the planners from inside. The machine's own phases come from
//! `setup --timings`, of which everything but waiting for the network and the guest is the program's own.
#![expect(clippy::print_stdout, reason = "a benchmark prints figures")]

#[path = "../it/support.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod support;

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use k3s_vm::{
    base::{Digest, Size},
    image::{BaseImage, Format},
    seed::{Identity, SeedFile, cloud_config, fat},
};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use support::{TestEnv, VERSION, guest_image, program};

fn main() {
    println!(
        "{:<52} {:>10} {:>10} {:>10}",
        "figure", "median", "least", "most"
    );
    planners();
    let help = time(50, || {
        run(Command::new(program()).arg("--help"));
    });
    row("--help", &help);
    let env = TestEnv::new();
    let absent = time(50, || {
        run(&mut env.command(&["status"]));
    });
    row("status without a machine", &absent);
    machine(&env);
}

fn planners() {
    let base = BaseImage {
        path: "/cache/images/base.img".into(),
        digest: Digest::of(b""),
        virtual_size: Size::gib(3),
        format: Format::Qcow2,
    };
    let overlay = time(50, || {
        assert!(
            !k3s_vm::image::plan(&base, Size::gib(20))
                .expect("planned")
                .is_empty()
        );
    });
    row("overlay of 20 GiB", &overlay);
    let identity = Identity {
        name: "k3s-bench".parse().expect("sound"),
        instance_id: "bench".into(),
        authorized_key: "ssh-ed25519 AAAA".into(),
        host_key_private: "key".into(),
        host_key_public: "key".into(),
    };
    let seed = time(50, || {
        let files = [
            SeedFile {
                name: "meta-data",
                content: cloud_config::meta_data(&identity).into_bytes(),
            },
            SeedFile {
                name: "user-data",
                content: cloud_config::user_data(&identity).into_bytes(),
            },
        ];
        assert!(!fat::image(&files).expect("made").is_empty());
    });
    row("seed", &seed);
}

/// One machine on a real guest: setup with its phases, memory while it waits, status, stop, start.
fn machine(env: &TestEnv) {
    let (image, mirror) = (guest_image().display().to_string(), env.mirror());
    let began = Instant::now();
    let setup = [
        "setup",
        "--timings",
        "--memory",
        "2GiB",
        "--image",
        &image,
        "--k3s-version",
        VERSION,
        "--k3s-mirror",
        &mirror,
    ];
    let child = env
        .command(&setup)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("setup starts");
    let (peak, phases) = watch(child);
    row("setup, to node Ready", &[began.elapsed()]);
    println!("{:<52} {peak:>10}", "peak memory of setup, VmHWM");
    let mut own = Vec::new();
    let status = time(50, || {
        let before = processor_time();
        run(&mut env.command(&["status"]));
        own.push(processor_time().saturating_sub(before));
    });
    own.sort();
    row("status of a running machine", &status);
    row("  of which the program's processor time", &own);
    for verb in ["stop", "start"] {
        let began = Instant::now();
        run(&mut env.command(&[verb]));
        row(verb, &[began.elapsed()]);
    }
    println!("\nphases of setup:\n{phases}");
}

/// Of all children that have ended, in user and kernel.
fn processor_time() -> Duration {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).expect("Linux");
    [used.user_time(), used.system_time()]
        .iter()
        .map(|time| Duration::from_micros(time.num_microseconds().unsigned_abs()))
        .sum()
}

/// The most memory that the program had, and its own account of the time.
fn watch(child: Child) -> (String, String) {
    let path = format!("/proc/{}/status", child.id());
    let reader = std::thread::spawn(move || {
        let mut peak = String::new();
        while let Ok(status) = fs::read_to_string(&path) {
            let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) else {
                break;
            };
            line.trim().clone_into(&mut peak);
            std::thread::sleep(Duration::from_millis(100));
        }
        peak
    });
    let output = child.wait_with_output().expect("setup ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let phases = said
        .lines()
        .filter(|line| line.contains(" s  "))
        .collect::<Vec<_>>()
        .join("\n");
    (reader.join().expect("the reader ends"), phases)
}

fn run(command: &mut Command) {
    let output = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(
        output.is_ok_and(|status| status.code().is_some_and(|code| code < 5)),
        "{command:?}"
    );
}

fn time(runs: usize, mut work: impl FnMut()) -> Vec<Duration> {
    work();
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let began = Instant::now();
            work();
            began.elapsed()
        })
        .collect();
    times.sort();
    times
}

fn row(name: &str, sorted: &[Duration]) {
    let shown = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
    let [median, least, most] = [
        sorted[sorted.len() / 2],
        sorted[0],
        sorted[sorted.len() - 1],
    ]
    .map(shown);
    println!("{name:<52} {median:>10} {least:>10} {most:>10}");
}
