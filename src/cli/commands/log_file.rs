//! A log of the host, read as it grows.

use std::{
    fs::File,
    io::{ErrorKind, Read, Seek},
    path::{Path, PathBuf},
};

use clap::ValueEnum;

use crate::{
    base::files,
    cli::error::CommandError,
    machine::{self, control},
    project::Project,
    qemu::Process,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Source {
    /// Output of the guest's serial console since the last start
    Console,
    /// k3s's journal in the guest
    K3s,
    /// The guest's first boot: cloud-init's logs, and the journal of the units that set up the node
    CloudInit,
    /// Output of QEMU itself since the last start
    Qemu,
    /// All of them
    All,
}

pub(crate) fn runs(project: &Project) -> Result<bool, CommandError> {
    let holder = Process::holder(&project.pidfile()).map_err(machine::MachineError::from)?;
    Ok(holder.is_some())
}

/// The most of a log that is read at once, in bytes: a file with holes can be longer than the memory.
const MOST_AT_ONCE: u64 = 8 << 20;

/// A log that is a file of the host, read as it grows.
pub(crate) struct Log {
    source: Source,
    path: PathBuf,
    file: File,
}

impl Log {
    /// `None` when it does not exist yet.
    pub(crate) fn open(source: Source, project: &Project) -> Result<Option<Self>, CommandError> {
        let path = match source {
            Source::Qemu => project.qemu_log(),
            _ => project.console_log(),
        };
        match files::open_regular(&path) {
            Ok(file) => Ok(Some(Self { source, path, file })),
            Err(error) if error.source.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&path, &error.source)),
        }
    }

    /// The text that was added since the last call, as far as it is read at once; empty at the end.
    pub(crate) async fn more(&mut self, project: &Project) -> Result<String, CommandError> {
        if self.source == Source::Console {
            control::guest_logs::collect(project).await;
        }
        let mut bytes = Vec::new();
        self.read(&mut bytes)
            .map_err(|error| unreadable(&self.path, &error))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn read(&mut self, bytes: &mut Vec<u8>) -> std::io::Result<()> {
        // A new start truncates the file.
        if self.file.metadata()?.len() < self.file.stream_position()? {
            self.file.rewind()?;
        }
        (&self.file).take(MOST_AT_ONCE).read_to_end(bytes)?;
        Ok(())
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> CommandError {
    CommandError::new(format!("cannot read {}", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_with_holes_is_read_in_parts() {
        let path = tempfile::NamedTempFile::new().expect("temporary file");
        path.as_file().set_len(1 << 40).expect("sparse");
        let mut log = Log {
            source: Source::Console,
            path: path.path().to_owned(),
            file: path.reopen().expect("opened"),
        };
        for _ in 0..2 {
            let mut bytes = Vec::new();
            log.read(&mut bytes).expect("read");
            assert_eq!(bytes.len() as u64, MOST_AT_ONCE);
        }
    }
}
