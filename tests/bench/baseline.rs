//! The old way, as `old-way.sh` has it: on the same QEMU, image, release, processors and memory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use k3s_vm::qemu::{Accelerator, version};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    program::{CPUS, MEMORY},
    support::{VERSION, repository},
    ways::Way,
};

/// A machine of the old way, in a directory of its own.
pub(crate) struct OldWay {
    directory: TempDir,
    environment: Vec<(&'static str, String)>,
}

impl OldWay {
    /// With the release that the host serves at `mirror`.
    pub(crate) fn new(image: &Path, mirror: &str, accelerator: Accelerator) -> Self {
        let (_, version) = version::find().expect("a QEMU");
        let how = match accelerator {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg,thread=multi",
        };
        // What listens on the host's loopback, the guest sees here.
        let mirror = mirror.replace("127.0.0.1", "10.0.2.2");
        let environment = vec![
            ("IMAGE", image.display().to_string()),
            (
                "RELEASE",
                format!("{mirror}/{}", VERSION.replace('+', "%2B")),
            ),
            ("ACCELERATOR", how.to_owned()),
            ("CPU", accelerator.cpu(version, None)),
            ("CPUS", CPUS.to_owned()),
            ("MEMORY", MEMORY.trim_end_matches("iB").to_owned()),
            ("SSH_PORT", free_port()),
            ("API_PORT", free_port()),
        ];
        Self {
            directory: tempfile::tempdir().expect("temporary directory"),
            environment,
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Way for OldWay {
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(repository("tests/bench/old-way.sh"));
        command
            .arg(verb)
            .current_dir(self.directory())
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    fn in_guest(&self, script: &str) -> Command {
        let mut command = self.command("guest");
        command.arg(script);
        command
    }

    fn pidfile(&self) -> PathBuf {
        self.directory().join("qemu.pid")
    }
}

/// Nothing outlives the benchmark, even when it fails.
impl Drop for OldWay {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.pidfile()).ok();
        if let Some(pid) = pid.and_then(|pid| pid.trim().parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port().to_string()
}
