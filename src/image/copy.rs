//! Copies a file of this host: cloned if the file system supports it, else with its holes. The copy is hashed, since it
//! does not change any more.

use std::{
    fs::Metadata,
    io::{self, SeekFrom},
    path::Path,
};

use rustix::fs::ioctl_ficlone;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};

use crate::{
    base::{FileError, Progress, files},
    image::{
        ImageError,
        checksum::Sums,
        job::{Fetched, Job},
        partial::{self, Transfer, check_space, discard, no_space, validator_file},
    },
};

/// The size of a read, and of the smallest hole.
const BLOCK: usize = 1 << 20;

/// Fills `job.partial` from `source`.
///
/// # Errors
///
/// When `source` is not a plain file, its digest is wrong, or the copy cannot be written. Nothing is left then.
pub(super) async fn copy(
    source: &Path,
    job: &Job<'_>,
    progress: &dyn Progress,
) -> Result<Fetched, ImageError> {
    let target = job.partial;
    files::remove_if_exists(&validator_file(target))?;
    let (from, metadata) = open(source).await?;
    let to = File::create(target)
        .await
        .map_err(FileError::on("create", target))?;
    let transfer = Transfer::begin(progress, job.name, 0, Some(metadata.len()));
    let mut sums = Sums::toward(job.expected);
    let copied = if ioctl_ficlone(&to, &from).is_ok() {
        let clone = File::open(target)
            .await
            .map_err(FileError::on("open", target))?;
        copy_blocks((clone, target), None, &mut sums, &transfer).await
    } else {
        check_space(target, allocated(&metadata))?;
        copy_blocks((from, source), Some((to, target)), &mut sums, &transfer).await
    };
    match copied {
        Ok(size) => partial::verify(sums, size, job, false),
        Err(error) => {
            discard(target)?;
            Err(if error.is_out_of_space() {
                no_space(target, allocated(&metadata))?
            } else {
                error.into()
            })
        }
    }
}

/// Opens a regular file. Opening a FIFO would wait for its writer.
async fn open(source: &Path) -> Result<(File, Metadata), ImageError> {
    let file = File::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(source)
        .await
        .map_err(FileError::on("open", source))?;
    let metadata = file
        .metadata()
        .await
        .map_err(FileError::on("look at", source))?;
    if !metadata.is_file() {
        let reason = if metadata.is_dir() {
            io::ErrorKind::IsADirectory.into()
        } else {
            io::Error::other("not a regular file")
        };
        return Err(FileError::on("read", source)(reason).into());
    }
    Ok((file, metadata))
}

/// Hashes all of a file, and copies it on the way unless it is a clone already.
async fn copy_blocks(
    (mut from, source): (File, &Path),
    mut to: Option<(File, &Path)>,
    sums: &mut Sums,
    transfer: &Transfer<'_>,
) -> Result<u64, FileError> {
    let mut buffer = vec![0; BLOCK];
    let mut size = 0;
    loop {
        let read = from
            .read(&mut buffer)
            .await
            .map_err(FileError::on("read", source))?;
        if read == 0 {
            break;
        }
        let block = &buffer[..read];
        sums.update(block);
        if let Some((to, target)) = &mut to {
            append(to, block)
                .await
                .map_err(FileError::on("write", target))?;
        }
        transfer.advance(read);
        size += read as u64;
    }
    if let Some((to, target)) = &mut to {
        to.flush().await.map_err(FileError::on("write", target))?;
        to.set_len(size)
            .await
            .map_err(FileError::on("write", target))?;
    }
    Ok(size)
}

/// Writes a block, or leaves a hole for zeros.
async fn append(to: &mut File, block: &[u8]) -> io::Result<()> {
    if block.iter().any(|byte| *byte != 0) {
        return to.write_all(block).await;
    }
    let hole = i64::try_from(block.len()).map_err(io::Error::other)?;
    to.seek(SeekFrom::Current(hole)).await.map(drop)
}

/// The space of a file on its disk. That of a sparse file is less than its length.
fn allocated(metadata: &std::fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    (metadata.blocks() * 512).min(metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{Digest, progress::Silent},
        image::disk_use,
    };

    #[tokio::test]
    async fn a_copy_has_the_same_bytes_and_no_zeros_on_disk() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let [source, target] = ["source", "target"].map(|name| directory.path().join(name));
        let mut bytes = vec![0; 9 * BLOCK + 7];
        bytes[0] = 1;
        bytes[4 * BLOCK] = 1;
        std::fs::write(&source, &bytes).expect("written");
        let from = File::open(&source).await.expect("opened");
        let to = File::create(&target).await.expect("created");
        let mut sums = Sums::toward(None);
        let transfer = Transfer::begin(&Silent, "file", 0, None);
        let copied = copy_blocks((from, &source), Some((to, &target)), &mut sums, &transfer).await;

        assert_eq!(copied.expect("copied"), bytes.len() as u64);
        assert_eq!(sums.finish().0, Digest::of(&bytes));
        assert!(
            std::fs::read(&target).expect("read") == bytes,
            "also the hole at the end"
        );
        File::open(&target)
            .await
            .expect("opened")
            .sync_all()
            .await
            .expect("flushed");
        let on_disk = disk_use(&target).expect("is there").as_bytes();
        assert!(on_disk < 3 * BLOCK as u64, "{on_disk}");
    }
}
