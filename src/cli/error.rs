//! The one error that reaches the terminal: a sentence with its causes, hints, an exit code.

use std::fmt::Display;

use crate::{
    base::causes::with_causes,
    cli::hints,
    image::ImageError,
    machine::{MachineError, error::UpgradeError},
};

/// The error that ends a command.
#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) message: String,
    pub(crate) excerpt: Option<String>,
    pub(crate) hints: Vec<String>,
    pub(crate) code: u8,
}

/// The exit codes besides 0 and clap's 2; `status` uses 3 to 5 for its answer.
pub(crate) mod code {
    /// Something failed.
    pub(crate) const FAILURE: u8 = 1;
    /// The command line is invalid, or contradicts the VM.
    pub(crate) const USAGE: u8 = 2;
    /// The VM is stopped.
    pub(crate) const STOPPED: u8 = 3;
    /// There is no VM.
    pub(crate) const ABSENT: u8 = 4;
    /// The VM runs and is not healthy.
    pub(crate) const UNHEALTHY: u8 = 5;
    /// The tool is not installed, as in shells.
    pub(crate) const NOT_FOUND: u8 = 127;
}

impl CommandError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            excerpt: None,
            hints: Vec::new(),
            code: code::FAILURE,
        }
    }

    /// A signal ended the command.
    pub(crate) fn interrupted(code: u8) -> Self {
        Self {
            code,
            ..Self::new("interrupted")
        }
        .hint("run the same command again; it continues where it stopped")
    }

    /// Returns `true` when a signal ended the command.
    pub(crate) fn is_interruption(&self) -> bool {
        self.code > 128
    }

    pub(crate) fn because(mut self, cause: &dyn Display) -> Self {
        self.message = format!("{}: {cause}", self.message);
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

impl From<MachineError> for CommandError {
    fn from(error: MachineError) -> Self {
        let excerpt = match &error {
            MachineError::Boot { log, .. } if !log.is_empty() => Some(log.clone()),
            MachineError::Upgrade(error) => error.log().map(str::to_owned),
            _ => None,
        };
        let code = match &error {
            MachineError::Absent(_) => code::ABSENT,
            MachineError::Stopped(_) | MachineError::Suspended(_) => code::STOPPED,
            MachineError::Paused => code::UNHEALTHY,
            MachineError::Choice(_)
            | MachineError::Upgrade(UpgradeError::Step(_) | UpgradeError::Release(_))
            | MachineError::Contradiction { .. }
            | MachineError::Running
            | MachineError::SnapshotExists(_)
            | MachineError::NoSnapshot(_)
            | MachineError::Image(ImageError::UnknownAlias { .. } | ImageError::BadUrl { .. }) => {
                code::USAGE
            }
            _ => code::FAILURE,
        };
        Self {
            message: with_causes(&error),
            excerpt,
            hints: hints::of(&error),
            code,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::FileError, project::RecordError};

    #[test]
    fn causes_come_once_and_hints_with_them() {
        let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = MachineError::from(FileError {
            action: "read",
            path: "/p/.k3s-vm/record.json".into(),
            source,
        });
        assert_eq!(
            CommandError::from(error).message,
            "cannot read /p/.k3s-vm/record.json: permission denied"
        );
        let torn = RecordError::Unreadable {
            path: "/p/.k3s-vm/record.json".into(),
            reason: "EOF".into(),
        };
        let error = CommandError::from(MachineError::from(torn));
        assert!(error.hints[0].contains("k3s-vm reset"), "{:?}", error.hints);
        assert_eq!(error.code, code::FAILURE);
    }
}
