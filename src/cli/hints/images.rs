//! What to do about container images.

use crate::{k3s::images::ArchiveError, machine::error::ImagesError};

pub(crate) fn of_images(error: &ImagesError) -> Vec<String> {
    let hints: &[&str] = match error {
        ImagesError::NoTool { .. } => &[
            "name an archive instead, as `docker save` or `podman save` writes it: k3s-vm image load app.tar",
        ],
        ImagesError::Unknown { .. } => &[
            "see what your tool calls it: docker image ls, podman image ls",
            "an archive of another name than *.tar is told from an image by its path: k3s-vm image load ./FILE",
        ],
        ImagesError::Directory(_) => {
            &["pack an OCI layout on the way: tar -C DIR -c . | k3s-vm image load -"]
        }
        ImagesError::Archive { source, .. } => match source {
            ArchiveError::Platform { .. } => {
                &["build or pull it for linux/amd64: --platform linux/amd64"]
            }
            ArchiveError::Nameless => &["name it: k3s-vm image load --name app:dev ..."],
            ArchiveError::Several(_) => &["leave --name away; each of them has a name of its own"],
            ArchiveError::NoRoom { .. } => &MORE_ROOM,
            ArchiveError::NoTar | ArchiveError::NoImages | ArchiveError::Empty => &[
                "what is taken: the archives of docker save, podman save, skopeo, buildah and buildx",
            ],
            ArchiveError::Torn | ArchiveError::Damaged(_) | ArchiveError::Document { .. } => {
                &["save the image once more, and load that"]
            }
            ArchiveError::Incomplete(_) => {
                &["save the image with all of its layers, and load that"]
            }
            ArchiveError::Unreadable(_) | ArchiveError::Refused(_) => &[],
        },
        ImagesError::GuestFull { .. } => &MORE_ROOM,
        ImagesError::Runtime(_) => &["see whether k3s is well: k3s-vm status; k3s-vm logs k3s"],
        ImagesError::Unresolved(_) => &[
            "load it once more; the kubelet removes unused images from a disk that is nearly full",
        ],
        ImagesError::NotThere { .. } => &["see what is there: k3s-vm image list"],
        ImagesError::NoFile(_) | ImagesError::Unreadable { .. } | ImagesError::Save { .. } => &[],
    };
    hints.iter().map(|&hint| hint.to_owned()).collect()
}

const MORE_ROOM: [&str; 2] = [
    "remove what the node does not need: k3s-vm image list; k3s-vm image rm NAME",
    "or have the disk grow: k3s-vm configure --disk 40GiB --restart",
];
