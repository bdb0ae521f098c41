//! The record of a VM: enough to start the same VM again, and nothing that can be observed instead (whether it runs,
//! whether it is healthy).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    Project,
    seal::{self, Kind},
};
use crate::base::{
    Digest, FileError, Name, Size,
    files::{self, PRIVATE},
};

/// The layout that this program reads. 2 has no address of the network card, which is the same for every VM.
const SCHEMA: u32 = 3;

/// The content of `.k3s-vm/record.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The layout's number.
    pub schema: u32,
    /// The VM's name, also that of its node and context.
    pub name: Name,
    /// The VM's SMBIOS UUID, by which the guest recognises this VM's identity.
    pub uuid: String,
    /// The disk's size; it grows when the config asks for more.
    pub disk: Size,
    /// The base image under the overlay.
    pub image: BaseImage,
    /// The k3s release that the VM installs, or was upgraded to.
    pub release: Release,
    /// The release of the first boot, if it was upgraded since: saved memory of that boot has its files as disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_release: Option<Release>,
    /// The firmware, BIOS or UEFI; an installed guest boots by one of them only.
    pub firmware: String,
    /// The host port of the API, for the next start.
    pub api_port: u16,
    /// The host port of SSH since the last complete start, for a QEMU whose monitor is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_port: Option<u16>,
    /// The kubeconfig's path; in the file relative to the project if it is in it.
    pub kubeconfig: PathBuf,
    /// A setup was completed: the node was Ready once.
    pub provisioned: bool,
}

/// The backing file of a VM's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseImage {
    /// As the user named it.
    pub source: String,
    /// Its path in the cache.
    pub path: PathBuf,
    /// Its SHA-256.
    pub digest: Digest,
}

/// The files of a k3s release, in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The release, like `v1.33.5+k3s1`.
    pub version: String,
    /// The k3s binary.
    pub binary: PathBuf,
    /// The air-gap images, when the mirror had them.
    pub airgap: Option<PathBuf>,
}

/// The reason why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is truncated, empty or of another version.
    #[error("invalid record {}: {reason}", path.display())]
    Unreadable {
        /// The record.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// Another user or another host's k3s-vm wrote it.
    #[error("{} is not trusted: your k3s-vm on this host did not write it", .0.display())]
    Untrusted(PathBuf),
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Record {
    /// Reads the project's record, if there is one.
    ///
    /// # Errors
    ///
    /// [`RecordError::Unreadable`] when it is not a whole record of the known layout, [`RecordError::Untrusted`] when
    /// this user's k3s-vm has not written it.
    pub fn load(project: &Project) -> Result<Option<Self>, RecordError> {
        let Some((record, is_trusted)) = Self::read(project)? else {
            return Ok(None);
        };
        if is_trusted {
            Ok(Some(record))
        } else {
            Err(RecordError::Untrusted(project.record()))
        }
    }

    /// The project's record, and `true` if this user's k3s-vm has written it.
    ///
    /// # Errors
    ///
    /// [`RecordError::Unreadable`] when it is not a whole record of the known layout.
    pub fn read(project: &Project) -> Result<Option<(Self, bool)>, RecordError> {
        let path = project.record();
        let Some(text) = files::read_own(&path)? else {
            return Ok(None);
        };
        let mut record = Self::parse(&text).map_err(|reason| RecordError::Unreadable {
            path: path.clone(),
            reason,
        })?;
        record.kubeconfig = project.root().join(record.kubeconfig);
        let is_trusted = seal::holds(Kind::Record, &path, &text)?;
        Ok(Some((record, is_trusted)))
    }

    /// Reads the record's text.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Layout {
            schema: u32,
        }
        let reason = |error: serde_json::Error| error.to_string();
        let Layout { schema } = serde_json::from_str(text).map_err(reason)?;
        if schema != SCHEMA {
            return Err(format!(
                "its schema is {schema}, this program knows {SCHEMA}"
            ));
        }
        seal::body(text).map_err(reason)
    }

    /// Writes the project's record durably.
    ///
    /// # Errors
    ///
    /// When the project's directory cannot be written.
    pub fn save(&self, project: &Project) -> Result<(), FileError> {
        self.save_as(&project.record(), project)
    }

    /// Saves the record at another path, to be moved to the project's later.
    ///
    /// # Errors
    ///
    /// When that place cannot be written.
    pub fn save_as(&self, path: &Path, project: &Project) -> Result<(), FileError> {
        let portable = Self {
            kubeconfig: project.relative(&self.kubeconfig).to_owned(),
            ..self.clone()
        };
        let text = seal::sealed(Kind::Record, path, &portable)?;
        files::write(path, text.as_bytes(), PRIVATE)
    }

    /// The release that the first boot found on disks.
    pub fn installed_from(&self) -> &Release {
        self.first_release.as_ref().unwrap_or(&self.release)
    }

    /// The layout that this program writes.
    pub const fn schema() -> u32 {
        SCHEMA
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_record_is_an_error_with_its_path() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let project = Project::at(directory.path());
        std::fs::create_dir(project.directory()).expect("created");
        assert_eq!(Record::load(&project).expect("none yet"), None);
        for torn in ["", "{", "{\"schema\":1}", "{\"schema\":2}", "[]", "\u{0}"] {
            std::fs::write(project.record(), torn).expect("written");
            let error = Record::load(&project).expect_err(torn).to_string();
            assert!(error.contains("record.json"), "{error}");
        }
    }
}
