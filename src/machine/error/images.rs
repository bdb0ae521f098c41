//! Errors of loading and removing images.

use std::path::PathBuf;

use crate::{base::Size, k3s::images::ArchiveError};

/// A fault of an image, an archive, or the node's store of them.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// None of the tools is on the `PATH`.
    #[error("cannot find the image {reference}: docker, podman or nerdctl is not on the PATH")]
    NoTool {
        /// The image.
        reference: String,
    },
    /// None of the tools has it.
    #[error("cannot find the image {reference} ({})", said.join("; "))]
    Unknown {
        /// The image.
        reference: String,
        /// The message of each tool.
        said: Vec<String>,
    },
    /// A path that does not exist.
    #[error("the archive {} does not exist", .0.display())]
    NoFile(PathBuf),
    /// A directory with an unpacked archive.
    #[error("{} is a directory, not an archive", .0.display())]
    Directory(PathBuf),
    /// A file that cannot be opened, or a tool that cannot be run.
    #[error("cannot read {what}")]
    Unreadable {
        /// The archive.
        what: String,
        /// The reason.
        source: std::io::Error,
    },
    /// The archive cannot be loaded.
    #[error("cannot load {what}")]
    Archive {
        /// The source.
        what: String,
        /// The reason.
        source: ArchiveError,
    },
    /// The tool failed to save the image.
    #[error("{tool} did not save the whole image: {said}")]
    Save {
        /// The tool.
        tool: &'static str,
        /// Its last line.
        said: String,
    },
    /// The guest's disk became full.
    #[error("the guest's disk is full: {} of it are free, and {what} does not fit", room.approximate())]
    GuestFull {
        /// The archive.
        what: String,
        /// The free space once all files of the attempt are deleted.
        room: Size,
    },
    /// The container runtime refuses, or does not answer.
    #[error("k3s's containerd says: {0}")]
    Runtime(String),
    /// The import succeeded, and the image is missing.
    #[error("k3s's containerd has imported the archive without the image {0}")]
    Unresolved(String),
    /// An image to be removed.
    #[error("the node has no image {name}{}", likely(similar))]
    NotThere {
        /// The image.
        name: String,
        /// Similar names of the node.
        similar: Vec<String>,
    },
}

fn likely(similar: &[String]) -> String {
    if similar.is_empty() {
        String::new()
    } else {
        format!("; it has {}", similar.join(", "))
    }
}
