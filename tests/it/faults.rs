//! What goes wrong, made to go wrong: each fault with what the user sees of it, and that nothing is left behind.
//!
//! Most of these need no guest: a disk that boots nothing brings a real QEMU to where it can be troubled.

mod booting;
mod crashes;
mod fetching;
mod files;
mod host;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::support::{Ended, TestEnv, VERSION, dead_image};

/// How long a condition that must come may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The arguments of a setup with a disk that boots nothing, which ends at its deadline.
fn dead_setup(env: &TestEnv, more: &[&str]) -> Vec<String> {
    let image = env.path("dead.img");
    if !image.exists() {
        dead_image(&image);
    }
    let (image, mirror) = (image.display().to_string(), env.mirror());
    let common = [
        "setup", "--accel", "tcg", "--memory", "1GiB", "--image", &image,
    ];
    let release = ["--k3s-version", VERSION, "--k3s-mirror", &mirror];
    [&common[..], &release, more]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// Starts the program beside the test.
fn spawn(mut command: Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// Waits for the end of a started program.
fn end(child: Child) -> Ended {
    crate::support::ended(child.wait_with_output().expect("it ends"))
}

/// Looks again until there is something to see.
fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < PATIENCE, "{what} has not come");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Starts a setup that will wait for a guest in vain, and returns when its QEMU runs.
fn waiting_setup(env: &TestEnv) -> (Child, i32) {
    let child = spawn(env.command(&dead_setup(env, &[])));
    let pid = until("a running QEMU", || {
        (env.run(&["status"]).code == 5)
            .then(|| env.pid())
            .flatten()
    });
    (child, pid)
}

/// The processes that have the project's path among their arguments.
fn processes_of(project: &Path) -> Vec<String> {
    let mine = std::process::id().to_string();
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let numbered =
        processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    numbered
        .filter(|entry| entry.file_name().to_string_lossy() != mine)
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&*project.to_string_lossy()))
        .collect()
}

/// No process, no socket, no half file in the cache.
#[track_caller]
fn nothing_is_left(env: &TestEnv) {
    assert_eq!(processes_of(&env.project), Vec::<String>::new());
    let sockets = fs::read_dir(env.path("run/k3s-vm"))
        .into_iter()
        .flatten()
        .count();
    assert_eq!(sockets, 0, "a socket's directory is left");
}

/// Checks how a command failed, and shows its first line beside the fault.
#[track_caller]
#[expect(
    clippy::print_stdout,
    reason = "with --nocapture the faults make a table"
)]
fn failed(fault: &str, ended: &Ended, code: i32, words: &[&str]) {
    let error = ended
        .stderr
        .lines()
        .find(|line| line.starts_with("error: "))
        .unwrap_or_default();
    println!("  {fault:<44} {:>3}  {error}", ended.code);
    assert_eq!(ended.code, code, "{fault}: {}", ended.stderr);
    for word in words {
        assert!(
            ended.stderr.contains(word),
            "{fault} lacks {word:?}: {}",
            ended.stderr
        );
    }
}
