//! Snapshots of a VM, each in its own directory.
//!
//! ```text
//! snapshots/<name>/disk.qcow2      the VM's disk then
//! snapshots/<name>/uefi-vars.fd    what the firmware had noted, where it is UEFI
//! snapshots/<name>/memory          what the guest had in its memory, if it ran or was suspended
//! snapshots/<name>/snapshot.json   what all that is
//! ```
//!
//! A directory has its name when all that is in it is on the disk.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Project, Record,
    record::{BaseImage, Release},
    seal::{self, Kind},
    suspended::Memory,
};
use crate::base::{
    FileError, Size, SnapshotName,
    files::{self, PRIVATE},
};

/// The only layout.
const SCHEMA: u32 = 1;
/// The file in a snapshot's directory that describes it.
pub(super) const NOTE: &str = "snapshot.json";

/// The content of `snapshot.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The layout's number.
    pub schema: u32,
    /// The time of its creation, in seconds since 1970.
    pub created: u64,
    /// The SMBIOS UUID of its VM.
    pub uuid: String,
    /// The disk's size in the guest.
    pub size: Size,
    /// The backing image of the disk.
    pub image: BaseImage,
    /// The k3s release on it.
    pub release: Release,
    /// The disk's file.
    pub disk: Content,
    /// The content of the memory file, if there is one.
    pub memory: Option<Memory>,
}

/// The content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// The file's length in bytes.
    pub length: u64,
    /// Its checksum.
    pub checksum: u32,
}

/// A snapshot in the directory of snapshots.
#[derive(Debug)]
pub struct Found {
    /// Its name.
    pub name: SnapshotName,
    /// The space of its files on the host.
    pub used: Size,
    /// The snapshot, or the reason why it cannot be read.
    pub snapshot: Result<Snapshot, String>,
}

impl Snapshot {
    /// The snapshot of a VM, as it is now.
    pub fn new(record: &Record, created: u64, disk: Content, memory: Option<Memory>) -> Self {
        Self {
            schema: SCHEMA,
            created,
            uuid: record.uuid.clone(),
            size: record.disk,
            image: record.image.clone(),
            release: record.release.clone(),
            disk,
            memory,
        }
    }

    /// Reads the description of a snapshot.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn load(folder: &Path) -> Result<Self, String> {
        let path = folder.join(NOTE);
        let text = files::read_own(&path).map_err(|error| error.to_string())?;
        let text = text.ok_or_else(|| format!("it has no {NOTE}"))?;
        let snapshot: Self = seal::body(&text).map_err(|error| error.to_string())?;
        if snapshot.schema != SCHEMA {
            return Err(format!(
                "its schema is {}, this program knows {SCHEMA}",
                snapshot.schema
            ));
        }
        match seal::holds(Kind::Snapshot, &path, &text) {
            Ok(true) => Ok(snapshot),
            Ok(false) => Err("your k3s-vm on this host did not write it".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Writes the description of a snapshot.
    ///
    /// # Errors
    ///
    /// When the directory cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), FileError> {
        let path = folder.join(NOTE);
        let text = seal::sealed(Kind::Snapshot, &path, self)?;
        files::write(&path, text.as_bytes(), PRIVATE)
    }
}

/// The directory of the snapshot `name`, which may not exist.
pub fn folder(project: &Project, name: &SnapshotName) -> PathBuf {
    project.snapshots().join(name.as_str())
}

/// The project's snapshots, the oldest first and damaged ones last.
///
/// # Errors
///
/// When their directory cannot be read.
pub fn list(project: &Project) -> Result<Vec<Found>, FileError> {
    let path = project.snapshots();
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(FileError::on("list", &path))?,
    };
    let names = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir()))
        .filter_map(|entry| entry.file_name().to_str()?.parse::<SnapshotName>().ok());
    let mut all: Vec<Found> = names
        .map(|name| {
            let folder = folder(project, &name);
            Found {
                used: used(&folder),
                snapshot: Snapshot::load(&folder),
                name,
            }
        })
        .collect();
    all.sort_by_cached_key(|it| {
        let created = it.snapshot.as_ref().map_or(u64::MAX, |it| it.created);
        (created, it.name.clone())
    });
    Ok(all)
}

fn used(folder: &Path) -> Size {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| files::allocated(&entry.path()).as_bytes());
    Size::bytes(bytes.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_directories_are_ignored_and_damaged_snapshots_are_listed() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let project = Project::at(directory.path());
        assert!(list(&project).expect("none").is_empty());
        for name in ["good", "bad", ".new", "a b"] {
            fs::create_dir_all(project.snapshots().join(name)).expect("made");
        }
        fs::write(project.snapshots().join("file"), "").expect("written");
        let record = serde_json::json!({
            "schema": 3, "name": "k3s", "uuid": "u", "disk": "1GiB",
            "image": { "source": "s", "path": "/i", "digest": "0".repeat(64) },
            "release": { "version": "v", "binary": "/b", "airgap": null },
            "firmware": "bios", "api_port": 1, "kubeconfig": "k", "provisioned": true,
        });
        let record = Record::parse(&record.to_string()).expect("a record");
        let disk = Content {
            length: 1,
            checksum: 2,
        };
        let made = Snapshot::new(&record, 7, disk, None);
        let good = folder(&project, &"good".parse().expect("a name"));
        made.save(&good).expect("written");
        let found = list(&project).expect("listed");
        let names: Vec<&str> = found.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["good", "bad"]);
        assert_eq!(found[0].snapshot, Ok(made));
        assert_eq!(found[1].snapshot, Err("it has no snapshot.json".to_owned()));
        for torn in ["", "{", "{\"schema\":2}"] {
            fs::write(good.join(NOTE), torn).expect("written");
            Snapshot::load(&good).expect_err(torn);
        }
    }
}
