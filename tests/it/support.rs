//! Where each test lives: a project, a home and a runtime directory of its own, and nothing of the developer's
//! surroundings. The shared parts that are slow to make (the guest's image) are kept under `target/`.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The limit of each command. The slowest one, a first setup on an emulated guest, takes up to two minutes on an idle
/// machine.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(600);
/// The limit of a command on a terminal, which waits for a person at most.
const DIALOGUE_TIMEOUT: Duration = Duration::from_secs(180);

/// The release that the stand-in pretends to be.
pub(crate) const VERSION: &str = "v1.33.5+k3s1";

/// A user with one project.
pub(crate) struct TestEnv {
    directory: TempDir,
    pub(crate) project: PathBuf,
    pub(crate) cache: PathBuf,
    /// Where its programs are.
    pub(crate) programs: OsString,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl TestEnv {
    pub(crate) fn new() -> Self {
        Self::named("project")
    }

    /// With a project directory of that name.
    pub(crate) fn named(name: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("k3s-vm-it-")
            .tempdir()
            .expect("temporary directory");
        let (project, cache) = (directory.path().join(name), directory.path().join("cache"));
        for path in [&project, &directory.path().join("home")] {
            fs::create_dir_all(path).expect("created");
        }
        private_dir(&directory.path().join("run"));
        // With the program itself, so that it calls itself `k3s-vm` in hints.
        let mut programs = std::env::var_os("PATH").unwrap_or_default();
        programs.push(":");
        programs.push(program().parent().expect("target/debug"));
        Self {
            directory,
            project,
            cache,
            programs,
        }
    }

    /// The program with `arguments`, in the project's directory.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = self.tool(program());
        command.args(arguments);
        command
    }

    /// Another program, in the same surroundings.
    pub(crate) fn tool(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.project)
            .env_clear()
            .env("PATH", &self.programs)
            .env("HOME", self.directory.path().join("home"))
            .env(
                "K3S_VM_RUNTIME_DIR",
                self.directory.path().join("run/k3s-vm"),
            )
            .env("K3S_VM_CACHE_DIR", &self.cache)
            .env("TERM", "dumb")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ended {
        finish(self.command(arguments))
    }

    /// Runs the program and expects success.
    #[track_caller]
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ended {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended
    }

    /// A directory of the test's own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A mirror with one release of the stand-in, as a URL.
    pub(crate) fn mirror(&self) -> String {
        let root = self.path("mirror");
        if !root.exists() {
            make_release(&root.join(VERSION), VERSION);
        }
        format!("file://{}", root.display())
    }

    /// Another release of the stand-in in that mirror, with lines of instructions.
    pub(crate) fn release(&self, version: &str, told: &str) {
        make_release_that(&self.path("mirror").join(version), version, told);
    }

    /// The QEMU of the machine, if one runs, as its pidfile names it.
    pub(crate) fn pid(&self) -> Option<i32> {
        fs::read_to_string(self.project.join(".k3s-vm/qemu.pid"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }
}

/// Nothing outlives its test.
impl Drop for TestEnv {
    fn drop(&mut self) {
        for name in names(&self.project.join(".k3s-vm/machines")) {
            self.run(&["reset", "--yes", "--name", &name]);
        }
        if self.project.join(".k3s-vm").exists() {
            self.run(&["reset", "--yes"]);
        }
    }
}

/// Runs a command to its end. One that exceeds [`COMMAND_TIMEOUT`] is killed with its process group, and its exit code is
/// 137.
pub(crate) fn finish(command: Command) -> Ended {
    finish_showing(command, COMMAND_TIMEOUT, |_| {})
}

/// The same, with each line handed over as it comes.
pub(crate) fn finish_showing(mut command: Command, limit: Duration, show: fn(&str)) -> Ended {
    let mut child = command
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let _watchdog = watchdog(&child, limit);
    let stdout = thread::spawn(move || lines(stdout.expect("piped"), show));
    let stderr = lines(stderr.expect("piped"), show);
    Ended {
        stdout: stdout.join().expect("read"),
        stderr,
        code: code(child.wait().expect("it ends")),
    }
}

/// Kills that process, and the process group that it leads, unless what this returns is dropped in time.
#[expect(clippy::print_stderr, reason = "shown with the test's output")]
fn watchdog(child: &Child, limit: Duration) -> mpsc::Sender<()> {
    let process = Pid::from_child(child);
    let (ended, is_ended) = mpsc::channel();
    thread::spawn(move || {
        if is_ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("  ! killed after {limit:?}");
            let _ = kill_process_group(process, Signal::KILL);
            let _ = kill_process(process, Signal::KILL);
        }
    });
    ended
}

fn lines(stream: impl Read, show: fn(&str)) -> String {
    let mut all = String::new();
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).expect("readable") == 0 {
            return all;
        }
        let line = String::from_utf8_lossy(&line);
        show(&line);
        all += &line;
    }
}

/// What a program that has run to its end said.
pub(crate) fn ended(output: Output) -> Ended {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended {
        code: code(output.status),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// The exit code as a shell tells it: 128 and the number of the signal that ended the program.
pub(crate) fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Runs a command on a terminal of its own, on which `typed` is typed; gives its exit code and all that was on the
/// screen.
pub(crate) fn on_a_terminal(command: Command, typed: &str) -> (i32, String) {
    in_dialogue(command, &[("", typed)])
}

/// The same with several parts, each of which is typed once the screen has shown the text before it.
pub(crate) fn in_dialogue(mut command: Command, parts: &[(&str, &str)]) -> (i32, String) {
    use std::io::Write;
    let terminal = nix::pty::openpty(None, None).expect("a terminal");
    let side = || Stdio::from(terminal.slave.try_clone().expect("cloned"));
    command.stdin(side()).stdout(side()).stderr(side());
    let mut child = command.spawn().expect("the program runs");
    let _watchdog = watchdog(&child, DIALOGUE_TIMEOUT);
    // Reading ends only when no process has the terminal open any more.
    drop((command, terminal.slave));
    let mut master = fs::File::from(terminal.master);
    let (mut screen, mut seen) = (Vec::new(), 0);
    let mut parts = parts.iter();
    let mut part = parts.next();
    loop {
        while let Some((text, typed)) = part
            && String::from_utf8_lossy(&screen[seen..]).contains(text)
        {
            seen = screen.len();
            master.write_all(typed.as_bytes()).expect("typed");
            part = parts.next();
        }
        let mut some = [0; 4096];
        match master.read(&mut some) {
            Ok(read @ 1..) => screen.extend_from_slice(&some[..read]),
            _ => break,
        }
    }
    let code = code(child.wait().expect("it ends"));
    (code, String::from_utf8_lossy(&screen).into_owned())
}

/// Whether everything is tried that can be: `tests/run.sh all`. Otherwise what is too much for each run takes turns.
pub(crate) fn all() -> bool {
    std::env::var_os("K3S_VM_TEST_ALL").is_some()
}

/// The turn of this run: `tests/run.sh` counts the commits, so that each has another one.
pub(crate) fn turn() -> usize {
    let turn = std::env::var("K3S_VM_TEST_TURN").ok();
    turn.map_or(0, |turn| turn.parse().expect("a number"))
}

/// Whether the test that is the `index`th of `count` that take turns has its turn, or all have. Otherwise it is counted as
/// skipped.
pub(crate) fn has_its_turn(index: usize, count: usize) -> bool {
    let has = all() || turn() % count == index;
    if !has {
        skipped("another test has its turn; tests/run.sh all runs all of them");
    }
    has
}

/// Records that a test tried something again. `tests/run.sh` prints all such records at the end of a run.
pub(crate) fn retried(what: &str) {
    record("retried", what);
}

/// Records that this host cannot do what a test, or a part of it, is about. `tests/run.sh` counts it as skipped.
pub(crate) fn skipped(why: &str) {
    record("skipped", why);
}

#[expect(clippy::print_stderr, reason = "shown with the test's output")]
fn record(kind: &str, what: &str) {
    eprintln!("  ! {kind}: {what}");
    let test = std::env::var("NEXTEST_TEST_NAME").unwrap_or_else(|_| "a test".to_owned());
    let line = format!("{test}: {what}\n");
    let records = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{kind}.txt"));
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(records)
        .and_then(|mut file| std::io::Write::write_all(&mut file, line.as_bytes()))
        .expect("the record can be written");
}

/// The permission bits of a file or directory.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::symlink_metadata(path)
        .unwrap_or_else(|error| panic!("{} is there: {error}", path.display()));
    metadata.permissions().mode() & 0o7777
}

/// The names in a directory, sorted; none when it is not there.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The built program.
pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_k3s-vm"))
}

/// A file of this repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Puts a release of the stand-in into `directory`, as k3s publishes its own.
pub(crate) fn make_release(directory: &Path, version: &str) {
    make_release_that(directory, version, "");
}

/// The same for a stand-in with lines of instructions (see tests/guest/k3s/trailer.rs).
pub(crate) fn make_release_that(directory: &Path, version: &str, told: &str) {
    fs::create_dir_all(directory).expect("created");
    let stand_in = program().with_file_name("examples").join("k3s-stand-in");
    let small = directory.join("k3s");
    let stripped = Command::new("strip")
        .arg("-o")
        .args([&small, &stand_in])
        .status();
    assert!(
        stripped.is_ok_and(|status| status.success()),
        "built by `cargo build --examples`, with --release for the benchmark"
    );
    let mut binary = fs::read(small).expect("readable");
    binary.extend_from_slice(format!("\n{told}k3s-stand-in-version={version}\n").as_bytes());
    let airgap = vec![b'a'; 1 << 20];
    let mut sums = String::new();
    for (name, bytes) in [("k3s", binary), ("k3s-airgap-images-amd64.tar.zst", airgap)] {
        let digest = Sha256::digest(&bytes)
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        sums += &format!("{digest}  {name}\n");
        fs::write(directory.join(name), bytes).expect("written");
    }
    fs::write(directory.join("sha256sum-amd64.txt"), sums).expect("written");
}

/// The guest's image, built when it is not there yet.
pub(crate) fn guest_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| image_of("debian"))
}

/// The image of a guest of that kind (see tests/guest/kinds), built when it is not there yet.
pub(crate) fn image_of(kind: &str) -> PathBuf {
    let built = Command::new(repository("tests/guest/build.sh"))
        .arg(target().join("guest"))
        .arg(kind)
        .stderr(Stdio::inherit())
        .output()
        .expect("tests/guest/build.sh runs");
    assert!(
        built.status.success(),
        "the guest's image could not be built"
    );
    PathBuf::from(String::from_utf8_lossy(&built.stdout).trim())
}

/// The build's directory, where slow things are kept between runs.
pub(crate) fn target() -> PathBuf {
    let target = program().ancestors().nth(2).map(Path::to_owned);
    target.expect("the program is in target/debug")
}

/// A directory that only its owner enters.
pub(crate) fn private_dir(path: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .expect("created");
}

/// What a guest does that does nothing, and takes no processor for it: hlt, and a jump back to it.
pub(crate) const NOTHING: [u8; 3] = [0xf4, 0xeb, 0xfd];

/// A small raw disk image that passes for one and boots nothing.
pub(crate) fn dead_image(path: &Path) -> PathBuf {
    let mut bytes = vec![0; 2 << 20];
    bytes[..NOTHING.len()].copy_from_slice(&NOTHING);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(path, bytes).expect("written");
    path.to_owned()
}

/// A port of this host that no other test gets while this is held. It is below the ports that the kernel chooses, and
/// below those of Kubernetes services, so only a program that asks for this very number can take it.
pub(crate) struct FreePort {
    pub(crate) number: u16,
    /// Other tests are other processes: they see the lock, and not what this one has bound.
    _lock: fs::File,
}

impl std::fmt::Display for FreePort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.number.fmt(f)
    }
}

/// A port that nothing listens on, for TCP and UDP.
pub(crate) fn free_port() -> FreePort {
    use std::net::{Ipv4Addr, TcpListener, UdpSocket};
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    let locks = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ports");
    fs::create_dir_all(&locks).expect("created");
    // Runs of other directories do not see the locks; they begin elsewhere.
    let begin = std::process::id() % u32::from(COUNT) * 16;
    (0..u32::from(COUNT))
        .find_map(|offset| {
            let offset = u16::try_from((begin + offset) % u32::from(COUNT)).expect("below COUNT");
            let number = FIRST + offset;
            let lock = fs::File::create(locks.join(number.to_string())).expect("created");
            lock.try_lock().ok()?;
            let address = (Ipv4Addr::LOCALHOST, number);
            (TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()).then_some(
                FreePort {
                    number,
                    _lock: lock,
                },
            )
        })
        .expect("one of ten thousand ports is free")
}
