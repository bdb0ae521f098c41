//! Sparse files: read and copied without reading the holes.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::FileExt},
    path::Path,
};

use rustix::{
    fs::{SeekFrom, ioctl_ficlone, seek},
    io::Errno,
};

const BLOCK: usize = 256 << 10;

/// A checksum of a file's content that shows whether it was damaged. Blocks of zeros do not count, so that a copy with
/// other holes has the same checksum.
///
/// # Errors
///
/// Whatever reading fails with.
pub fn checksum(file: &File) -> io::Result<u32> {
    let (mut block, zeros) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut hasher = crc32fast::Hasher::new();
    let mut at = 0;
    while let Some(data) = next_data(file, at)? {
        at = data - data % BLOCK as u64;
        let read = read_at(file, &mut block, at)?;
        if block[..read] != zeros[..read] {
            hasher.update(&at.to_le_bytes());
            hasher.update(&block[..read]);
        }
        at += BLOCK as u64;
    }
    Ok(hasher.finalize())
}

/// Copies `from` to the empty file `to`: a clone if the file system supports it, else all bytes that are not zero, with
/// holes for the others.
///
/// # Errors
///
/// Whatever reading or writing fails with.
pub fn copy(from: &File, to: &File) -> io::Result<()> {
    if ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let (mut block, zeros) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut at = 0;
    while let Some(data) = next_data(from, at)? {
        at = data - data % BLOCK as u64;
        let read = read_at(from, &mut block, at)?;
        if block[..read] != zeros[..read] {
            to.write_all_at(&block[..read], at)?;
        }
        at += BLOCK as u64;
    }
    to.set_len(from.metadata()?.len())
}

/// Returns `true` when a copy of the file in `directory` would be a clone, which takes no space.
pub fn is_cloned(from: &File, directory: &Path) -> bool {
    tempfile::tempfile_in(directory).is_ok_and(|to| ioctl_ficlone(&to, from).is_ok())
}

/// The start of the next data at or behind `at`; `None` when the rest is a hole.
fn next_data(file: impl AsFd, at: u64) -> io::Result<Option<u64>> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// As many bytes as there are, up to a whole block.
fn read_at(file: &File, block: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < block.len() {
        match file.read_at(&mut block[read..], at + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn of(pieces: &[(u64, &[u8])], length: u64) -> u32 {
        let mut file = tempfile::tempfile().expect("created");
        for (at, piece) in pieces {
            file.write_all_at(piece, *at).expect("written");
        }
        file.set_len(length).expect("cut");
        file.flush().expect("flushed");
        checksum(&file).expect("read")
    }

    #[test]
    fn holes_count_as_zeros() {
        const END: u64 = 8 << 20;
        let sound = of(&[(5 << 20, b"guest")], END);
        assert_eq!(of(&[(0, &[0; 1 << 20]), (5 << 20, b"guest")], END), sound);
        for altered in [
            of(&[(5 << 20, b"ghost")], END),
            of(&[(6 << 20, b"guest")], END),
            of(&[((5 << 20) + 1, b"guest")], END),
            of(&[(5 << 20, b"guest"), (END - 1, b"!")], END),
            of(&[(5 << 20, b"guest")], (5 << 20) + 2),
            of(&[], END),
        ] {
            assert_ne!(altered, sound);
        }
    }
    #[test]
    fn a_copy_keeps_contents_and_holes() {
        const END: u64 = (8 << 20) + 7;
        let [from, to] = [(); 2].map(|()| tempfile::tempfile().expect("created"));
        for (at, piece) in [
            (3, &b"begin"[..]),
            (5 << 20, &[7; BLOCK + 1]),
            (END - 1, b"!"),
        ] {
            from.write_all_at(piece, at).expect("written");
        }
        copy(&from, &to).expect("copied");
        assert_eq!(to.metadata().expect("there").len(), END);
        let [one, other] = [&from, &to].map(|file| {
            let mut bytes = vec![0; END as usize];
            file.read_exact_at(&mut bytes, 0).expect("read");
            bytes
        });
        assert!(one == other);
        to.sync_all().expect("flushed");
        let used = std::os::unix::fs::MetadataExt::blocks(&to.metadata().expect("there")) * 512;
        assert!(used < 2 << 20, "{used}");
    }
}
