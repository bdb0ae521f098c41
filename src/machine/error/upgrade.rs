//! Errors of an upgrade.

use crate::{
    base::SnapshotName,
    image::ImageError,
    k3s::{
        release::{ReleaseError, Version},
        version_skew::VersionSkewError,
    },
};

/// What keeps an upgrade from its end.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The release may not take the place of the one that is there.
    #[error(transparent)]
    Step(#[from] VersionSkewError),
    /// The channel or the version does not exist.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// The channel server gave no version.
    #[error("it is not known which release the channel {channel} of k3s names")]
    Channel {
        /// The channel.
        channel: String,
        /// Why not.
        source: ImageError,
    },
    /// An upgrade could not tell whether it was the one that broke the cluster.
    #[error("cannot upgrade: the node is not Ready: {0}")]
    Unwell(String),
    /// The guest's k3s is none that is known here.
    #[error("the guest's k3s does not tell its version, but {0:?}")]
    Unknown(String),
    /// What runs after the change is another release.
    #[error("k3s answers as {0}")]
    AnotherAnswers(String),
    /// What was fetched is not the release, or does not run in the guest.
    #[error("the guest cannot install k3s {to}: {said}")]
    NotTaken {
        /// The release.
        to: Version,
        /// What the guest says of it.
        said: String,
    },
    /// The release did not come up, and the snapshot is back in its place.
    #[error("{fell}; the VM was rolled back to k3s {from}")]
    Undone {
        /// What the VM has.
        from: String,
        /// What happened.
        fell: Box<UpgradeFailure>,
    },
    /// The release did not come up, and neither did the snapshot.
    #[error("{fell}; the VM could not be rolled back: {trouble}")]
    NotUndone {
        /// What happened.
        fell: Box<UpgradeFailure>,
        /// Why the VM is not what it was.
        trouble: String,
        /// What it was before.
        snapshot: SnapshotName,
    },
    /// An earlier upgrade was interrupted, and this one failed as well.
    #[error("{fell}; an interrupted upgrade had installed it")]
    Stuck {
        /// What happened.
        fell: Box<UpgradeFailure>,
        /// What it was before, if that is known.
        snapshot: Option<SnapshotName>,
    },
}

/// A release that did not come up.
#[derive(Debug, thiserror::Error)]
#[error("k3s {to} did not come up: {why}")]
pub struct UpgradeFailure {
    /// The release.
    pub to: String,
    /// What happened instead.
    pub why: String,
    /// Whether that is only that time was over.
    pub late: bool,
    /// The last words of k3s.
    pub log: String,
}

impl UpgradeError {
    /// What k3s said at its end.
    pub fn log(&self) -> Option<&str> {
        match self {
            Self::Undone { fell, .. } | Self::NotUndone { fell, .. } | Self::Stuck { fell, .. } => {
                Some(fell.log.as_str()).filter(|log| !log.is_empty())
            }
            _ => None,
        }
    }
}
