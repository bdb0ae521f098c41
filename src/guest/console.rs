//! The guest's serial console, which QEMU writes to a file: whether the guest runs, and a kernel's panic.

use std::{
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    time::Instant,
};

use super::signs::Signs;
use crate::base::{FileError, files};

/// Linux's last words (kernel/panic.c).
const PANIC: &[u8] = b"Kernel panic - not syncing";
/// Linux's words for faults of the emulator: a breakpoint that it does not know (arch/x86/kernel/traps.c), and timer
/// interrupts that come too late, as on a busy host (arch/x86/kernel/apic/io_apic.c).
const EMULATOR_FAULTS: [&[u8]; 2] = [b"int3: 0000 [#", b"IO-APIC + timer doesn't work!"];
/// The longest of these words, in bytes.
const LONGEST: usize = EMULATOR_FAULTS[1].len();
/// More at once is skipped; a panic ends the output, so its words are near the end.
const MOST_AT_ONCE: u64 = 1 << 20;

/// The console's log, followed as it grows.
#[derive(Debug)]
pub struct Console {
    path: PathBuf,
    offset: u64,
    /// The end of what was seen, in which a half of the words may stand.
    seen: Vec<u8>,
    panicked: bool,
    is_emulator_crash: bool,
    /// The signs of a boot that does not continue.
    pub signs: Signs,
}

impl Console {
    /// From the file's beginning.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            offset: 0,
            seen: Vec::new(),
            panicked: false,
            is_emulator_crash: false,
            signs: Signs::default(),
        }
    }

    /// Reads what the guest has printed since the last call. Returns `true` if that is anything.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn poll(&mut self) -> Result<bool, FileError> {
        let read = |path: &PathBuf, offset: u64| {
            let mut file = files::open_regular(path).map_err(|error| error.source)?;
            let length = file.metadata()?.len();
            // A file that was cut begins again.
            let offset = if offset > length { 0 } else { offset };
            file.seek(SeekFrom::Start(
                offset.max(length.saturating_sub(MOST_AT_ONCE)),
            ))?;
            let mut bytes = Vec::new();
            file.take(MOST_AT_ONCE).read_to_end(&mut bytes)?;
            Ok((bytes, length))
        };
        let (bytes, length) =
            read(&self.path, self.offset).map_err(FileError::on("read", &self.path))?;
        self.offset = length;
        self.signs.read(&bytes, Instant::now());
        self.seen.extend_from_slice(&bytes);
        let seen = &self.seen;
        let said = |words: &[u8]| seen.windows(words.len()).any(|it| it == words);
        self.panicked |= said(PANIC);
        self.is_emulator_crash |= EMULATOR_FAULTS.into_iter().any(said);
        self.seen.drain(..self.seen.len().saturating_sub(LONGEST));
        Ok(!bytes.is_empty())
    }

    /// Returns `true` when the guest's kernel has panicked.
    pub fn panicked(&self) -> bool {
        self.panicked
    }

    /// Returns `true` when the emulator caused the panic. Linux puts breakpoints into code that it patches while other
    /// CPUs run it, and takes them out again; an emulator that still has the old code translated runs one too late
    /// (QEMU 7.2 and Linux 6.12 with two CPUs, 2 of some 150 boots). And Linux counts timer interrupts for some
    /// milliseconds in which a busy host may not have run QEMU (QEMU 10.0 and Linux 6.12, 1 of some 20 boots at a load
    /// of 20).
    pub fn is_emulator_crash(&self) -> bool {
        self.panicked && self.is_emulator_crash
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write};

    use super::*;

    #[test]
    fn kernel_breakpoints_are_recognised() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("console.log");
        std::fs::write(&path, "[ 1.5] Oops: int3: 0000 [#1] PREEMPT SMP\n").expect("written");
        let mut console = Console::new(path.clone());
        assert!(console.poll().expect("readable") && !console.is_emulator_crash());
        let mut file = OpenOptions::new().append(true).open(&path).expect("there");
        writeln!(file, "[ 1.6] Kernel panic - not syncing: Fatal").expect("written");
        assert!(console.poll().expect("readable") && console.is_emulator_crash());
    }

    #[test]
    fn a_late_timer_is_an_emulator_crash() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("console.log");
        let panic =
            "Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug";
        std::fs::write(&path, panic).expect("written");
        let mut console = Console::new(path);
        assert!(console.poll().expect("readable") && console.is_emulator_crash());
    }

    #[test]
    fn a_panic_is_seen_even_in_two_halves() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("console.log");
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .expect("created");
        let mut console = Console::new(path);
        assert!(!console.poll().expect("read"));
        file.write_all(b"[ 1.0] all is well\n[ 2.0] Kernel panic - not")
            .expect("written");
        assert!(console.poll().expect("read") && !console.panicked());
        file.write_all(b" syncing: Fatal exception\n")
            .expect("written");
        assert!(console.poll().expect("read") && console.panicked());
        assert!(!console.poll().expect("read"));
    }

    #[test]
    fn a_truncated_file_is_followed() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("console.log");
        std::fs::write(&path, "a long beginning of the log\n").expect("written");
        let mut console = Console::new(path.clone());
        assert!(console.poll().expect("read"));
        std::fs::write(&path, "Kernel panic - not syncing\n").expect("cut");
        assert!(console.poll().expect("read") && console.panicked());
        let mut file = OpenOptions::new().append(true).open(&path).expect("opened");
        file.write_all(b"more\n").expect("written");
        assert!(console.poll().expect("read") && !console.poll().expect("read"));
    }
}
