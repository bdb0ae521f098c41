//! Writes files to a FAT image with the label that cloud-init looks for. The same files give the same bytes.

use std::io::{self, Cursor, Write};

use fatfs::{
    Date, DateTime, FileSystem, FormatVolumeOptions, FsOptions, TimeProvider, format_volume,
};

/// A file in the root directory of the seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedFile {
    /// Its name, which may be long.
    pub name: &'static str,
    /// The content.
    pub content: Vec<u8>,
}

/// The label, padded to the 11 bytes that FAT has for it. cloud-init takes `cidata` and `CIDATA`.
const LABEL: [u8; 11] = *b"CIDATA     ";
/// FAT needs a volume number; a fixed one keeps the bytes the same.
const VOLUME_ID: u32 = 0x6b33_7376;
const CLUSTER: usize = 512;
/// Boot sector, two tables and the root directory of a FAT12 of this size, with room to spare.
const OVERHEAD: usize = 32 << 10;
const SMALLEST: usize = 64 << 10;

/// FAT's first day, for all files.
#[derive(Debug, Clone, Copy)]
struct Timeless;

impl TimeProvider for Timeless {
    fn get_current_date(&self) -> Date {
        Date {
            year: 1980,
            month: 1,
            day: 1,
        }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime {
            date: self.get_current_date(),
            time: fatfs::Time {
                hour: 0,
                min: 0,
                sec: 0,
                millis: 0,
            },
        }
    }
}

/// The image of a file system with `files` in its root.
///
/// # Errors
///
/// When two names collide or FAT cannot hold a name.
pub fn image(files: &[SeedFile]) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size_for(files)];
    let options = FormatVolumeOptions::new()
        .bytes_per_cluster(u32::try_from(CLUSTER).expect("a small number"))
        .volume_label(LABEL)
        .volume_id(VOLUME_ID);
    format_volume(Cursor::new(&mut bytes), options)?;
    {
        let volume = FileSystem::new(
            Cursor::new(&mut bytes),
            FsOptions::new().time_provider(&Timeless),
        )?;
        for file in files {
            volume
                .root_dir()
                .create_file(file.name)?
                .write_all(&file.content)?;
        }
        volume.unmount()?;
    }
    Ok(bytes)
}

/// Whole clusters for the content, the overhead, rounded up to 64 KiB.
fn size_for(files: &[SeedFile]) -> usize {
    let content: usize = files
        .iter()
        .map(|file| file.content.len().next_multiple_of(CLUSTER))
        .sum();
    // A table entry of a FAT12 or FAT16 takes at most 2 bytes for each cluster, twice.
    let tables = content / CLUSTER * 4;
    (content + tables + OVERHEAD).next_multiple_of(SMALLEST)
}

#[cfg(test)]
mod tests {
    use std::{io::Read, process::Command};

    use super::*;

    fn files() -> Vec<SeedFile> {
        vec![
            SeedFile {
                name: "meta-data",
                content: b"{}".to_vec(),
            },
            SeedFile {
                name: "user-data",
                content: b"#cloud-config\n{}\n".to_vec(),
            },
            SeedFile {
                name: "k3s-vm-provision.service",
                content: vec![b'x'; 5000],
            },
        ]
    }

    #[test]
    fn files_are_read_back_unchanged() {
        let bytes = image(&files()).expect("made");
        let volume = FileSystem::new(Cursor::new(bytes), FsOptions::new()).expect("read");
        for file in files() {
            let mut content = Vec::new();
            volume
                .root_dir()
                .open_file(file.name)
                .expect("there")
                .read_to_end(&mut content)
                .expect("read");
            assert_eq!(content, file.content, "{}", file.name);
        }
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        assert_eq!(
            image(&files()).expect("made"),
            image(&files()).expect("made again")
        );
    }

    #[test]
    fn the_image_grows_with_its_content() {
        for size in [0, 1, 100_000, 3_000_000] {
            image(&[SeedFile {
                name: "big",
                content: vec![7; size],
            }])
            .unwrap_or_else(|error| panic!("{size}: {error}"));
        }
    }

    #[test]
    fn other_tools_agree() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("seed.img");
        std::fs::write(&path, image(&files()).expect("made")).expect("written");
        let fsck = Command::new("fsck.vfat")
            .arg("-n")
            .arg(&path)
            .output()
            .expect("apt-get install dosfstools");
        assert!(
            fsck.status.success(),
            "{}",
            String::from_utf8_lossy(&fsck.stdout)
        );
        let blkid = Command::new("blkid")
            .args(["-p", "-o", "export"])
            .arg(&path)
            .output()
            .expect("blkid runs");
        let said = String::from_utf8_lossy(&blkid.stdout);
        assert!(
            said.contains("LABEL=CIDATA") && said.contains("TYPE=vfat"),
            "{said}"
        );
    }
}
