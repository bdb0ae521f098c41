//! The check of KVM: it exists, may be opened, and runs guests.
//!
//! A `/dev/kvm` exists that opens, makes VMs and passes small tests, and then runs a guest a thousand times too
//! slowly, or not to its end (nested virtualisation by page-table tricks). So the last question is put to QEMU itself:
//! it runs a firmware of a few instructions that counts down and switches the VM off, and has a time for it.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::base::{
    FileError,
    files::{self, PRIVATE},
};

/// KVM's device.
pub const DEVICE: &str = "/dev/kvm";

/// The verdict on KVM on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "reason")]
pub enum Kvm {
    /// It runs guests.
    Works,
    /// There is no `/dev/kvm`.
    Missing,
    /// The user may not open it for reading and writing.
    NoPermission,
    /// It opens and does not run guests.
    Broken(String),
}

/// The countdown takes about 10 ms on a processor; where a guest cannot run it takes 14 s or does not end
/// (0.1 ms against 140 ms were measured for 100,000 rounds).
const ROUNDS: u32 = 10_000_000;
const TRIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// `isa-debug-exit` ends QEMU with twice the written value plus one (QEMU's hw/misc/debugexit.c).
const WRITTEN: u8 = 0x10;
const EXPECTED_EXIT: i32 = 0x21;

/// A KVM that works does so for one boot of the host and one QEMU. One that does not may do so at the next try: another
/// hypervisor has the processor, memory is short, the host is busy.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CachedVerdict {
    boot: String,
    qemu: PathBuf,
    kvm: Kvm,
}

impl Kvm {
    /// Looks at the device, and lets `qemu` try it unless it is in `memory` that it has worked since the host booted.
    pub async fn probe(qemu: &Path, memory: &Path) -> Self {
        match OpenOptions::new().read(true).write(true).open(DEVICE) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Self::NoPermission;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::Missing,
            Err(error) => return Self::Broken(format!("{DEVICE} does not open: {error}")),
            Ok(_) => {}
        }
        if has_worked(qemu, memory) {
            return Self::Works;
        }
        let kvm = try_countdown(qemu)
            .await
            .unwrap_or_else(|error| Self::Broken(error.to_string()));
        if kvm == Self::Works {
            kvm.remember(qemu, memory);
        }
        kvm
    }

    /// Keeps the verdict until the host boots again. That it cannot be kept costs only time.
    fn remember(&self, qemu: &Path, memory: &Path) {
        let remembered = CachedVerdict {
            boot: boot_id(),
            qemu: qemu.to_owned(),
            kvm: self.clone(),
        };
        let saved = serde_json::to_vec(&remembered)
            .map_err(io::Error::from)
            .map_err(FileError::on("write", memory))
            .and_then(|bytes| {
                memory
                    .parent()
                    .map_or(Ok(()), files::create_private_dir)
                    .and_then(|()| files::write(memory, &bytes, PRIVATE))
            });
        if let Err(error) = saved {
            tracing::debug!(%error, "the verdict on KVM is not kept");
        }
    }
}

fn has_worked(qemu: &Path, memory: &Path) -> bool {
    let remembered = files::read(memory)
        .ok()
        .and_then(|it| serde_json::from_slice::<CachedVerdict>(&it).ok());
    remembered.is_some_and(|it| it.boot == boot_id() && it.qemu == qemu && it.kvm == Kvm::Works)
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

async fn try_countdown(qemu: &Path) -> Result<Kvm, FileError> {
    let directory = tempfile::tempdir().map_err(FileError::on(
        "create a directory in",
        &std::env::temp_dir(),
    ))?;
    let firmware = directory.path().join("countdown.bin");
    files::write(&firmware, &countdown(), PRIVATE)?;
    let mut command = Command::new(qemu);
    command
        .args([
            "-nodefaults",
            "-no-user-config",
            "-machine",
            "q35",
            "-enable-kvm",
            "-cpu",
            "host",
            "-m",
            "16M",
        ])
        .args([
            "-display",
            "none",
            "-device",
            "isa-debug-exit,iobase=0x501,iosize=2",
            "-bios",
        ])
        .arg(&firmware)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let run = async { command.spawn()?.wait_with_output().await };
    Ok(match tokio::time::timeout(TRIAL_TIMEOUT, run).await {
        Err(_) => Kvm::Broken(format!(
            "a guest's countdown of {ROUNDS} did not end within {} s",
            TRIAL_TIMEOUT.as_secs()
        )),
        Ok(Err(error)) => Kvm::Broken(format!("{} does not run: {error}", qemu.display())),
        Ok(Ok(output)) if output.status.code() == Some(EXPECTED_EXIT) => Kvm::Works,
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said
                .lines()
                .map(|line| line.split_once(": ").map_or(line, |it| it.1))
                .find(|line| !line.is_empty());
            Kvm::Broken(format!(
                "QEMU ended a trial guest with {}: {}",
                output.status,
                last.unwrap_or("no message")
            ))
        }
    })
}

/// A BIOS of 64 KiB that counts down from [`ROUNDS`] in 16-bit mode and writes to the exit device.
fn countdown() -> Vec<u8> {
    const SIZE: usize = 0x1_0000;
    const CODE: usize = 0xff00;
    const RESET_VECTOR: usize = 0xfff0;
    let rounds = ROUNDS.to_le_bytes();
    let code = [
        &[0x66, 0xb9][..], // mov ecx, ROUNDS
        &rounds,
        &[0x66, 0x49],       // round: dec ecx
        &[0x75, 0xfc],       // jnz round
        &[0xba, 0x01, 0x05], // mov dx, 0x501
        &[0xb0, WRITTEN],    // mov al, WRITTEN
        &[0xee],             // out dx, al
        &[0xf4, 0xeb, 0xfd], // wait: hlt; jmp wait
    ]
    .concat();
    let mut bios = vec![0xf4; SIZE];
    bios[CODE..CODE + code.len()].copy_from_slice(&code);
    let distance =
        i16::try_from(CODE.wrapping_sub(RESET_VECTOR + 3).cast_signed()).expect("a near jump");
    bios[RESET_VECTOR] = 0xe9; // jmp CODE
    bios[RESET_VECTOR + 1..RESET_VECTOR + 3].copy_from_slice(&distance.to_le_bytes());
    bios
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_countdown_ends_qemu_with_the_expected_code() {
        let (qemu, _) = crate::qemu::version::find().expect("apt-get install qemu-system-x86");
        let directory = tempfile::tempdir().expect("temporary directory");
        let firmware = directory.path().join("countdown.bin");
        fs::write(&firmware, countdown()).expect("written");
        let run = Command::new(qemu)
            .args([
                "-nodefaults",
                "-machine",
                "q35",
                "-accel",
                "tcg",
                "-display",
                "none",
                "-m",
                "16M",
            ])
            .args(["-device", "isa-debug-exit,iobase=0x501,iosize=2", "-bios"])
            .arg(&firmware)
            .kill_on_drop(true)
            .status();
        let status = tokio::time::timeout(Duration::from_secs(60), run)
            .await
            .expect("it ends")
            .expect("it runs");
        assert_eq!(status.code(), Some(EXPECTED_EXIT));
    }

    #[test]
    fn only_a_kvm_that_works_is_remembered_for_this_boot_and_this_qemu() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let memory = directory.path().join("cache/kvm.json");
        let [qemu, other] = ["/usr/bin/qemu", "/opt/qemu"].map(Path::new);
        // An older program has kept this.
        Kvm::Broken("Device or resource busy".into()).remember(qemu, &memory);
        assert!(!has_worked(qemu, &memory));
        Kvm::Works.remember(qemu, &memory);
        assert!(has_worked(qemu, &memory));
        assert!(!has_worked(other, &memory));
        let text = fs::read_to_string(&memory)
            .expect("kept")
            .replace(&boot_id(), "another");
        fs::write(&memory, text).expect("written");
        assert!(!has_worked(qemu, &memory));
    }
}
