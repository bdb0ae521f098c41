//! QEMU as a process: found through the lock on its pidfile, ended through a pidfd. A process id alone is never trusted and
//! never signalled.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::Path,
    process::Child,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{command_line::INCOMING, process_error::ProcessError};
use crate::base::{FileError, Size, files};

const POLL: Duration = Duration::from_millis(10);

/// A living QEMU, held by a pidfd: a reused process id cannot stand in for it.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Process {
    /// The living QEMU that holds the lock on `pidfile`, if any.
    ///
    /// # Errors
    ///
    /// When the pidfile exists and cannot be looked at.
    pub fn holder(pidfile: &Path) -> Result<Option<Self>, ProcessError> {
        // A link could lead to another program's file, and its holder would be another program.
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
        // The pidfd refers to the lock's holder only if that still holds the lock now.
        Ok((lock_holder(&file, pidfile)? == Some(pid)).then_some(Self { pid, pidfd }))
    }

    pub(super) fn of_child(child: &Child) -> Result<Self, ProcessError> {
        let pid = Pid::from_child(child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| Self::failed("open", pid, error))?;
        Ok(Self { pid, pidfd })
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

    /// Returns `true` when it was started with the saved memory of a guest.
    pub fn is_resumed(&self) -> bool {
        self.arguments().iter().any(|argument| argument == INCOMING)
    }

    /// The resident part of its mapping of `length` bytes, which is the guest's memory, from `/proc`.
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

    /// The time since its start, from `/proc`.
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

    /// Returns `true` until it ends.
    pub fn is_alive(&self) -> bool {
        !has_ended(&self.pidfd, Duration::ZERO)
    }

    /// Waits for its end for a long time, without polling. Returns `true` when it ended.
    pub async fn ends_within(&self, patience: Duration) -> bool {
        let Ok(pidfd) = self.pidfd.try_clone() else {
            return self.ended_within(patience).await;
        };
        let wait = tokio::task::spawn_blocking(move || has_ended(&pidfd, patience));
        let _ = wait.await;
        !self.is_alive()
    }

    /// Waits for its end, at most for `patience`. Returns `true` when it ended.
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

/// Waits for the end of a process, at most for `patience`.
fn has_ended(pidfd: &OwnedFd, patience: Duration) -> bool {
    let timeout = rustix::event::Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    };
    let mut fds = [rustix::event::PollFd::new(
        pidfd,
        rustix::event::PollFlags::IN,
    )];
    matches!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1))
}

/// Kills a process that is dropped before it was ready.
pub(super) struct KillOnDrop<'a>(pub(super) &'a Process);

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.0.pidfd, Signal::KILL);
        // SIGKILL takes effect within milliseconds, and the next check should see it.
        has_ended(&self.0.pidfd, Duration::from_secs(1));
    }
}

/// The process that has a write lock on the pidfile, from the kernel.
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
pub(super) fn write_lock() -> libc::flock {
    libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::Command};

    use super::*;

    #[test]
    fn the_process_id_in_a_stale_pidfile_is_ignored() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let pidfile = directory.path().join("qemu.pid");
        assert!(Process::holder(&pidfile).expect("none").is_none());
        std::fs::write(&pidfile, format!("{}\n", std::process::id())).expect("written");
        assert!(Process::holder(&pidfile).expect("stale").is_none());
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
