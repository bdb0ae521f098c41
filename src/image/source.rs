//! The cache's index: the image of each URL or path, found again without a network and without hashing.

use std::{
    fs::{self, Metadata},
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use tracing::debug;

use super::{BaseImage, Cache, ImageError};
use crate::base::{Digest, FileError, files};

/// The known image of a URL or a path.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Source {
    schema: u32,
    /// The URL or path, for people.
    from: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// The file's stamp, which shows that it is unchanged. A URL has none, for the cached copy is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stamp: Option<String>,
    /// A checksum verified it, or it is the user's own file.
    #[serde(default)]
    pub(super) verified: bool,
}

const SCHEMA: u32 = 1;

impl Source {
    /// The source of a cached image, without a stamp.
    pub(super) fn of(image: &BaseImage, from: String, verified: bool) -> Result<Self, ImageError> {
        let metadata = image
            .path
            .metadata()
            .map_err(FileError::on("look at", &image.path))?;
        Ok(Self {
            schema: SCHEMA,
            from,
            digest: image.digest,
            size: metadata.len(),
            stamp: None,
            verified,
        })
    }

    /// The source of a file with that stamp.
    pub(super) fn with_stamp(self, stamp: String) -> Self {
        Self {
            stamp: Some(stamp),
            ..self
        }
    }
}

/// The known image of a URL, for another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The URL without a login.
    pub from: String,
    /// The image.
    pub digest: Digest,
    /// A checksum verified it.
    pub verified: bool,
}

impl Cache {
    /// The images of all downloaded URLs. Files of this host are left out.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn known_images(&self) -> Result<Vec<Known>, ImageError> {
        let folder = self.root().join("sources");
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(FileError::on("list", &folder))?,
        };
        let keys = entries.flatten().filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.strip_suffix(".json")?.parse().ok()
        });
        let mut known: Vec<Known> = keys
            .filter_map(|key: Digest| self.recall(&key))
            .filter(|source| source.stamp.is_none())
            .map(|source| Known {
                from: source.from,
                digest: source.digest,
                verified: source.verified,
            })
            .collect();
        known.sort_by(|one, other| one.from.cmp(&other.from));
        Ok(known)
    }

    /// Adds a known image of another host.
    ///
    /// # Errors
    ///
    /// When the image is not in the cache, or this cannot be written.
    pub fn learn_image(&self, known: &Known) -> Result<(), ImageError> {
        let Some(image) = self.find_image(known.digest) else {
            let path = self.image_path(known.digest);
            return Err(FileError::on("find", &path)(ErrorKind::NotFound.into()).into());
        };
        let key = Digest::of(known.from.as_bytes());
        let source = Source::of(&image, known.from.clone(), known.verified)?;
        self.remember(&key, &source)
    }

    /// The index file of a URL.
    pub fn source_path(&self, from: &str) -> PathBuf {
        let key = Digest::of(from.as_bytes());
        self.root().join("sources").join(format!("{key}.json"))
    }

    /// The known source; an unreadable one counts as absent.
    pub(super) fn recall(&self, key: &Digest) -> Option<Source> {
        let path = self.root().join("sources").join(format!("{key}.json"));
        let text = files::read_if_exists(&path).ok().flatten()?;
        let source: Source = serde_json::from_str(&text)
            .inspect_err(|error| debug!(path = %path.display(), %error, "unreadable"))
            .ok()?;
        (source.schema == SCHEMA).then_some(source)
    }

    /// Saves the image of a source.
    pub(super) fn remember(&self, key: &Digest, source: &Source) -> Result<(), ImageError> {
        let path = self.directory("sources")?.join(format!("{key}.json"));
        let json = serde_json::to_vec_pretty(source)
            .map_err(|error| FileError::on("write", &path)(error.into()))?;
        Ok(files::write(&path, &json, files::PRIVATE)?)
    }
}

/// The stamp of a file, which differs after it was changed or replaced, even with the same time of modification.
pub(super) fn stamp(metadata: &Metadata) -> String {
    format!(
        "{} {} {}.{:09} {}.{:09}",
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec()
    )
}
