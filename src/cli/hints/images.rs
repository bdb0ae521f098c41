//! Hints about container images.

use crate::{k3s::images::ArchiveError, machine::error::ImagesError};

pub(crate) fn of_images(error: &ImagesError) -> Vec<String> {
    let hints: &[&str] = match error {
        ImagesError::NoTool { .. } => {
            &["load an archive of `docker save` or `podman save`: k3s-vm image load app.tar"]
        }
        ImagesError::Unknown { .. } => &[
            "list your images: docker image ls, podman image ls",
            "for an archive not named *.tar, give its path: k3s-vm image load ./FILE",
        ],
        ImagesError::Directory(_) => {
            &["load an OCI layout as an archive: tar -C DIR -c . | k3s-vm image load -"]
        }
        ImagesError::Archive { source, .. } => match source {
            ArchiveError::Platform { .. } => {
                &["build or pull it for linux/amd64: --platform linux/amd64"]
            }
            ArchiveError::Nameless => &["name it: k3s-vm image load --name app:dev ..."],
            ArchiveError::Excessive(_) => &["save fewer images in one archive"],
            ArchiveError::Several(_) => &["remove --name; each image has its own name"],
            ArchiveError::NoRoom { .. } => &MORE_ROOM,
            ArchiveError::NoTar | ArchiveError::NoImages | ArchiveError::Empty => {
                &["use an archive of docker save, podman save, skopeo, buildah or buildx"]
            }
            ArchiveError::Truncated | ArchiveError::Damaged(_) | ArchiveError::Document { .. } => {
                &["save the image again and load that"]
            }
            ArchiveError::Incomplete(_) => &["save the image with all of its layers and load that"],
            ArchiveError::Unreadable(_) | ArchiveError::Refused(_) => &[],
        },
        ImagesError::GuestFull { .. } => &MORE_ROOM,
        ImagesError::Runtime(_) => &["see the state of k3s: k3s-vm status; k3s-vm logs k3s"],
        ImagesError::Unresolved(_) => {
            &["load it again; the kubelet removes unused images when the disk is nearly full"]
        }
        ImagesError::NotThere { .. } => &["list the images: k3s-vm image list"],
        ImagesError::NoFile(_) | ImagesError::Unreadable { .. } | ImagesError::Save { .. } => &[],
    };
    hints.iter().map(|&hint| hint.to_owned()).collect()
}

const MORE_ROOM: [&str; 2] = [
    "remove unused images: k3s-vm image list; k3s-vm image rm NAME",
    "or grow the disk: k3s-vm configure --disk 40GiB --restart",
];
