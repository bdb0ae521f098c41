//! On what was measured: without it, a figure says nothing.

use std::{fmt, process::Command, thread};

use k3s_vm::qemu::version;
use serde_json::{Value, json};

use crate::{
    course::Seen,
    measure::{first_number, line},
    program::{CPUS, MEMORY},
    support::repository,
};

/// The machine and the versions.
#[derive(Debug)]
pub(crate) struct Host {
    processor: String,
    cores: usize,
    memory: f64,
    accelerator: String,
    qemu: String,
    kernel: String,
    commit: String,
}

impl Host {
    pub(crate) fn detect(seen: &Seen) -> Self {
        let memory = line("/proc/meminfo", "MemTotal:").unwrap_or_default();
        let processor = line("/proc/cpuinfo", "model name").unwrap_or_default();
        Self {
            processor: processor.trim_start_matches(':').trim().to_owned(),
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory: first_number(&memory) / f64::from(1 << 20),
            accelerator: seen.accelerator.to_string(),
            qemu: said(Command::new(version::PROGRAM).arg("--version"))
                .trim_start_matches("QEMU emulator version ")
                .to_owned(),
            kernel: seen.kernel.clone(),
            commit: said(
                Command::new("git")
                    .args(["describe", "--always", "--dirty", "--exclude=*"])
                    .current_dir(repository("")),
            ),
        }
    }

    pub(crate) fn document(&self) -> Value {
        json!({
            "processor": self.processor, "cores": self.cores, "memory_gib": self.memory,
            "accelerator": self.accelerator, "qemu": self.qemu, "guest_kernel": self.kernel,
            "guest_cpus": CPUS, "guest_memory": MEMORY, "commit": self.commit,
        })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cores of {}, {:.0} GiB; QEMU {} with {}; guest of {CPUS} CPUs and {MEMORY} with Linux {} and a stand-in for \
             k3s; k3s-vm {}",
            self.cores,
            self.processor,
            self.memory,
            self.qemu,
            self.accelerator,
            self.kernel,
            self.commit
        )
    }
}

/// The first line.
fn said(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout);
    let text = String::from_utf8_lossy(&output.unwrap_or_default()).into_owned();
    text.lines().next().unwrap_or_default().to_owned()
}
