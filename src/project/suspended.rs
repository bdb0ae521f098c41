//! A suspended VM: its memory in one file, and in another one the surroundings that the memory needs. The second one is
//! written last and removed first, and decides whether the VM is suspended.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Project, Record,
    seal::{self, Kind},
};
use crate::base::{
    FileError,
    files::{self, PRIVATE},
};

/// The only layout.
const SCHEMA: u32 = 1;

/// The content of `.k3s-vm/suspended.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suspended {
    /// The layout's number.
    pub schema: u32,
    /// The time of the suspend, in seconds since 1970.
    pub since: u64,
    /// The disk, which must not have changed since.
    pub disk: FileStamp,
    /// The content of the memory file.
    pub memory: Memory,
    /// The memory file, if it is shared with other VMs.
    pub from: Option<PathBuf>,
}

/// A guest's memory and devices, saved to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Its QEMU and host.
    pub origin: MachineAbi,
    /// The file's length in bytes.
    pub length: u64,
    /// Its checksum.
    pub checksum: u32,
}

/// The surroundings of a guest that its memory needs unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineAbi {
    /// QEMU's full version.
    pub qemu: String,
    /// QEMU's arguments as far as the guest sees them.
    pub arguments: Vec<String>,
    /// The host's CPU, for a guest with KVM.
    pub processor: Option<String>,
}

/// The size and time of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileStamp {
    /// The length in bytes.
    pub length: u64,
    /// The time of modification, in seconds since 1970.
    pub seconds: i64,
    /// Its nanoseconds.
    pub nanoseconds: i64,
}

impl FileStamp {
    /// The stamp of the file at `path`.
    ///
    /// # Errors
    ///
    /// When it cannot be looked at.
    pub fn of(path: &Path) -> Result<Self, FileError> {
        let metadata = fs::metadata(path).map_err(FileError::on("look at", path))?;
        Ok(Self {
            length: metadata.len(),
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec(),
        })
    }
}

impl Suspended {
    /// Returns `true` when the project's VM is suspended. The file may be damaged.
    pub fn exists(project: &Project) -> bool {
        project.suspended().exists()
    }

    /// Returns `true` when the stopped VM of that record is suspended. An unfinished VM may have a template's memory,
    /// and is not suspended.
    pub fn holds(project: &Project, record: &Record) -> bool {
        record.provisioned && Self::exists(project)
    }

    /// Reads the file; `None` without one.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn load(project: &Project) -> Result<Option<Result<Self, String>>, FileError> {
        let path = project.suspended();
        let Some(text) = files::read_own(&path)? else {
            return Ok(None);
        };
        let is_trusted = seal::holds(Kind::Suspended, &path, &text)?;
        Ok(Some(Self::parse(&text).and_then(|it| {
            if is_trusted {
                Ok(it)
            } else {
                Err("your k3s-vm on this host did not write it".to_owned())
            }
        })))
    }

    /// Reads the file's text.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let suspended: Self = seal::body(text).map_err(|error| error.to_string())?;
        if suspended.schema != SCHEMA {
            return Err(format!(
                "its schema is {}, this program knows {SCHEMA}",
                suspended.schema
            ));
        }
        Ok(suspended)
    }

    /// The memory file.
    pub fn path(&self, project: &Project) -> PathBuf {
        self.from.clone().unwrap_or_else(|| project.memory())
    }

    /// Saves the file: from now on the VM is suspended.
    ///
    /// # Errors
    ///
    /// When the project's directory cannot be written.
    pub fn save(&self, project: &Project) -> Result<(), FileError> {
        self.save_as(&project.suspended())
    }

    /// Saves the file at another path in the project, to be moved later.
    ///
    /// # Errors
    ///
    /// When that place cannot be written.
    pub fn save_as(&self, path: &Path) -> Result<(), FileError> {
        let text = seal::sealed(Kind::Suspended, path, self)?;
        files::write(path, text.as_bytes(), PRIVATE)
    }

    /// Removes both files, durably: from now on the VM is not suspended.
    ///
    /// # Errors
    ///
    /// When one of them cannot be removed.
    pub fn discard(project: &Project) -> Result<(), FileError> {
        files::remove_if_exists(&project.suspended())?;
        files::remove_if_exists(&project.memory())?;
        files::sync_directory(&project.directory())
    }

    /// The layout that this program writes.
    pub const fn schema() -> u32 {
        SCHEMA
    }
}
