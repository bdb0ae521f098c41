//! Large files that are mostly holes: read without reading the holes.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::FileExt},
};

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};

const BLOCK: usize = 256 << 10;

/// A checksum of a file's content that shows whether it was damaged. Blocks of zeros do not count, so that it is the same
/// whether or not they are holes; a copy may have others.
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

/// Where at or behind `at` there is no hole; `None` when all the rest is one.
fn next_data(file: impl AsFd, at: u64) -> io::Result<Option<u64>> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// As much as there is, up to a whole block.
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
    fn holes_are_zeros_and_all_else_counts() {
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
}
