//! The origins of the cache's files, for `cache list`: `origins/<digest>.json` beside them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Cache, ImageError};
use crate::base::{Digest, FileError, files};

const SCHEMA: u32 = 1;

/// The origin of a file of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    schema: u32,
    /// The URL or path, as it may be shown.
    pub from: String,
    /// An archive names this origin; this host has not asked the server.
    pub imported: bool,
}

impl Origin {
    /// The origin of a file from an archive, or of one that this host has downloaded.
    pub const fn new(from: String, imported: bool) -> Self {
        Self {
            schema: SCHEMA,
            from,
            imported,
        }
    }
}

impl Cache {
    /// The origin of the file with this digest, if known.
    pub fn origin(&self, digest: Digest) -> Option<Origin> {
        let text = files::read_if_exists(&self.origin_path(digest)).ok()??;
        let origin: Origin = serde_json::from_str(&text).ok()?;
        (origin.schema == SCHEMA).then_some(origin)
    }

    /// The file with the origin of that digest.
    pub fn origin_path(&self, digest: Digest) -> PathBuf {
        self.root().join("origins").join(format!("{digest}.json"))
    }

    /// Saves the origin of a file. An origin that this host has verified is not replaced by an archive's.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn remember_origin(
        &self,
        digest: Digest,
        from: &str,
        imported: bool,
    ) -> Result<(), ImageError> {
        if self.origin(digest).is_some_and(|it| !it.imported) {
            return Ok(());
        }
        self.directory("origins")?;
        let path = self.origin_path(digest);
        let origin = Origin::new(from.to_owned(), imported);
        let json = serde_json::to_vec_pretty(&origin)
            .map_err(|error| FileError::on("write", &path)(error.into()))?;
        Ok(files::write(&path, &json, files::PRIVATE)?)
    }
}
