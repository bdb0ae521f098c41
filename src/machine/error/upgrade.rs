//! Errors of an upgrade.

use crate::{
    base::SnapshotName,
    image::ImageError,
    k3s::{
        release::{ReleaseError, Version},
        version_skew::VersionSkewError,
    },
};

/// The error that ends an upgrade.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The release cannot replace the installed one.
    #[error(transparent)]
    Step(#[from] VersionSkewError),
    /// The channel or the version does not exist.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// The channel server gave no version.
    #[error("cannot find the release of the k3s channel {channel}")]
    Channel {
        /// The channel.
        channel: String,
        /// The reason.
        source: ImageError,
    },
    /// k3s does not run before the upgrade, so a failure after it would have two possible causes.
    #[error("cannot upgrade: the node is not Ready: {0}")]
    Unwell(String),
    /// The guest's k3s has an unknown version.
    #[error("the guest's k3s prints {0:?} instead of its version")]
    Unknown(String),
    /// Another release runs after the change.
    #[error("k3s answers as {0}")]
    AnotherAnswers(String),
    /// The downloaded files are not the release, or do not run in the guest.
    #[error("the guest cannot install k3s {to}: {said}")]
    NotTaken {
        /// The release.
        to: Version,
        /// The guest's message.
        said: String,
    },
    /// The release did not become ready, and the snapshot was restored.
    #[error("{fell}; the VM was rolled back to k3s {from}")]
    Undone {
        /// The release of the VM.
        from: String,
        /// The failure.
        fell: Box<UpgradeFailure>,
    },
    /// The release did not become ready, and neither did the snapshot.
    #[error("{fell}; the VM could not be rolled back: {trouble}")]
    NotUndone {
        /// The failure.
        fell: Box<UpgradeFailure>,
        /// The reason why the VM was not rolled back.
        trouble: String,
        /// The snapshot before the upgrade.
        snapshot: SnapshotName,
    },
    /// An earlier upgrade was interrupted, and this one failed as well.
    #[error("{fell}; an interrupted upgrade had installed it")]
    Stuck {
        /// The failure.
        fell: Box<UpgradeFailure>,
        /// The snapshot before the first one, if known.
        snapshot: Option<SnapshotName>,
    },
}

/// A release that did not become ready.
#[derive(Debug, thiserror::Error)]
#[error("k3s {to} did not become ready: {why}")]
pub struct UpgradeFailure {
    /// The release.
    pub to: String,
    /// The reason.
    pub why: String,
    /// The time limit is exceeded, without a known reason.
    pub late: bool,
    /// The last line of k3s.
    pub log: String,
}

impl UpgradeError {
    /// The end of k3s's log.
    pub fn log(&self) -> Option<&str> {
        match self {
            Self::Undone { fell, .. } | Self::NotUndone { fell, .. } | Self::Stuck { fell, .. } => {
                Some(fell.log.as_str()).filter(|log| !log.is_empty())
            }
            _ => None,
        }
    }
}
