//! Recognizes disk images and other files before QEMU opens them.

use std::{fmt, io::Read, path::Path};

use serde::{Deserialize, Serialize};

use super::ImageError;
use crate::base::{FileError, Size, files};

/// The beginning of a qcow2 image (docs/interop/qcow2.txt of QEMU).
pub(super) const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";

/// The format of a base image, as QEMU calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// QEMU's copy-on-write format.
    Qcow2,
    /// The bytes of the disk.
    Raw,
}

impl Format {
    /// The name in QEMU's options and in the overlay's header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The header of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// The format, as QEMU's option.
    pub format: Format,
    /// The size for the guest.
    pub virtual_size: Size,
}

/// The reason why a file cannot be a base image.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is another kind of file.
    NotADisk(&'static str),
    /// It is an unusable disk image.
    Unusable(&'static str),
}

/// The length up to the signature of ISO 9660, the last one.
const HEAD: u64 = 0x8006;
/// The smallest system with boot loader and kernel.
const SMALLEST: u64 = 1 << 20;

/// Checks the file at `path`, which came from `origin`.
pub(super) fn inspect(path: &Path, origin: &str) -> Result<Disk, ImageError> {
    let file = files::open_regular(path)?;
    let length = file
        .metadata()
        .map_err(FileError::on("look at", path))?
        .len();
    let mut head = Vec::new();
    file.take(HEAD)
        .read_to_end(&mut head)
        .map_err(FileError::on("read", path))?;
    judge(&head, length).map_err(|refusal| match refusal {
        Refusal::NotADisk(looks_like) => ImageError::NotADisk {
            origin: origin.to_owned(),
            looks_like,
        },
        Refusal::Unusable(reason) => ImageError::UnusableDisk {
            origin: origin.to_owned(),
            reason,
        },
    })
}

/// Decides by the first 32 KiB of a file of `length` bytes.
///
/// # Errors
///
/// See [`Refusal`].
pub fn judge(head: &[u8], length: u64) -> Result<Disk, Refusal> {
    if head.starts_with(&QCOW2_MAGIC) {
        return judge_qcow2(head, length);
    }
    if let Some(other) = something_else(head) {
        return Err(Refusal::NotADisk(other));
    }
    let partitioned = head.get(510..512) == Some(&[0x55, 0xaa]);
    match (partitioned, length) {
        (_, 0) => Err(Refusal::NotADisk("an empty file")),
        (false, _) if looks_like_text(head) => Err(Refusal::NotADisk("a text")),
        (_, ..SMALLEST) => Err(Refusal::NotADisk("too small to be one")),
        (false, _) => Err(Refusal::NotADisk("a file without a partition table")),
        (true, _) => Ok(Disk {
            format: Format::Raw,
            virtual_size: Size::bytes(length),
        }),
    }
}

/// The header's fields are those of QEMU's docs/interop/qcow2.txt.
fn judge_qcow2(head: &[u8], length: u64) -> Result<Disk, Refusal> {
    let number = |at: usize, bytes: usize| {
        let field = head.get(at..at + bytes)?;
        Some(
            field
                .iter()
                .fold(0u64, |number, byte| number << 8 | u64::from(*byte)),
        )
    };
    let cut = Refusal::Unusable("its header is cut off");
    let (Some(version), Some(backing), Some(size), Some(crypt), Some(l1_entries), Some(l1)) = (
        number(4, 4),
        number(8, 8),
        number(24, 8),
        number(32, 4),
        number(36, 4),
        number(40, 8),
    ) else {
        return Err(cut);
    };
    let features = if version >= 3 {
        number(72, 8).ok_or(cut)?
    } else {
        0
    };
    let wrong = [
        (
            !(2..=3).contains(&version),
            "it is qcow of a version that is not supported",
        ),
        (
            backing != 0,
            "it needs another image that it was made on (a backing file)",
        ),
        (crypt != 0, "it is encrypted"),
        (features & 0b10 != 0, "it is marked as corrupt"),
        (features & 0b100 != 0, "it keeps its data in another file"),
        (
            features >> 5 != 0,
            "it uses features of qcow2 that are not known yet",
        ),
        (size == 0, "it is a disk of no size"),
        (
            l1.saturating_add(l1_entries * 8) > length,
            "it is truncated",
        ),
    ];
    match wrong.into_iter().find(|(is_so, _)| *is_so) {
        Some((_, reason)) => Err(Refusal::Unusable(reason)),
        None => Ok(Disk {
            format: Format::Qcow2,
            virtual_size: Size::bytes(size),
        }),
    }
}

/// Signatures of other files: the offset, the bytes, and the kind. ISO is first, for bootable ones have a partition table
/// as well.
const SIGNATURES: [(usize, &[u8], &str); 14] = [
    (0x8001, b"CD001", "an ISO image of a CD or DVD"),
    (0, b"\x1f\x8b", "a gzip archive, to be unpacked first"),
    (0, b"\xfd7zXZ\0", "an xz archive, to be unpacked first"),
    (
        0,
        b"\x28\xb5\x2f\xfd",
        "a zstd archive, to be unpacked first",
    ),
    (0, b"BZh", "a bzip2 archive, to be unpacked first"),
    (0, b"PK\x03\x04", "a zip archive, to be unpacked first"),
    (
        0,
        b"7z\xbc\xaf\x27\x1c",
        "a 7z archive, to be unpacked first",
    ),
    (257, b"ustar", "a tar archive, to be unpacked first"),
    (0, b"KDMV", "a VMDK image, to be converted first"),
    (
        0,
        b"# Disk DescriptorFile",
        "a VMDK image, to be converted first",
    ),
    (0, b"vhdxfile", "a VHDX image, to be converted first"),
    (0, b"conectix", "a VHD image, to be converted first"),
    (
        0x40,
        b"\x7f\x10\xda\xbe",
        "a VDI image, to be converted first",
    ),
    (0, b"\x7fELF", "a program"),
];

/// The kind of a file that is not a disk image.
fn something_else(head: &[u8]) -> Option<&'static str> {
    let has = |at: usize, signature: &[u8]| {
        head.get(at..)
            .is_some_and(|rest| rest.starts_with(signature))
    };
    let found = SIGNATURES
        .iter()
        .find(|(at, signature, _)| has(*at, signature));
    found.map(|(_, _, what)| *what).or_else(|| {
        let start = String::from_utf8_lossy(&head[..head.len().min(512)]).to_ascii_lowercase();
        let start = start.trim_start();
        let is_page = start.starts_with("<!doctype html") || start.starts_with("<html");
        is_page.then_some("an HTML page")
    })
}

fn looks_like_text(head: &[u8]) -> bool {
    let start = &head[..head.len().min(512)];
    let printable = |byte: &u8| !byte.is_ascii_control() || byte.is_ascii_whitespace();
    start.iter().all(printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qcow2(patches: &[(usize, &[u8])]) -> Vec<u8> {
        let mut head = vec![0; 512];
        head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        head[24..32].copy_from_slice(&(3u64 << 30).to_be_bytes());
        head[39] = 6;
        head[40..48].copy_from_slice(&0x30000u64.to_be_bytes());
        for (at, bytes) in patches {
            head[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        head
    }

    fn refusal(head: &[u8], length: u64) -> &'static str {
        match judge(head, length) {
            Err(Refusal::NotADisk(reason) | Refusal::Unusable(reason)) => reason,
            Ok(disk) => panic!("taken for {disk:?}"),
        }
    }

    #[test]
    fn accepts_qcow2_and_partitioned_raw() {
        let disk = judge(&qcow2(&[]), 1 << 20).expect("sound");
        assert_eq!(
            (disk.format, disk.virtual_size),
            (Format::Qcow2, Size::gib(3))
        );
        let mut raw = vec![0; HEAD as usize];
        raw[510..512].copy_from_slice(&[0x55, 0xaa]);
        let disk = judge(&raw, 5 << 20).expect("sound");
        assert_eq!(
            (disk.format, disk.virtual_size),
            (Format::Raw, Size::mib(5))
        );
    }

    #[test]
    fn refuses_qcow2_that_cannot_stand_alone() {
        for (at, bytes, reason) in [
            (7, &[9][..], "version"),
            (15, &[200], "backing"),
            (35, &[1], "encrypted"),
            (79, &[2], "corrupt"),
            (79, &[4], "another file"),
            (79, &[32], "not known"),
            (24, &[0; 8], "no size"),
            (40, &[0xff; 8], "truncated"),
        ] {
            let refusal = refusal(&qcow2(&[(at, bytes)]), 1 << 20);
            assert!(refusal.contains(reason), "{refusal}");
        }
        assert!(refusal(&qcow2(&[]), 0x30000).contains("truncated"));
        assert!(refusal(b"QFI\xfb\0\0", 6).contains("cut off"));
    }

    #[test]
    fn names_other_formats() {
        let padded = |start: &[u8]| {
            let mut head = vec![0; HEAD as usize];
            head[..start.len()].copy_from_slice(start);
            head
        };
        let mut hybrid_iso = padded(b"");
        hybrid_iso[510..512].copy_from_slice(&[0x55, 0xaa]);
        hybrid_iso[0x8001..].copy_from_slice(b"CD001");
        for (head, length, what) in [
            (vec![], 0, "empty"),
            (
                b"\n <!DOCTYPE HTML><title>Log in</title>".to_vec(),
                40,
                "HTML",
            ),
            (b"\x1f\x8b\x08".to_vec(), 1 << 30, "gzip"),
            (b"\xfd7zXZ\0".to_vec(), 1 << 30, "xz"),
            (b"Not Found\n".to_vec(), 10, "a text"),
            (hybrid_iso, 1 << 30, "ISO"),
            (padded(b""), 1 << 30, "without a partition table"),
            (padded(b""), HEAD, "too small"),
        ] {
            assert!(
                refusal(&head, length).contains(what),
                "{what}: {}",
                refusal(&head, length)
            );
        }
    }
}
