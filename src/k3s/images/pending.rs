//! Images that are being loaded into the node.

use std::collections::HashSet;

use crate::{
    base::Size,
    k3s::images::{Listed, Reference},
};

/// What the node has before anything is sent.
#[derive(Debug)]
pub struct Guest {
    /// The digests of all content.
    pub digests: HashSet<String>,
    /// The names.
    pub images: Vec<Listed>,
    /// What is free on its disk.
    pub room: Size,
}

/// An image that is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingImage {
    /// What it is to be called.
    pub name: Reference,
    /// What it is called until it is whole.
    pub loading: String,
    /// Of its manifest, or of its list of manifests.
    pub digest: String,
}

/// What became of an archive.
#[derive(Debug, PartialEq, Eq)]
pub struct Passed {
    /// Its images.
    pub images: Vec<PendingImage>,
    /// Bytes of layers and descriptions that the node did not have.
    pub sent: Size,
    /// Bytes of those that it had.
    pub left_out: Size,
    /// How many of its images have no name, and were left out.
    pub nameless: usize,
}
