//! QEMU as a process: started into a session of its own, found again through the lock on its pidfile, ended through a
//! pidfd. A process id alone is never believed and never signalled.

use std::{
    fs::{File, TryLockError},
    io::{self, PipeWriter},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    libc,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{
    Launch, Monitor, command_line::INCOMING, connect_filter, file_access, log_writer, setuid_filter,
};
use crate::base::{FileError, Size, files};

/// How long QEMU may take from its start to an answering monitor; it takes a tenth of a second when nothing is wrong.
const STARTUP: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// Of close_range(2), in the type that it takes.
const CLOSE_ON_EXEC: libc::c_int = libc::CLOSE_RANGE_CLOEXEC.cast_signed();

/// A living QEMU, held by a pidfd: a reused process id cannot stand in for it.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
}

/// What QEMU's last words are known to mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// The project's file system is full.
    NoSpace,
    /// This QEMU was built without VirtFS.
    NoVirtfs,
    /// This QEMU was built without user networking (libslirp) or without its sandbox (libseccomp).
    LacksFeature,
    /// Anything else.
    Other,
}

impl EndCause {
    fn of(said: &str) -> Self {
        match said {
            _ if said.contains("No space left on device") => Self::NoSpace,
            _ if said.contains("fsdev support is disabled")
                || said.contains("'virtio-9p-pci' is not a valid") =>
            {
                Self::NoVirtfs
            }
            _ if said.contains("network backend 'user' is not compiled")
                || said.contains("expects a netdev backend type")
                || said.contains("-sandbox support is not enabled")
                || said.contains("no option group 'sandbox'") =>
            {
                Self::LacksFeature
            }
            _ => Self::Other,
        }
    }
}

/// Why QEMU did not start, or could not be found or ended.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program did not even run.
    #[error("cannot run {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why it did not run.
        source: io::Error,
    },
    /// It ended before its monitor answered.
    #[error("QEMU ended at once ({status}): {said}")]
    Ended {
        /// How it ended.
        status: String,
        /// The end of what it printed.
        said: String,
        /// What that is known to mean.
        cause: EndCause,
    },
    /// A script in QEMU's place runs QEMU beside itself, so that the pidfile is locked by the script.
    #[error("{} is a script that does not start QEMU by exec", program.display())]
    Wrapper {
        /// The script.
        program: PathBuf,
    },
    /// It runs, and its monitor does not answer.
    #[error("QEMU's monitor did not answer within {} s", STARTUP.as_secs())]
    Unresponsive,
    /// The kernel refused to look at or signal the process.
    #[error("cannot {action} QEMU's process {pid}")]
    Signal {
        /// What was tried.
        action: &'static str,
        /// The process id.
        pid: i32,
        /// Why it failed.
        source: io::Error,
    },
    /// A file of the process makes trouble.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What is printed where a file cannot be opened: by QEMU, by the dynamic loader, by a wrapper's shell.
const DENIED: [&str; 4] = [
    "Permission denied",
    "Operation not permitted",
    "could not load PC BIOS",
    "cannot open shared object file",
];

impl ProcessError {
    /// Whether it may be that a file could not be opened.
    fn may_be_denied(&self) -> bool {
        match self {
            Self::Spawn { .. } => true,
            Self::Ended { said, .. } => DENIED.iter().any(|it| said.contains(it)),
            _ => false,
        }
    }
}

impl Process {
    /// The living QEMU that holds the lock on `pidfile`, if any.
    ///
    /// # Errors
    ///
    /// When the pidfile exists and cannot be looked at.
    pub fn holder(pidfile: &Path) -> Result<Option<Self>, ProcessError> {
        // By a link, it would be another program's file, and its holder another program.
        let file = match files::open_plain(pidfile) {
            Ok(file) => file,
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(pid) = lock_holder(&file, pidfile)? else {
            return Ok(None);
        };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(Self::failed("open", pid, error)),
        };
        // The pidfd is of the lock's holder only if that still holds the lock now.
        Ok((lock_holder(&file, pidfile)? == Some(pid)).then_some(Self { pid, pidfd }))
    }

    /// Starts QEMU in a session of its own, with `log` for what it prints, and returns when its monitor answers.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Ended`] carries what QEMU printed.
    pub async fn spawn(program: &Path, launch: &Launch, log: &Path) -> Result<Self, ProcessError> {
        let rules = file_access::rules(program, launch);
        let is_restricted = rules.is_some();
        match Self::spawn_under(rules, program, launch, log).await {
            Err(error) if is_restricted && error.may_be_denied() => {
                let process = Self::spawn_under(None, program, launch, log).await?;
                tracing::warn!("QEMU can open all files of yours: under Landlock, {error}");
                Ok(process)
            }
            other => other,
        }
    }

    async fn spawn_under(
        rules: Option<OwnedFd>,
        program: &Path,
        launch: &Launch,
        log: &Path,
    ) -> Result<Self, ProcessError> {
        files::remove_if_exists(&launch.monitor)?;
        let output = files::open_in_place(log, true)?;
        let (output, beside) =
            start_log_writer(output, launch).map_err(FileError::on("write", log))?;
        let errors = output.try_clone().map_err(FileError::on("share", log))?;
        let pidfile = files::open_in_place(&launch.pidfile, true)?;
        let mut command = Command::new(program);
        command
            .args(launch.arguments())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        detach(&mut command, Some(pidfile));
        refuse_setuid_files(&mut command);
        file_access::refuse_others(&mut command, rules);
        beside
            .ask(&mut command)
            .map_err(FileError::on("share", log))?;
        tracing::debug!(?command, "starting QEMU");
        let mut child = command.spawn().map_err(|source| ProcessError::Spawn {
            program: program.to_owned(),
            source,
        })?;
        // The log's writer ends with the last copy of the pipe.
        drop(command);
        let process = Self::of_child(&child)?;
        // A command that is interrupted while it waits must not leave a QEMU that is not recorded yet.
        let unknown = KillOnDrop(&process);
        let answering = process.answering(&mut child, launch, log).await;
        answering.map_err(|error| match error {
            ProcessError::Ended { said, .. }
                if said.contains("lock pid file") && is_script(program) =>
            {
                ProcessError::Wrapper {
                    program: program.to_owned(),
                }
            }
            other => other,
        })?;
        if let Err(reason) = connect_filter::wait_until_it_decides(&beside.socket) {
            tracing::warn!(
                "the guest can reach all that listens on this host's loopback: {reason}"
            );
        }
        std::mem::forget(unknown);
        Ok(process)
    }

    fn of_child(child: &Child) -> Result<Self, ProcessError> {
        let pid = Pid::from_child(child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| Self::failed("open", pid, error))?;
        Ok(Self { pid, pidfd })
    }

    async fn answering(
        &self,
        child: &mut Child,
        launch: &Launch,
        log: &Path,
    ) -> Result<(), ProcessError> {
        let began = Instant::now();
        while began.elapsed() < STARTUP {
            if let Ok(Some(status)) = child.try_wait() {
                let said = said(log).unwrap_or_else(|| "it printed nothing".to_owned());
                return Err(ProcessError::Ended {
                    status: status.to_string(),
                    cause: EndCause::of(&said),
                    said,
                });
            }
            if launch.monitor.exists() {
                match Monitor::connect_to(&launch.monitor, Some(self.pid())).await {
                    Ok(_) => return Ok(()),
                    Err(error) => tracing::debug!(%error, "QEMU does not answer yet"),
                }
            }
            tokio::time::sleep(POLL).await;
        }
        Err(ProcessError::Unresponsive)
    }

    /// The process id, for messages.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Its arguments, from `/proc`; none when it has just ended.
    pub fn arguments(&self) -> Vec<String> {
        let line = std::fs::read(format!("/proc/{}/cmdline", self.pid())).unwrap_or_default();
        String::from_utf8_lossy(&line)
            .split_terminator('\0')
            .map(str::to_owned)
            .collect()
    }

    /// Whether it went on with a guest whose memory was saved.
    pub fn is_resumed(&self) -> bool {
        self.arguments().iter().any(|argument| argument == INCOMING)
    }

    /// How much of a mapping of `length` bytes, as which the guest has its memory, it has touched, from `/proc`.
    pub fn resident(&self, length: Size) -> Option<Size> {
        let maps = std::fs::read_to_string(format!("/proc/{}/smaps", self.pid())).ok()?;
        let kib = |line: &str, key: &str| -> Option<u64> {
            let rest = line.strip_prefix(key)?.trim_start();
            rest.strip_suffix(" kB")?.parse().ok()
        };
        let mut lines = maps.lines();
        lines.find(|line| kib(line, "Size:") == Some(length.as_bytes() >> 10))?;
        let resident = lines.find_map(|line| kib(line, "Rss:"))?;
        Some(Size::bytes(resident << 10))
    }

    /// How long it has been running, from `/proc`.
    pub fn uptime(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        // The 22nd field (proc_pid_stat(5)), counted behind the program's name, which may hold anything but ends in the
        // last ')'.
        let ticks: u64 = stat
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(19)?
            .parse()
            .ok()?;
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
        let started = Duration::from_millis(ticks * 1000 / u64::try_from(per_second).ok()?);
        let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
        let now =
            Duration::try_from_secs_f64(uptime.split_whitespace().next()?.parse().ok()?).ok()?;
        now.checked_sub(started)
    }

    /// Whether it still lives.
    pub fn is_alive(&self) -> bool {
        let mut fds = [rustix::event::PollFd::new(
            &self.pidfd,
            rustix::event::PollFlags::IN,
        )];
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        !matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1))
    }

    /// Waits for its end for a long time, without polling; whether it ended.
    pub async fn ends_within(&self, patience: Duration) -> bool {
        let Ok(pidfd) = self.pidfd.try_clone() else {
            return self.ended_within(patience).await;
        };
        let timeout = rustix::event::Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        };
        let wait = tokio::task::spawn_blocking(move || {
            let mut fds = [rustix::event::PollFd::new(
                &pidfd,
                rustix::event::PollFlags::IN,
            )];
            let _ = rustix::event::poll(&mut fds, Some(&timeout));
        });
        let _ = wait.await;
        !self.is_alive()
    }

    /// Waits for its end, at most for `patience`; whether it ended.
    pub async fn ended_within(&self, patience: Duration) -> bool {
        let began = Instant::now();
        while self.is_alive() {
            if began.elapsed() >= patience {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }

    /// Kills it and waits for its end.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or the process does not end for five seconds (stuck in the kernel).
    pub async fn kill(&self) -> Result<(), ProcessError> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(Self::failed("kill", self.pid, error)),
        }
        if self.ended_within(Duration::from_secs(5)).await {
            Ok(())
        } else {
            Err(Self::failed("end", self.pid, rustix::io::Errno::TIMEDOUT))
        }
    }

    fn failed(action: &'static str, pid: Pid, error: rustix::io::Errno) -> ProcessError {
        ProcessError::Signal {
            action,
            pid: pid.as_raw_nonzero().get(),
            source: error.into(),
        }
    }
}

/// Ends a process that is dropped before it was ready.
struct KillOnDrop<'a>(&'a Process);

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.0.pidfd, Signal::KILL);
        // SIGKILL takes effect within milliseconds; what is checked next should see it.
        let mut fds = [rustix::event::PollFd::new(
            &self.0.pidfd,
            rustix::event::PollFlags::IN,
        )];
        let soon = rustix::event::Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let _ = rustix::event::poll(&mut fds, Some(&soon));
    }
}

/// The process that has a write lock on the pidfile, as the kernel knows it.
fn lock_holder(file: &File, path: &Path) -> Result<Option<Pid>, FileError> {
    let mut lock = write_lock();
    fcntl(file, FcntlArg::F_GETLK(&mut lock))
        .map_err(|error| FileError::on("query the lock of", path)(error.into()))?;
    let free = i32::from(lock.l_type) == libc::F_UNLCK;
    Ok(if free {
        None
    } else {
        Pid::from_raw(lock.l_pid)
    })
}

/// The lock that QEMU puts on its pidfile: on all of it, exclusive.
fn write_lock() -> libc::flock {
    libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// The process beside QEMU that writes its log and decides what it may connect to.
struct Beside {
    pid: u32,
    socket: UnixStream,
}

impl Beside {
    /// Has it decide for `command`.
    #[expect(
        unsafe_code,
        reason = "between fork and exec; it only enters the kernel and allocates nothing"
    )]
    fn ask(&self, command: &mut Command) -> io::Result<()> {
        let (socket, pid) = (self.socket.try_clone()?, self.pid);
        unsafe {
            command.pre_exec(move || {
                connect_filter::install(socket.as_fd(), pid);
                Ok(())
            });
        }
        Ok(())
    }
}

/// Starts the process that writes to `log` what comes through the pipe, until its last copy is closed.
fn start_log_writer(log: File, launch: &Launch) -> io::Result<(PipeWriter, Beside)> {
    let others = [&launch.console_log, &launch.stages_log];
    let directory = launch.console_log.parent().unwrap_or(Path::new("/"));
    rustix::fs::fcntl_setfl(&log, rustix::fs::OFlags::APPEND)?;
    if let Err(TryLockError::Error(error)) = log.try_lock() {
        tracing::debug!(%error, "the end of QEMU's log cannot be waited for");
    }
    let (reader, writer) = io::pipe()?;
    let (socket, theirs) = UnixStream::pair()?;
    // Also where the program's file was replaced since it was started.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("k3s-vm")
        .arg(log_writer::FLAG)
        .arg(launch.host_access.to_string())
        .args(others.into_iter().filter_map(|it| it.file_name()))
        // Which may be moved while QEMU runs.
        .current_dir(directory)
        .stdin(reader)
        .stdout(log)
        .stderr(OwnedFd::from(theirs));
    detach(&mut command, None);
    let pid = command.spawn()?.id();
    Ok((writer, Beside { pid, socket }))
}

fn is_script(program: &Path) -> bool {
    let mut begin = [0; 2];
    let read = File::open(program).and_then(|mut it| io::Read::read_exact(&mut it, &mut begin));
    read.is_ok() && begin == *b"#!"
}

/// What QEMU printed, without its time stamps and in one line; if anything.
pub fn said(log: &Path) -> Option<String> {
    log_writer::wait(log);
    let tail = files::tail(log, 5);
    let lines: Vec<&str> = tail
        .lines()
        .map(|line| {
            line.split_once("qemu-system-x86_64: ")
                .map_or(line, |it| it.1)
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// A session of its own keeps the terminal's signals away from QEMU, so that it outlives this program. What the program
/// that started this program has open (a lock of `flock`, a pipe with a reader) is not QEMU's to keep open; a kernel
/// before 5.11 leaves it so. Another program that is to outlive this one is begun like that, too, without a pidfile.
///
/// The pidfile is locked in QEMU's name before there is a QEMU: the lock lasts through exec, and QEMU takes it again as
/// its own. Until exec the child also has the VM's lock by inheritance. So at no moment can this program
/// die and leave a QEMU that the next command does not see.
#[expect(
    unsafe_code,
    reason = "between fork and exec; setsid, close_range and fcntl only enter the kernel and allocate nothing"
)]
pub fn detach(command: &mut Command, pidfile: Option<File>) {
    let lock_pidfile = move || match &pidfile {
        Some(pidfile) => {
            fcntl(pidfile, FcntlArg::F_SETFD(FdFlag::empty()))?;
            fcntl(pidfile, FcntlArg::F_SETLK(&write_lock()))
        }
        None => Ok(0),
    };
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            libc::close_range(3, libc::c_uint::MAX, CLOSE_ON_EXEC);
            lock_pidfile()?;
            Ok(())
        });
    }
}

/// See [`setuid_filter`]; a kernel without seccomp leaves it so, and QEMU's own `-sandbox` refuses to start there.
#[expect(
    unsafe_code,
    reason = "between fork and exec; prctl and seccomp only enter the kernel and allocate nothing"
)]
fn refuse_setuid_files(command: &mut Command) {
    let Some(program) = setuid_filter::program() else {
        return;
    };
    unsafe {
        command.pre_exec(move || {
            let _ = seccompiler::apply_filter(&program);
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt, process::ExitStatusExt};

    use super::*;

    #[test]
    fn a_stale_pidfile_that_names_a_living_process_names_nobody() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let pidfile = directory.path().join("qemu.pid");
        assert!(Process::holder(&pidfile).expect("none").is_none());
        std::fs::write(&pidfile, format!("{}\n", std::process::id())).expect("written");
        assert!(Process::holder(&pidfile).expect("stale").is_none());
    }

    #[test]
    fn no_file_becomes_setuid() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut command = Command::new("sh");
        let script = "umask 0; touch file; chmod 4755 file && exit 1; chmod 2755 file && exit 2; \
            chmod 755 file || exit 3; mkdir -m 2755 sub && exit 4; install -m 6755 file other && exit 5; \
            python3 -c \"import os; os.open('new', os.O_CREAT | os.O_WRONLY, 0o4755)\" 2>/dev/null && exit 6; exit 0";
        command.args(["-c", script]).current_dir(directory.path());
        refuse_setuid_files(&mut command);
        let output = command.output().expect("sh runs");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let files = std::fs::read_dir(directory.path()).expect("listed");
        for file in files.flatten() {
            let mode = file.metadata().expect("there").permissions().mode();
            assert_eq!(mode & 0o6000, 0, "{file:?}");
        }
    }

    #[test]
    fn only_the_pidfile_is_inherited() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let [theirs, pidfile] = ["theirs", "qemu.pid"]
            .map(|name| File::create(directory.path().join(name)).expect("created"));
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).expect("inherited by all");
        let mut command = Command::new("ls");
        command.args(["-l", "/proc/self/fd"]);
        detach(&mut command, Some(pidfile));
        let listed = command.output().expect("ls runs").stdout;
        let listed = String::from_utf8_lossy(&listed);
        assert!(
            listed.contains("/qemu.pid") && !listed.contains("/theirs"),
            "{listed}"
        );
    }

    #[tokio::test]
    async fn a_killed_process_is_seen_to_end() {
        let mut child = Command::new("sleep")
            .arg("100")
            .spawn()
            .expect("sleep runs");
        let process = Process::of_child(&child).expect("held");
        assert!(process.is_alive());
        assert!(!process.ended_within(Duration::from_millis(10)).await);
        process.kill().await.expect("killed");
        assert!(!process.is_alive());
        assert_eq!(child.wait().expect("reaped").signal(), Some(libc::SIGKILL));
    }
}
