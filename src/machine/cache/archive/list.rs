//! The list at the beginning of an archive.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    base::{Digest, FileError},
    image::{Cache, Known},
    k3s::release::{AIRGAP, BINARY},
    machine::{cache::assets::BUCKET, error::CacheArchiveError},
};

/// The layout of the list and of the files after it.
pub(crate) const SCHEMA: u32 = 1;

/// The name of the list, which comes first.
pub(crate) const LIST: &str = "k3s-vm-cache.json";

/// The longest list, in bytes.
pub(crate) const LONGEST: u64 = 8 << 20;

/// The contents of an archive.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveManifest {
    /// The layout's number.
    pub schema: u32,
    /// The files, in the archive's order.
    pub files: Vec<ArchiveEntry>,
    /// The images of URLs.
    pub(crate) images: Vec<Known>,
    /// Checksums of releases and the stable version, by URL.
    pub(crate) texts: Vec<Text>,
}

/// A file of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveEntry {
    /// Its kind.
    pub kind: Kind,
    /// Its name in messages.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// Its digest, which is its name in the archive.
    pub sha256: Digest,
    /// Its origin, as far as the exporting host knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A base image.
    BaseImage,
    /// The k3s binary.
    K3s,
    /// The container images that k3s starts.
    K3sImages,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Text {
    pub(crate) key: Digest,
    pub(crate) text: String,
}

impl ArchiveEntry {
    /// The entry of a cached file at `path`.
    pub(crate) fn of(
        cache: &Cache,
        (kind, name): (Kind, String),
        path: &Path,
        sha256: Digest,
    ) -> Result<Self, FileError> {
        let metadata = path.metadata().map_err(FileError::on("look at", path))?;
        Ok(Self {
            kind,
            name,
            size: metadata.len(),
            sha256,
            origin: cache.origin(sha256).map(|it| it.from),
        })
    }

    /// The path in the cache.
    pub(crate) fn path(&self, cache: &Cache) -> PathBuf {
        match self.kind {
            Kind::BaseImage => cache.image_path(self.sha256),
            Kind::K3s => cache.file_path(BUCKET, self.sha256, BINARY),
            Kind::K3sImages => cache.file_path(BUCKET, self.sha256, AIRGAP),
        }
    }

    /// Returns `true` when the cache has the complete file.
    pub(crate) fn is_in(&self, cache: &Cache) -> bool {
        let metadata = self.path(cache).metadata();
        metadata.is_ok_and(|it| it.is_file() && it.len() == self.size)
    }

    /// Its name in the archive.
    pub(crate) fn entry(&self) -> String {
        format!("files/{}", self.sha256)
    }
}

impl ArchiveManifest {
    /// Reads and checks the list of an archive.
    ///
    /// # Errors
    ///
    /// When it is not such a list, has another layout, or contradicts itself.
    pub fn parse(text: &[u8]) -> Result<Self, CacheArchiveError> {
        #[derive(Deserialize)]
        struct Numbered {
            schema: u32,
        }
        let damaged =
            |error: serde_json::Error| CacheArchiveError::ArchiveManifest(error.to_string());
        // The layout first: with another one, no other field may be known.
        let Numbered { schema } = serde_json::from_slice(text).map_err(damaged)?;
        if schema != SCHEMA {
            return Err(CacheArchiveError::Schema(schema));
        }
        let list: Self = serde_json::from_slice(text).map_err(damaged)?;
        let names = list.files.iter().map(|it| &it.name);
        if let Some(name) = names
            .chain(list.images.iter().map(|it| &it.from))
            .chain(list.files.iter().filter_map(|it| it.origin.as_ref()))
            .find(|it| !is_shown(it))
        {
            return Err(CacheArchiveError::ArchiveManifest(format!(
                "{name:.80?} is not a valid name"
            )));
        }
        for (index, file) in list.files.iter().enumerate() {
            if list.files[..index]
                .iter()
                .any(|it| it.sha256 == file.sha256)
            {
                return Err(CacheArchiveError::Twice(file.name.clone()));
            }
        }
        let is_image = |digest| {
            let mut files = list.files.iter();
            files.any(|it| it.sha256 == digest && it.kind == Kind::BaseImage)
        };
        match list.images.iter().find(|it| !is_image(it.digest)) {
            Some(image) => Err(CacheArchiveError::ArchiveManifest(format!(
                "{} is not one of its files",
                image.from
            ))),
            None => Ok(list),
        }
    }
}

/// Returns `true` for a name without control characters.
fn is_shown(name: &str) -> bool {
    name.len() <= 2048 && !name.contains(char::is_control)
}
