//! Limits the names in a tar archive from elsewhere. The `tar` crate reads a long name or an extension as a whole,
//! whatever length its header has.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

use tar::{Entry, EntryType};

/// The most bytes between the contents of two entries: headers, long names, extensions.
const LONGEST: u64 = 1 << 20;

/// The position in an archive up to which it may be read.
#[derive(Debug)]
pub struct HeaderLimit(Rc<Cell<u64>>);

/// An archive that is read up to a [`HeaderLimit`].
#[derive(Debug)]
pub struct Limited<R> {
    source: R,
    position: u64,
    limit: Rc<Cell<u64>>,
}

impl HeaderLimit {
    /// The archive `source` with a limited first header, and the limit to move at each entry.
    pub fn of<R: Read>(source: R) -> (Limited<R>, Self) {
        let limit = Rc::new(Cell::new(LONGEST));
        let limited = Limited {
            source,
            position: 0,
            limit: Rc::clone(&limit),
        };
        (limited, Self(limit))
    }

    /// Allows the content of `entry` and the headers of the next one.
    pub fn allow(&self, entry: &Entry<'_, impl Read>) {
        let stored = entry.header().entry_size().unwrap_or_default();
        // A sparse file is shorter in the archive than it is.
        let length = match entry.header().entry_type() {
            EntryType::GNUSparse => stored,
            _ => stored.max(entry.size()),
        };
        let end = entry.raw_file_position().saturating_add(length);
        self.0.set(end.saturating_add(LONGEST));
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.limit.get().saturating_sub(self.position);
        if left == 0 && !buffer.is_empty() {
            let reason = "the archive has a file name of more than 1 MiB";
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
        }
        let most = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.source.read(&mut buffer[..most])?;
        self.position += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use tar::{Archive, Header};

    use super::*;

    fn header(kind: EntryType, size: u64) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    /// The names' lengths, or the first error.
    fn names(source: impl Read) -> io::Result<Vec<usize>> {
        let (source, limit) = HeaderLimit::of(source);
        let mut archive = Archive::new(source);
        let mut names = Vec::new();
        for entry in archive.entries()? {
            let entry = entry?;
            limit.allow(&entry);
            names.push(entry.path_bytes().len());
        }
        Ok(names)
    }

    #[test]
    fn an_endless_name_is_rejected() {
        let content = || io::repeat(b'x').take(4 << 20);
        let file = header(EntryType::Regular, 4 << 20);
        for kind in [
            EntryType::GNULongName,
            EntryType::GNULongLink,
            EntryType::XHeader,
        ] {
            let endless = header(kind, 3 << 29);
            // Behind a file that is longer than the bound.
            let archive = file.chain(content()).chain(endless.chain(io::repeat(b'x')));
            let error = names(archive).expect_err("refused");
            assert_eq!(
                error.kind(),
                io::ErrorKind::FileTooLarge,
                "{kind:?}: {error}"
            );
        }
        let long = header(EntryType::GNULongName, 4096);
        let name = io::repeat(b'x').take(4096);
        let end = io::repeat(0).take(1024);
        let archive = long.chain(name).chain(file.chain(content())).chain(end);
        assert_eq!(names(archive).expect("sound"), [4096]);
    }
}
