//! The guest's serial console, which QEMU keeps in a file: a sign of life, and the last words of a kernel. A console
//! that floods is cut.

use std::{
    convert::Infallible,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::base::FileError;

/// What Linux prints last (kernel/panic.c).
const PANIC: &[u8] = b"Kernel panic - not syncing";
/// More at once is skipped; a panic ends the output, so its words are near the end.
const MOST_AT_ONCE: u64 = 1 << 20;
/// A boot prints about 100 KiB.
const MOST_KEPT: u64 = 4 << 20;
/// What stands above the rest of a console that was cut.
const CUT: &[u8] = b"[k3s-vm: the console flooded; what stood here was cut]\n";
const LOOK: Duration = Duration::from_millis(500);

/// The console's log, followed as it grows.
#[derive(Debug)]
pub struct Console {
    path: PathBuf,
    offset: u64,
    /// The end of what was seen, in which a half of the words may stand.
    seen: Vec<u8>,
    panicked: bool,
}

impl Console {
    /// From the file's beginning.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            offset: 0,
            seen: Vec::new(),
            panicked: false,
        }
    }

    /// Whether the guest has printed anything since the last call.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn poll(&mut self) -> Result<bool, FileError> {
        let read = |path: &PathBuf, offset: u64| {
            let mut file = File::open(path)?;
            let length = file.metadata()?.len();
            // A file that was cut begins anew.
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
        self.seen.extend_from_slice(&bytes);
        self.panicked |= self.seen.windows(PANIC.len()).any(|window| window == PANIC);
        self.seen
            .drain(..self.seen.len().saturating_sub(PANIC.len()));
        Ok(!bytes.is_empty())
    }

    /// Whether the guest's kernel has printed its last.
    pub fn panicked(&self) -> bool {
        self.panicked
    }
}

/// Does `work` and keeps the console's file, which QEMU appends to, from growing without end meanwhile.
pub async fn capped<T>(console: &Path, work: impl Future<Output = T>) -> T {
    tokio::select! {
        result = work => result,
        never = keep_capped(console) => match never {},
    }
}

async fn keep_capped(console: &Path) -> Infallible {
    loop {
        if let Err(error) = cap(console) {
            tracing::debug!(%error, "the console's file is not looked after");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Cuts a file that has grown too long down to its end. What comes between reading and cutting is lost.
fn cap(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    let length = file.metadata()?.len();
    if length <= MOST_KEPT {
        return Ok(());
    }
    file.seek(SeekFrom::Start(length - MOST_AT_ONCE))?;
    let mut kept = CUT.to_vec();
    (&file).take(2 * MOST_AT_ONCE).read_to_end(&mut kept)?;
    file.set_len(0)?;
    file.write_all(&kept)
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write};

    use super::*;

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
    fn a_flood_is_cut_down_to_its_end() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("console.log");
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .expect("created");
        let mut console = Console::new(path.clone());
        file.write_all(b"the beginning\n").expect("written");
        cap(&path).expect("short");
        assert!(console.poll().expect("read"));
        let flood = vec![b'x'; usize::try_from(MOST_KEPT).expect("small")];
        file.write_all(&flood).expect("written");
        file.write_all(b"Kernel panic - not syncing: the end\n")
            .expect("written");
        cap(&path).expect("cut");
        let kept = std::fs::read_to_string(&path).expect("text");
        assert!(kept.len() < flood.len() / 3 && !kept.contains("the beginning"));
        assert!(kept.ends_with("the end\n"));
        assert!(console.poll().expect("read") && console.panicked());
        // QEMU's own descriptor goes on behind what is kept.
        file.write_all(b"more\n").expect("written");
        assert!(console.poll().expect("read") && !console.poll().expect("read"));
    }
}
