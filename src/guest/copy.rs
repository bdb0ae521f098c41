//! Files between the host and the guest, as an archive over SSH. Both sides unpack it into a new directory beside its
//! place, and give it that when it is whole: what breaks off leaves nothing that looks like a copy.

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    thread::JoinHandle,
};

use tokio::{io::AsyncWrite, net::UnixStream, task::spawn_blocking};

use crate::{
    base::Progress,
    guest::{
        Ssh, SshError,
        copy_error::CopyError,
        pack::pack,
        unpack::{self, Staged},
    },
};

/// The kind of a path in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemotePathKind {
    /// A directory.
    Folder,
    /// Something else.
    File,
    /// Nothing, in a directory that is there.
    Free,
    /// Nothing, and no directory that it could be put in.
    Nowhere,
}

const NOT_THERE: u32 = 66;

const SPECIAL: u32 = 67;

const NO_SIZE: u32 = 68;

/// tar's, of files that changed while it read them.
const CHANGED: u32 = 1;

/// The words of tar and mktemp for a full disk.
const FULL: [&str; 2] = ["No space left on device", "Wrote only"];

/// The words of tar besides a reason: warnings, and that it gives up.
const NO_REASON: [&str; 5] = [
    "time stamp",
    "Removing leading",
    "file changed as we read it",
    "Exiting with failure status",
    "Error is not recoverable",
];

/// The source is $1. A link that it is itself is followed, and those in it are not.
const FETCH: &str = r#"
[ -e "$1" ] || exit 66
p=$(realpath -- "$1")
[ ! -d "$p" ] || exec tar -C "$p" -cf - .
[ -f "$p" ] || exit 67
[ -s "$p" ] || [ "$(head -c 1 -- "$p" | wc -c)" -eq 0 ] || exit 68
exec tar -C "${p%/*}/" -cf - "./${p##*/}"
"#;

/// The path is $1.
const LOOK: &str = r#"
if [ -d "$1" ]; then echo folder
elif [ -e "$1" ] || [ -L "$1" ]; then echo file
elif [ -d "$(dirname -- "$1")" ]; then echo free
else echo nowhere; fi
"#;

/// Into the directory $1, as $2. A directory that is there keeps its mode and its owner.
const TAKE: &str = r#"
set -eu
umask 077
stage=$(mktemp -d "$(realpath -- "$1")/.k3s-vm-cp.XXXXXX")
trap 'rm -rf "$stage"' EXIT
trap 'exit 1' HUP INT TERM PIPE
tar -C "$stage" --no-same-owner -pxf -
[ -e "$stage/whole" ]
it=$stage/it to=$2
case $to in /*) ;; *) to=$PWD/$to ;; esac
if [ -d "$it" ] && [ -d "$to" ]; then
    cd "$it"
    export to
    find . -type d -exec sh -c '
        for it; do
            [ ! -d "$to/$it" ] || { chmod --reference="$to/$it" "$it"; chown --reference="$to/$it" "$it"; }
        done' sh {} +
    cp -alf . "$to/" 2>/dev/null || cp -a --remove-destination . "$to/"
else
    [ ! -L "$to" ] || to=$(realpath -- "$to")
    mv -fT "$it" "$to"
fi
"#;

impl Ssh {
    /// The kind of `path` in the guest.
    ///
    /// # Errors
    ///
    /// When the guest does not tell.
    pub async fn path_kind(&self, path: &str) -> Result<RemotePathKind, CopyError> {
        let said = self.output(&script(LOOK, &[path])).await?;
        Ok(match said.trim_ascii() {
            b"folder" => RemotePathKind::Folder,
            b"file" => RemotePathKind::File,
            b"free" => RemotePathKind::Free,
            _ => RemotePathKind::Nowhere,
        })
    }

    /// Copies `path` of the guest, called `what` in messages, to a new directory in `directory`; gives with it what tar
    /// warns of.
    ///
    /// # Errors
    ///
    /// When it is not there, or the copy is not whole.
    pub async fn fetch(
        &self,
        path: &str,
        directory: &Path,
        what: &str,
        progress: &Arc<dyn Progress>,
    ) -> Result<(Staged, Vec<String>), CopyError> {
        let stage = unpack::stage_in(directory)?;
        let (stream, other) = pipe()?;
        let (what, progress) = (what.to_owned(), Arc::clone(progress));
        let mut arriving = Arriving {
            stream,
            worker: Worker(Some(std::thread::spawn(move || {
                unpack::unpack(other, stage, &what, &*progress)
            }))),
        };
        let mut words = Words::default();
        let input = tokio::io::empty();
        let ran = self
            .run(
                &script(FETCH, &[path]),
                input,
                &mut arriving.stream,
                &mut words,
            )
            .await;
        let unpacked = arriving.end();
        match ran {
            // The thread has closed its end, and knows why.
            Err(SshError::Pipe(error)) => {
                Err(unpacked.err().unwrap_or(SshError::Pipe(error).into()))
            }
            Err(error) => Err(error.into()),
            Ok(0) => Ok((unpacked?, Vec::new())),
            Ok(CHANGED) => Ok((unpacked?, words.lines())),
            Ok(NOT_THERE) => Err(CopyError::NotInGuest(path.to_owned())),
            Ok(NO_SIZE) => Err(CopyError::NoSize(path.to_owned())),
            Ok(SPECIAL) => Err(CopyError::Special(path.to_owned())),
            Ok(_) => Err(words.error()),
        }
    }

    /// Copies `source` of the host, called `what` in messages, into the directory `directory` of the guest, as
    /// `target`; gives what was left out.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or the guest does not take it.
    pub async fn send(
        &self,
        source: &Path,
        (directory, target): (&str, &str),
        what: &str,
        progress: &Arc<dyn Progress>,
    ) -> Result<Vec<String>, CopyError> {
        let (mut stream, other) = pipe()?;
        let (source, what, progress) = (source.to_owned(), what.to_owned(), Arc::clone(progress));
        let telling = Arc::clone(&progress);
        let packing = spawn_blocking(move || pack(&source, other, &what, &*telling));
        let mut words = Words::default();
        let command = script(TAKE, &[directory, target]);
        let output = tokio::io::sink();
        let ran = self.run(&command, &mut stream, output, &mut words).await;
        drop(stream);
        let packed = packing.await.expect("neither panics nor is cancelled");
        match (ran, packed) {
            (Ok(0), Ok(packed)) => {
                progress.end(packed.transfer);
                Ok(packed.left_out)
            }
            (_, Err(error)) if !matches!(error, CopyError::Archive(_)) => Err(error),
            (Err(error), _) => Err(error.into()),
            (Ok(255), _) => Err(SshError::Broken(russh::Error::Disconnect).into()),
            (Ok(_), _) => Err(words.error()),
        }
    }
}

/// A shell's command that runs `text` with `arguments`.
pub(crate) fn script(text: &str, arguments: &[&str]) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let arguments: String = arguments
        .iter()
        .map(|argument| " ".to_owned() + &quoted(argument))
        .collect();
    format!("exec sh -c {} k3s-vm{arguments}", quoted(text))
}

/// Two ends of a stream: ours, and one for a thread.
fn pipe() -> Result<(UnixStream, std::os::unix::net::UnixStream), CopyError> {
    let pair = || {
        let (ours, other) = UnixStream::pair()?;
        let other = other.into_std()?;
        other.set_nonblocking(false)?;
        Ok((ours, other))
    };
    pair().map_err(|error| SshError::Pipe(error).into())
}

/// An archive on its way to the thread that unpacks it. When this is dropped the stream ends first, then the thread.
struct Arriving<T> {
    stream: UnixStream,
    worker: Worker<T>,
}

impl<T> Arriving<T> {
    fn end(self) -> T {
        let Self { stream, mut worker } = self;
        drop(stream);
        let thread = worker.0.take().expect("it is taken only here");
        thread.join().expect("it does not panic")
    }
}

/// A thread that is over when this is dropped, so that nothing of what it has begun is left behind.
struct Worker<T>(Option<JoinHandle<T>>);

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

/// The first words of a guest that may say more than anybody wants to keep.
#[derive(Debug, Default)]
struct Words(Vec<u8>);

impl Words {
    const MOST: usize = 4 << 10;

    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.0);
        text.lines().map(str::to_owned).collect()
    }

    fn error(&self) -> CopyError {
        let lines = self.lines();
        let full = lines
            .iter()
            .find(|line| FULL.iter().any(|words| line.contains(words)));
        let is_reason = |line: &&String| !NO_REASON.iter().any(|words| line.contains(words));
        match (full, lines.iter().find(is_reason).or(lines.first())) {
            (Some(line), _) => CopyError::GuestFull(line.clone()),
            (None, Some(line)) => CopyError::Guest(line.clone()),
            (None, None) => CopyError::Guest("it ended without a word".to_owned()),
        }
    }
}

impl AsyncWrite for Words {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = Self::MOST.saturating_sub(self.0.len()).min(bytes.len());
        self.0.extend_from_slice(&bytes[..room]);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_not_the_reason() {
        let said = b"tar: it: implausibly old time stamp 1960-01-01 00:00:00\n\
            tar: it: time stamp 2107-01-01 00:00:00 is 2556143999.9 s in the future\n\
            tar: it/x: Cannot open: Permission denied\n\
            tar: Exiting with failure status due to previous errors\n";
        let error = Words(said.to_vec()).error().to_string();
        assert!(
            error.ends_with("tar: it/x: Cannot open: Permission denied"),
            "{error}"
        );
    }

    #[test]
    fn files_without_size_are_rejected() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let empty = directory.path().join("empty");
        std::fs::write(&empty, "").expect("written");
        for (path, expected) in [
            ("/proc/version", 68),
            ("/dev/null", 67),
            ("/nowhere", 66),
            (empty.to_str().expect("UTF-8"), 0),
        ] {
            let output = std::process::Command::new("sh")
                .args(["-c", &script(FETCH, &[path])])
                .output();
            let code = output.expect("a shell").status.code();
            assert_eq!(code, Some(expected), "{path}");
        }
    }

    #[test]
    fn names_are_quoted_for_the_guests_shell() {
        let command = script("echo \"$1\"", &["it's; rm -rf $HOME"]);
        let output = std::process::Command::new("sh")
            .args(["-c", &command])
            .output();
        let said = String::from_utf8(output.expect("a shell").stdout).expect("text");
        assert_eq!(said, "it's; rm -rf $HOME\n");
    }
}
