//! The VM's own disk: a qcow2 file with the blocks that differ from the base image.

use std::{
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

use qcow2_rs::meta::Qcow2Header;

use super::{BaseImage, ImageError, format::QCOW2_MAGIC};
use crate::base::{FileError, Size, files};

const CLUSTER_BITS: usize = 16;
const CLUSTER: usize = 1 << CLUSTER_BITS;
/// Reference counts of 16 bits, as in qemu-img.
const REFCOUNT_ORDER: u8 = 4;
const SECTOR: usize = 512;
/// The limit of the format.
const LONGEST_NAME: usize = 1023;
/// The largest disk in one file of 64 KiB clusters, less a margin; QEMU's limit is 64 TiB.
const LARGEST: Size = Size::gib(63 << 10);

/// The offsets of the fields for the backing file (QEMU's docs/interop/qcow2.txt).
const BACKING_OFFSET: usize = 8;
const BACKING_LENGTH: usize = 16;
const INCOMPATIBLE_FEATURES: usize = 72;
/// Bits of the incompatible features: refcounts to be repaired, and metadata that QEMU found damaged.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTENSIONS: usize = 112;
const BACKING_FORMAT: u32 = 0xe279_2aca;

/// The bytes of an empty overlay of `size` on `base`: the whole file before the first start.
///
/// # Errors
///
/// When the disk would be smaller than its base or too large for the format, or the base's path is not absolute,
/// no UTF-8 or too long.
pub fn plan(base: &BaseImage, size: Size) -> Result<Vec<u8>, ImageError> {
    let impossible = |reason: &str| ImageError::Overlay {
        backing: base.path.clone(),
        reason: reason.to_owned(),
    };
    if size < base.virtual_size {
        return Err(ImageError::DiskTooSmall {
            wanted: size,
            minimum: base.virtual_size,
        });
    }
    if size > LARGEST {
        return Err(impossible("a disk has at most 63 TiB"));
    }
    let name = base
        .path
        .to_str()
        .ok_or_else(|| impossible("its path is not UTF-8"))?;
    if !base.path.is_absolute() {
        return Err(impossible("its path is not absolute"));
    }
    if name.len() > LONGEST_NAME {
        return Err(impossible("its path is longer than 1023 bytes"));
    }
    let size = size.as_bytes().next_multiple_of(SECTOR as u64);
    let mut image = format(size).map_err(|error| impossible(&error))?;
    name_backing(&mut image, name, base.format.as_str());
    check(&image, name, size).map_err(|error| impossible(&error))?;
    Ok(image)
}

/// An image without a backing file: header, refcount table, refcount block and L1 table, in this order.
fn format(size: u64) -> Result<Vec<u8>, String> {
    let (_, _, (l1, l1_clusters)) =
        Qcow2Header::calculate_meta_params(size, CLUSTER_BITS, REFCOUNT_ORDER, SECTOR);
    let length =
        usize::try_from(l1).map_err(|error| error.to_string())? + l1_clusters as usize * CLUSTER;
    let mut image = vec![0; length];
    Qcow2Header::format_qcow2(&mut image, size, CLUSTER_BITS, REFCOUNT_ORDER, SECTOR)
        .map_err(|error| error.to_string())?;
    Ok(image)
}

/// Adds the header extension for the backing file's format, the end of extensions, and the file's name.
fn name_backing(image: &mut [u8], name: &str, format: &str) {
    let mut extensions = Vec::with_capacity(32 + name.len());
    extensions.extend(BACKING_FORMAT.to_be_bytes());
    extensions.extend((format.len() as u32).to_be_bytes());
    extensions.extend(format.as_bytes());
    extensions.resize(extensions.len().next_multiple_of(8), 0);
    extensions.extend([0; 8]);
    let offset = EXTENSIONS + extensions.len();
    extensions.extend(name.as_bytes());

    image[EXTENSIONS..EXTENSIONS + extensions.len()].copy_from_slice(&extensions);
    image[BACKING_OFFSET..BACKING_OFFSET + 8].copy_from_slice(&(offset as u64).to_be_bytes());
    image[BACKING_LENGTH..BACKING_LENGTH + 4].copy_from_slice(&(name.len() as u32).to_be_bytes());
}

/// Reads the header back, so that a change in the library cannot lead to a disk that names another base.
fn check(image: &[u8], name: &str, size: u64) -> Result<(), String> {
    let header = Qcow2Header::from_buf(image).map_err(|error| error.to_string())?;
    let sound = header.version() == 3
        && header.size() == size
        && header.backing_filename().map(String::as_str) == Some(name)
        && header.backing_format().is_some();
    if sound {
        Ok(())
    } else {
        Err("its header does not read back".to_owned())
    }
}

/// Returns `true` when nothing has been written to an overlay of `size` since it was planned.
pub fn is_fresh(path: &Path, size: Size) -> bool {
    let planned = format(size.as_bytes().next_multiple_of(SECTOR as u64));
    let length = path.metadata().map(|metadata| metadata.len());
    planned.is_ok_and(|it| length.is_ok_and(|length| length <= it.len() as u64))
}

/// Returns `true` for a file that begins like a qcow2 image. A file that was truncated or overwritten mostly does not.
///
/// # Errors
///
/// When it cannot be read.
pub fn is_qcow2(path: &Path) -> Result<bool, FileError> {
    let mut start = Vec::with_capacity(QCOW2_MAGIC.len());
    files::open_regular(path)?
        .take(QCOW2_MAGIC.len() as u64)
        .read_to_end(&mut start)
        .map_err(FileError::on("read", path))?;
    Ok(start == QCOW2_MAGIC)
}

/// The fault in the header of an overlay on `base`. QEMU would follow such a header to other files.
///
/// # Errors
///
/// When the file cannot be read.
pub fn header_fault(path: &Path, base: &Path) -> Result<Option<&'static str>, FileError> {
    let mut header = Vec::with_capacity(CLUSTER);
    files::open_regular(path)?
        .take(CLUSTER as u64)
        .read_to_end(&mut header)
        .map_err(FileError::on("read", path))?;
    Ok(judge(&header, base.as_os_str().as_encoded_bytes()).err())
}

fn judge(header: &[u8], base: &[u8]) -> Result<(), &'static str> {
    const SHORT: &str = "it is not a qcow2 image";
    let number = |at: usize, length: usize| -> Result<u64, &'static str> {
        let bytes = header.get(at..at + length).ok_or(SHORT)?;
        Ok(bytes
            .iter()
            .fold(0, |all, &byte| all << 8 | u64::from(byte)))
    };
    if !header.starts_with(&QCOW2_MAGIC) || number(4, 4)? != 3 {
        return Err(SHORT);
    }
    if number(INCOMPATIBLE_FEATURES, 8)? & !(DIRTY | CORRUPT) != 0 {
        return Err("it has features that k3s-vm does not use, like an external data file");
    }
    let place = |at: usize, length: usize| usize::try_from(number(at, length)?).map_err(|_| SHORT);
    let (offset, length) = (place(BACKING_OFFSET, 8)?, place(BACKING_LENGTH, 4)?);
    let name = offset
        .checked_add(length)
        .and_then(|end| header.get(offset..end));
    if name.ok_or(SHORT)? == base {
        Ok(())
    } else {
        Err("its backing file is not the image that the VM was created from")
    }
}

/// The space of a file on its disk.
///
/// # Errors
///
/// When it cannot be looked at.
pub fn disk_use(path: &Path) -> Result<Size, FileError> {
    let blocks: io::Result<u64> = path.metadata().map(|metadata| metadata.blocks());
    blocks
        .map(|blocks| Size::bytes(blocks * 512))
        .map_err(FileError::on("look at", path))
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, process::Command};

    use super::*;
    use crate::{base::Digest, image::Format};

    fn base(path: impl Into<PathBuf>, format: Format, size: Size) -> BaseImage {
        BaseImage {
            path: path.into(),
            digest: Digest::of(b""),
            virtual_size: size,
            format,
        }
    }

    fn qemu_img(arguments: &[&str], path: &Path) -> String {
        let output = Command::new("qemu-img").args(arguments).arg(path).output();
        let output = output.expect("these tests need qemu-img: install the package qemu-utils");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    #[test]
    fn headers_with_other_files_are_rejected() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let [overlay, base_path, other] =
            ["overlay", "base", "other"].map(|name| directory.path().join(name));
        let planned = plan(&base(&base_path, Format::Raw, Size::gib(1)), Size::gib(2));
        let planned = planned.expect("possible");
        std::fs::write(&overlay, &planned).expect("written");
        let fault = |base: &Path| header_fault(&overlay, base).expect("read");
        assert_eq!(fault(&base_path), None);
        assert!(fault(&other).is_some_and(|it| it.contains("backing file")));
        for options in [
            ["-o", "data_file=other,data_file_raw=on"],
            ["-o", "extended_l2=on"],
        ] {
            let mut command = Command::new("qemu-img");
            command
                .current_dir(directory.path())
                .args(["create", "-q", "-f", "qcow2"]);
            let made = command.args(options).args(["overlay", "1M"]).status();
            assert!(made.expect("qemu-img runs").success());
            assert!(fault(&base_path).is_some_and(|it| it.contains("features")));
        }
        let numbers = [(BACKING_OFFSET, 8), (BACKING_LENGTH, 4), (4, 4), (0, 4)];
        for (at, length) in numbers {
            let mut torn = planned.clone();
            torn[at..at + length].fill(0xff);
            std::fs::write(&overlay, torn).expect("written");
            assert!(fault(&base_path).is_some(), "{at}");
        }
        std::fs::write(&overlay, &planned[..20]).expect("written");
        assert_eq!(fault(&base_path), Some("it is not a qcow2 image"));
    }

    #[test]
    fn qemu_accepts_odd_base_names() {
        for name in [
            "plain",
            "two words",
            "a,b=c,,d",
            "ünï/çødé",
            "json:{}",
            "nbd:x:y",
            "'\"$(x)",
        ] {
            for (format, base_size, size) in [
                (Format::Raw, Size::mib(1), Size::mib(1)),
                (Format::Raw, Size::mib(1), Size::bytes((20 << 30) + 1)),
                (Format::Qcow2, Size::gib(3), Size::gib(20)),
                (Format::Qcow2, Size::gib(3), LARGEST),
            ] {
                let directory = tempfile::tempdir().expect("temporary directory");
                let path = directory.path().join(name).join("base.img");
                std::fs::create_dir_all(path.parent().expect("has one")).expect("made");
                let bytes = base_size.as_bytes().to_string();
                Command::new("qemu-img")
                    .args(["create", "-q", "-f", format.as_str()])
                    .args([path.as_os_str(), bytes.as_ref()])
                    .status()
                    .expect("these tests need qemu-img: install the package qemu-utils");
                let image = plan(&base(&path, format, base_size), size).expect("planned");
                let overlay = directory.path().join("disk.qcow2");
                std::fs::write(&overlay, image).expect("written");

                qemu_img(&["check", "-q"], &overlay);
                let info = qemu_img(&["info", "--output=json", "--backing-chain"], &overlay);
                let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
                assert_eq!(info[0]["format"], "qcow2");
                assert_eq!(
                    info[0]["virtual-size"],
                    size.as_bytes().next_multiple_of(512)
                );
                assert_eq!(info[0]["backing-filename-format"], format.as_str());
                assert_eq!(
                    info[0]["full-backing-filename"],
                    path.to_str().expect("UTF-8")
                );
                assert_eq!(
                    info[1]["virtual-size"],
                    base_size.as_bytes(),
                    "the base opens"
                );
            }
        }
    }

    #[test]
    fn rejects_invalid_sizes_and_bases() {
        let long = format!("/{}", "a".repeat(1023));
        for (path, size, reason) in [
            (
                "/b",
                Size::mib(1),
                "1MiB is smaller than the base image, which has 2MiB",
            ),
            ("/b", Size::gib(64 << 10), "63 TiB"),
            ("b", Size::mib(2), "not absolute"),
            (long.as_str(), Size::mib(2), "longer than 1023"),
        ] {
            let error = plan(&base(path, Format::Raw, Size::mib(2)), size).expect_err(reason);
            assert!(error.to_string().contains(reason), "{error}");
        }
        assert!(
            plan(
                &base(&long[..1023], Format::Raw, Size::mib(2)),
                Size::mib(2)
            )
            .is_ok()
        );
    }

    #[test]
    fn a_new_overlay_is_small_and_fresh() {
        let image = plan(&base("/b", Format::Qcow2, Size::gib(3)), Size::gib(20)).expect("planned");
        assert!(image.len() <= 4 * CLUSTER, "{}", image.len());
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), &image).expect("written");
        let on_disk = disk_use(file.path()).expect("is there").as_bytes();
        assert!(on_disk <= image.len() as u64, "{on_disk}");
        assert!(is_qcow2(file.path()).expect("read"));
        std::fs::write(file.path(), "QF").expect("torn");
        assert!(!is_qcow2(file.path()).expect("read"));
        assert!(disk_use(Path::new("/nonexistent")).is_err());
    }
}
