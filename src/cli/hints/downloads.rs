//! Hints about base images, releases and their downloads.

use std::io::ErrorKind;

use crate::{base::FileError, image::ImageError, k3s::release::CHECKSUMS};

/// The next steps after an error about an image or a release.
pub(crate) fn of_image(error: &ImageError) -> Vec<String> {
    let lines = |hints: &[&str]| hints.iter().map(|&hint| hint.to_owned()).collect();
    match error {
        ImageError::File(error) if error.source.kind() != ErrorKind::NotFound => {
            of_cache_file(error)
        }
        ImageError::DiskTooSmall { minimum, .. } => vec![format!(
            "use a larger disk: --disk {minimum}; it uses only what is written to it"
        )],
        ImageError::NoSpace { directory, .. } => vec![format!(
            "free space on the file system of {}, or set K3S_VM_CACHE_DIR to a directory on another one",
            directory.display()
        )],
        ImageError::NoChecksum { .. } => {
            lines(&["use another mirror or another version", UNVERIFIED])
        }
        ImageError::Unverifiable { .. } => lines(&[
            "give the SHA-256 of its publisher: --image-sha256 HEX",
            UNVERIFIED,
        ]),
        ImageError::NotADisk { .. } => lines(&[
            "use a cloud image: --image debian-13, or a qcow2 or raw file with cloud-init in it",
        ]),
        ImageError::WrongChecksum { .. } => lines(&[
            "run the same command again; if it fails again, the source or a proxy changes the file",
        ]),
        error if error.is_not_found() => of_not_found(error),
        error if error.is_distrust() => lines(&[
            "to trust a company's CA: export SSL_CERT_FILE=FILE, with that authority's certificate beside those of the system",
        ]),
        ImageError::Unreachable { .. }
        | ImageError::Status { .. }
        | ImageError::Stalled { .. }
        | ImageError::Cut { .. }
        | ImageError::NotText { .. }
        | ImageError::Packed { .. } => lines(&[
            "check the network and the proxy variables (https_proxy, no_proxy); an interrupted download continues where it stopped",
            "or use a mirror: --k3s-mirror URL, --image PATH",
        ]),
        _ => Vec::new(),
    }
}

const UNVERIFIED: &str = "or use it without verification: --insecure-no-checksum";

/// A file that is only read may be the user's own; any other is in the cache.
fn of_cache_file(error: &FileError) -> Vec<String> {
    let writes = !["open", "read", "look at"].contains(&error.action);
    let forbidden = matches!(
        error.source.kind(),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
    );
    let hint = "set K3S_VM_CACHE_DIR to a directory that you can write to";
    match writes && forbidden {
        true => vec![hint.to_owned()],
        false => Vec::new(),
    }
}

fn of_not_found(error: &ImageError) -> Vec<String> {
    let check =
        "check the address and the version; the files of a new k3s release appear after a while";
    let without_checksums = "to use a mirror without checksums: --insecure-no-checksum";
    let of_checksums = match error {
        ImageError::Status { url, .. } => url.contains(CHECKSUMS),
        ImageError::File(error) => error.path.ends_with(CHECKSUMS),
        _ => false,
    };
    let hints = [Some(check), of_checksums.then_some(without_checksums)];
    hints.into_iter().flatten().map(str::to_owned).collect()
}
