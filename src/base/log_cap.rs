//! Limited logs: files to which a guest writes are truncated to their end.

use std::{
    convert::Infallible,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};

/// A boot prints about 100 KiB.
const MOST_KEPT: u64 = 4 << 20;
/// The length of the end that is kept of a file that is cut.
const END: u64 = 1 << 20;
/// The mark at the cut. The rest of the cut line follows it.
const CUT: &[u8] = b"[k3s-vm: the guest flooded this log; what stood here was cut] ";
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Does `work`, and limits the files meanwhile, to which QEMU appends.
pub async fn capped<T>(files: &[&Path], work: impl Future<Output = T>) -> T {
    tokio::select! {
        result = work => result,
        never = keep_capped(files) => match never {},
    }
}

async fn keep_capped(files: &[&Path]) -> Infallible {
    loop {
        for file in files {
            if let Err(error) = append(file, &[]) {
                tracing::debug!(%error, "{} is not looked after", file.display());
            }
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// Adds to a file, and truncates a long one to its end. Lines that are written meanwhile are lost.
///
/// # Errors
///
/// When the file does not exist or cannot be written.
pub fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    append_to(
        &OpenOptions::new().read(true).append(true).open(path)?,
        bytes,
    )
}

/// Copies `source` to a log that is open for appending, and is limited in the same way, until the end of `source`.
///
/// # Errors
///
/// When one of them cannot be read or written.
pub fn append_all(mut source: impl Read, log: &File) -> io::Result<()> {
    let mut some = vec![0; 64 << 10];
    loop {
        match source.read(&mut some) {
            Ok(0) => return Ok(()),
            Ok(read) => append_to(log, &some[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Truncates a log that is twice as long as it should be, because no command did.
///
/// # Errors
///
/// When the file does not exist or cannot be written.
pub fn cut_neglected(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).append(true).open(path)?;
    cut(&file, 2 * MOST_KEPT)
}

fn append_to(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    cut(file, MOST_KEPT)
}

fn cut(mut file: &File, most: u64) -> io::Result<()> {
    let length = file.metadata()?.len();
    if length <= most {
        return Ok(());
    }
    file.seek(SeekFrom::Start(length - END))?;
    let mut kept = CUT.to_vec();
    file.take(2 * END).read_to_end(&mut kept)?;
    file.set_len(0)?;
    file.write_all(&kept)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn an_endless_source_does_not_fill_the_disk() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("qemu.log");
        let mut options = OpenOptions::new();
        let options = options.read(true).append(true).create(true);
        let log = options.open(&path).expect("created");
        let source = io::repeat(b'x').take(9 * MOST_KEPT).chain(&b"the end"[..]);
        append_all(source, &log).expect("passed on");
        let kept = fs::read_to_string(&path).expect("text");
        assert!(kept.len() as u64 <= MOST_KEPT && kept.ends_with("xthe end"));
    }

    #[test]
    fn an_oversized_log_keeps_its_end() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("console.log");
        assert!(append(&path, b"no such file").is_err());
        File::create(&path).expect("created");
        append(&path, b"the beginning\n").expect("short");
        let flood = vec![b'x'; usize::try_from(MOST_KEPT).expect("small")];
        append(&path, &flood).expect("cut");
        append(&path, b"the end\n").expect("written");
        let kept = fs::read_to_string(&path).expect("text");
        assert!(kept.len() < flood.len() / 3 && !kept.contains("the beginning"));
        assert!(kept.starts_with("[k3s-vm: ") && kept.ends_with("the end\n"));
    }
}
