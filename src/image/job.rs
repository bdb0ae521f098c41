//! A download: its source, its target and its checksum.

use std::path::Path;

use url::Url;

use crate::{
    base::Digest,
    image::{Checksum, RetryPolicy},
};

/// A download and its target.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// Its name in messages.
    pub(crate) name: &'a str,
    pub(crate) url: &'a Url,
    /// The file to fill; no other command writes to it meanwhile.
    pub(crate) partial: &'a Path,
    pub(crate) expected: Option<&'a Checksum>,
    pub(crate) retry: &'a RetryPolicy,
}

/// A complete and verified download, which is neither flushed nor in its place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}
