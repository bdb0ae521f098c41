//! Starts QEMU in a session of its own, with its log, its filters and its pidfile.

use std::{
    fs::{File, TryLockError},
    io::{self, PipeWriter},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    libc,
};

use super::{
    Launch, Monitor, connect_filter, file_access, log_writer,
    process::{KillOnDrop, Process, write_lock},
    process_error::{EndCause, ProcessError, STARTUP_TIMEOUT},
    setuid_filter,
};
use crate::base::{FileError, files};

const POLL: Duration = Duration::from_millis(10);

/// A flag of close_range(2), in the type of its argument.
const CLOSE_ON_EXEC: libc::c_int = libc::CLOSE_RANGE_CLOEXEC.cast_signed();

impl Process {
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
        let (mut command, beside) = command(rules, program, launch, log)?;
        tracing::debug!(?command, "starting QEMU");
        let mut child = command.spawn().map_err(|source| ProcessError::Spawn {
            program: program.to_owned(),
            source,
        })?;
        // The log's writer ends with the last copy of the pipe.
        drop(command);
        let process = Self::of_child(&child)?;
        // A command that is interrupted while it waits must not leave a QEMU that is not recorded yet.
        let unrecorded = KillOnDrop(&process);
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
        std::mem::forget(unrecorded);
        Ok(process)
    }

    async fn answering(
        &self,
        child: &mut Child,
        launch: &Launch,
        log: &Path,
    ) -> Result<(), ProcessError> {
        let began = Instant::now();
        while began.elapsed() < STARTUP_TIMEOUT {
            if let Ok(Some(status)) = child.try_wait() {
                let said = qemu_output(log).unwrap_or_else(|| "it printed nothing".to_owned());
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
}

/// The command that becomes QEMU, and the process beside it.
fn command(
    rules: Option<OwnedFd>,
    program: &Path,
    launch: &Launch,
    log: &Path,
) -> Result<(Command, Beside), ProcessError> {
    files::remove_if_exists(&launch.monitor)?;
    let output = files::open_in_place(log, true)?;
    let (output, beside) = start_log_writer(output, launch).map_err(FileError::on("write", log))?;
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
        .filter_connections(&mut command)
        .map_err(FileError::on("share", log))?;
    Ok((command, beside))
}

/// The process beside QEMU that writes its log and decides what it may connect to.
struct Beside {
    pid: u32,
    socket: UnixStream,
}

impl Beside {
    /// Lets it decide what `command` may connect to.
    #[expect(
        unsafe_code,
        reason = "between fork and exec; it only enters the kernel and allocates nothing"
    )]
    fn filter_connections(&self, command: &mut Command) -> io::Result<()> {
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

/// Starts the process that copies the pipe to `log`, until the pipe's last copy is closed.
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
        // It may be moved while QEMU runs.
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

/// QEMU's output in one line, without time stamps; `None` if it is empty.
pub fn qemu_output(log: &Path) -> Option<String> {
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

/// Makes `command` outlive this program. A session of its own keeps the terminal's signals away from it. It inherits no
/// open file (a lock of `flock`, a pipe with a reader) of the program that started this one; a kernel before 5.11 leaves
/// those open.
///
/// The pidfile is locked in QEMU's name before QEMU runs: the lock lasts through exec, and QEMU takes it again as its own.
/// Until exec the child also has the VM's lock by inheritance. So this program can die at any moment, and the next command
/// finds its QEMU.
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
    use std::os::unix::fs::PermissionsExt;

    use super::*;

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
}
