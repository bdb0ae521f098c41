//! A base image in the cache.

use std::path::PathBuf;

use crate::{
    base::{Digest, Size},
    image::Format,
};

/// A verified disk image in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseImage {
    /// Its path: absolute if the cache's root is.
    pub path: PathBuf,
    /// Its digest.
    pub digest: Digest,
    /// The size of the disk that a guest sees.
    pub virtual_size: Size,
    /// Its format.
    pub format: Format,
}
