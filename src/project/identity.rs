//! The identity of a VM, for clones that share it.

use serde::{Deserialize, Serialize};

use super::{Project, Record};
use crate::base::{
    FileError, Name,
    files::{self, PRIVATE},
};

/// The name and the keys of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The VM's name, also that of its node.
    pub name: Name,
    /// Its SMBIOS UUID.
    pub uuid: String,
    client_key: String,
    host_key: String,
}

impl Identity {
    /// The identity of the project's VM; `None` when it has no keys.
    ///
    /// # Errors
    ///
    /// When a key cannot be read.
    pub fn of(project: &Project, record: &Record) -> Result<Option<Self>, FileError> {
        let keys = (
            files::read_own(&project.client_key())?,
            files::read_own(&project.host_key())?,
        );
        Ok(match keys {
            (Some(client_key), Some(host_key)) => Some(Self {
                name: record.name.clone(),
                uuid: record.uuid.clone(),
                client_key,
                host_key,
            }),
            _ => None,
        })
    }

    /// Writes these keys to the project.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn give_keys(&self, project: &Project) -> Result<(), FileError> {
        files::write(&project.client_key(), self.client_key.as_bytes(), PRIVATE)?;
        files::write(&project.host_key(), self.host_key.as_bytes(), PRIVATE)
    }
}
