//! Hints about files that cannot be used.

use std::path::Path;

use crate::{
    base::{FileError, files::TRUST},
    cli::hints::text,
    guest::CopyError,
    image::ImageError,
    machine::MachineError,
    project::{ConfigError, LockError, RecordError},
    qemu::{MonitorError, ProcessError},
};

/// Hints about a file of the project or of the cache.
pub(crate) fn of(error: &MachineError) -> Vec<String> {
    match error {
        MachineError::CacheNote(path) => vec![format!(
            "remove it and start its VM again, which writes it: rm {}",
            path.display()
        )],
        MachineError::ForeignUnit(path) => vec![format!("move it: {}", text::move_away(path))],
        MachineError::Config(ConfigError::Invalid { path, .. }) => vec![format!(
            "fix the line, or move the file: {}",
            text::move_away(path)
        )],
        MachineError::Config(ConfigError::Untrusted { path, .. }) => vec![
            format!("read it: cat {}", text::word(&path.display())),
            "if it may do that: k3s-vm trust".to_owned(),
        ],
        error => match file_of(error) {
            Some(error) if error.action == TRUST => of_trust(&error.path),
            _ => Vec::new(),
        },
    }
}

fn of_trust(path: &Path) -> Vec<String> {
    let word = text::word(&path.display());
    let then = if path.is_dir() {
        format!("then move it, or if it is your directory: chmod 700 {word}")
    } else {
        format!("then move it: {}", text::move_away(path))
    };
    vec![format!("see what it is: ls -ld {word}"), then]
}

/// The file that an error is about, from any room.
pub(crate) fn file_of(error: &MachineError) -> Option<&FileError> {
    match error {
        MachineError::File(error)
        | MachineError::Config(ConfigError::File(error))
        | MachineError::Record(RecordError::File(error))
        | MachineError::Lock(LockError::File(error))
        | MachineError::Process(ProcessError::File(error))
        | MachineError::Monitor(MonitorError::Directory(error))
        | MachineError::Copy(CopyError::File(error))
        | MachineError::Image(ImageError::File(error)) => Some(error),
        _ => None,
    }
}
