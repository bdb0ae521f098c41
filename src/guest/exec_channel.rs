//! Short commands for the guest by way of a virtio-serial port, where its listener
//! (`firmware/first-boot/exec-agent.sh`) does them. It is what SSH is for, without a login: an emulated guest takes
//! half a second for one.
//!
//! QEMU's end of the port is a pair of FIFOs. They have no connections, so each request carries a number of its own, and
//! the rest of an answer that was not waited for is skipped.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::unix::pipe,
};

use crate::base::{FileError, files};

/// QEMU's chardev `pipe` opens these two beside the path that it is given (qemu(1), `-chardev pipe`).
const ENDS: [&str; 2] = ["in", "out"];
/// The longest answer, in bytes: a kubeconfig has about 3000.
const LONGEST: usize = 1 << 20;
/// As many bytes are read for one answer, with what is left of others before it.
const PATIENCE: u64 = 4 << 20;

/// Why the listener did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// The port broke, or the guest has not opened it.
    #[error("the guest's port does not work")]
    Port(#[from] io::Error),
    /// The answer is malformed.
    #[error("the guest's listener answers with {0:?}")]
    Garbled(String),
    /// The command ended with another status than 0.
    #[error("{command:?} ended with {status} in the guest")]
    Failed {
        /// The command.
        command: String,
        /// Its exit status.
        status: u32,
    },
}

/// The ends of the port at `path`.
fn ends(path: &Path) -> [PathBuf; 2] {
    ENDS.map(|end| path.with_extension(end))
}

/// Makes the ends of a port at `path`, with nothing in them.
///
/// # Errors
///
/// When they cannot be made.
pub fn make(path: &Path) -> Result<(), FileError> {
    remove(path)?;
    ends(path).iter().try_for_each(|end| files::make_fifo(end))
}

/// Removes the ends of the port at `path`.
///
/// # Errors
///
/// When they cannot be removed.
pub fn remove(path: &Path) -> Result<(), FileError> {
    ends(path)
        .iter()
        .try_for_each(|end| files::remove_if_exists(end))
}

/// Runs `command`, a line of shell, in the guest. Returns its standard output without line ends at its end. It may not
/// end: the caller sets a deadline.
///
/// # Errors
///
/// See [`ListenerError`].
pub async fn exec(path: &Path, command: &str) -> Result<Vec<u8>, ListenerError> {
    let [to, from] = ends(path);
    let mut to = pipe::OpenOptions::new().open_sender(to)?;
    let from = pipe::OpenOptions::new().open_receiver(from)?;
    let mut from = BufReader::new(from.take(PATIENCE));
    let number = format!("{:016x}", rand::random::<u64>());
    to.write_all(format!("{number} {command}\n").as_bytes())
        .await?;
    let [status, length] = loop {
        let mut line = Vec::new();
        if from.read_until(b'\n', &mut line).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let line = String::from_utf8_lossy(&line);
        if let Some(answer) = line.strip_prefix(&number) {
            break header(answer).ok_or_else(|| ListenerError::Garbled(line.trim().to_owned()))?;
        }
    };
    let mut said = vec![0; length as usize];
    from.read_exact(&mut said).await?;
    match status {
        0 => Ok(said),
        status => Err(ListenerError::Failed {
            command: command.to_owned(),
            status,
        }),
    }
}

/// The exit status of a command, and the length of what it said.
fn header(text: &str) -> Option<[u32; 2]> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    let header = [numbers.next()?.ok()?, numbers.next()?.ok()?];
    (numbers.next().is_none() && header[1] as usize <= LONGEST).then_some(header)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{File, OpenOptions},
        io::{BufRead, BufReader, Write},
        thread,
    };

    use super::*;

    /// The result of a request that `answer` answers; it receives the request's number.
    fn asked(answer: impl Fn(&str) -> String + Send + 'static) -> Result<Vec<u8>, ListenerError> {
        let directory = tempfile::tempdir().expect("temporary directory");
        let port = directory.path().join("requests");
        make(&port).expect("made");
        let [to, from] = ends(&port);
        let both = |end| OpenOptions::new().read(true).write(true).open(end);
        // QEMU has both open for reading and writing.
        let (to, mut from): (File, File) = (both(to).expect("opened"), both(from).expect("opened"));
        let guest = thread::spawn(move || {
            from.write_all(b"the rest of another one's answer")
                .expect("written");
            let mut line = String::new();
            BufReader::new(to).read_line(&mut line).expect("read");
            let number = line.split(' ').next().unwrap_or_default();
            assert_eq!(line, format!("{number} echo \"$HOME\"\n"));
            from.write_all(answer(number).as_bytes()).expect("written");
            from
        });
        let asked = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(exec(&port, "echo \"$HOME\""));
        guest.join().expect("no panic");
        remove(&port).expect("removed");
        asked
    }

    #[test]
    fn only_the_matching_answer_is_accepted() {
        let said = asked(|number| format!("\nffff 0 3\nold\n{number} 0 7\n/root\n-"));
        assert_eq!(said.expect("an answer"), b"/root\n-");
        let failed = asked(|number| format!("\n{number} 127 0\n"));
        let failed = failed.expect_err("it failed").to_string();
        assert_eq!(failed, "\"echo \\\"$HOME\\\"\" ended with 127 in the guest");
    }

    #[test]
    fn nonsense_is_not_an_answer() {
        for header in [
            "",
            "0",
            "0 x",
            "0 -1",
            "0 1 2",
            "0 99999999999",
            "0 1048577",
        ] {
            let said = asked(move |number| format!("\n{number} {header}\n"));
            assert!(
                matches!(said, Err(ListenerError::Garbled(_))),
                "{header}: {said:?}"
            );
        }
    }

    #[test]
    fn long_answers_are_limited() {
        // A line without an end, and no more behind the bound than the FIFO holds.
        let said = asked(|_| "x".repeat(usize::try_from(PATIENCE).expect("it fits") + 1024));
        assert!(matches!(said, Err(ListenerError::Port(_))), "{said:?}");
    }

    #[tokio::test]
    async fn without_a_listener_there_is_no_wait() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let port = directory.path().join("requests");
        let said = exec(&port, "true").await;
        assert!(matches!(said, Err(ListenerError::Port(_))), "{said:?}");
        make(&port).expect("made");
        let said = exec(&port, "true").await;
        assert!(matches!(said, Err(ListenerError::Port(_))), "{said:?}");
    }
}
