//! Copies files of an archive into another one in one pass.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use serde_json::json;
use tar::{Entry, EntryType, Header};

use crate::{
    base::{Size, digest::Hasher, tar_limit::HeaderLimit},
    k3s::images::{
        ArchiveError, Guest, Listed, Passed, PendingImage, Reference,
        contents::{Blob, Contents, Found, INDEX, LAYOUT, MANIFEST, WHOLE_NAME},
        parts::{GZIP, digest_in, is_part, is_zstd, plain},
    },
};

/// No description of an image is longer, in bytes; containerd has the same limit.
const DOCUMENT: u64 = 8 << 20;

/// The names and descriptions of an archive are kept until its end. Those of hundreds of images, with what signs them,
/// are of some MiB.
const KEPT: Size = Size::mib(128);

/// An archive of hundreds of images has some thousand files.
const FILES: usize = 100_000;

/// An archive that is read and, but for what the node has, written.
pub(crate) struct ArchiveFilter<'a, W> {
    guest: &'a Guest,
    pub(crate) contents: Contents,
    out: W,
    sent: u64,
    left_out: u64,
    kept: u64,
}

impl<'a, W: Write> ArchiveFilter<'a, W> {
    pub(crate) fn new(guest: &'a Guest, out: W) -> Self {
        Self {
            guest,
            contents: Contents::default(),
            out,
            sent: 0,
            left_out: 0,
            kept: 0,
        }
    }

    /// Reads it to its end.
    pub(crate) fn all_of(&mut self, source: impl Read) -> Result<(), ArchiveError> {
        let (limited, limit) = HeaderLimit::of(source);
        let mut archive = tar::Archive::new(limited);
        let mut first = true;
        for entry in archive.entries().map_err(ArchiveError::reading)? {
            let entry = entry.map_err(|error| match error.kind() {
                io::ErrorKind::FileTooLarge => ArchiveError::reading(error),
                _ if first => ArchiveError::NoTar,
                io::ErrorKind::Other => ArchiveError::Truncated,
                _ => ArchiveError::reading(error),
            })?;
            first = false;
            limit.allow(&entry);
            self.one(entry)?;
            if self.contents.links.len() + self.contents.blobs.len() > FILES {
                return Err(ArchiveError::Excessive(format!("{FILES} files")));
            }
        }
        Ok(())
    }

    fn one(&mut self, mut entry: Entry<'_, impl Read>) -> Result<(), ArchiveError> {
        let path = plain(&entry.path().map_err(ArchiveError::reading)?);
        self.keep(path.len())?;
        if let Some(target) = entry.link_name().map_err(ArchiveError::reading)? {
            let folder = Path::new(&path).parent().unwrap_or(Path::new(""));
            let target = match entry.header().entry_type() {
                EntryType::Symlink => plain(&folder.join(target)),
                _ => plain(&target),
            };
            self.keep(target.len())?;
            self.contents.links.insert(path, target);
            return Ok(());
        }
        // GNU tar may leave the holes of a file out.
        let kind = entry.header().entry_type();
        if !kind.is_file() && !kind.is_gnu_sparse() && !kind.is_contiguous() {
            return Ok(());
        }
        if let Some(outer) = [INDEX, MANIFEST, LAYOUT].into_iter().find(|it| *it == path) {
            let mut text = Vec::new();
            let size = entry.size();
            (&mut entry)
                .take(DOCUMENT)
                .read_to_end(&mut text)
                .map_err(ArchiveError::reading)?;
            if (text.len() as u64) < size.min(DOCUMENT) {
                return Err(ArchiveError::Truncated);
            }
            self.contents.outer.insert(outer, text);
            return Ok(());
        }
        if is_part(&path) {
            self.part(path, entry)
        } else {
            Ok(())
        }
    }

    /// Counts what is kept until the archive's end.
    fn keep(&mut self, bytes: usize) -> Result<(), ArchiveError> {
        self.kept += bytes as u64;
        if self.kept > KEPT.as_bytes() {
            let limit = format!("{} of names and descriptions", KEPT.approximate());
            return Err(ArchiveError::Excessive(limit));
        }
        Ok(())
    }

    /// A layer or a description.
    fn part(&mut self, path: String, entry: Entry<'_, impl Read>) -> Result<(), ArchiveError> {
        let size = entry.size();
        let called = digest_in(&path);
        let is_there = called
            .as_ref()
            .is_some_and(|it| self.guest.digests.contains(it));
        let room = Size::bytes(self.guest.room.as_bytes().saturating_sub(self.sent));
        if !is_there && size > room.as_bytes() {
            let needed = Size::bytes(size);
            return Err(ArchiveError::NoRoom { room, needed });
        }
        let seen = if is_there {
            self.left_out += size;
            copied(entry, size, &mut io::sink())?
        } else {
            let number = self.contents.blobs.len();
            let to = match &called {
                Some(digest) => format!("blobs/{}", digest.replace(':', "/")),
                None => format!("layers/{number}"),
            };
            self.begin(&to, size)?;
            let seen = copied(entry, size, &mut self.out)?;
            self.pad(size)?;
            self.sent += size;
            seen
        };
        // In the older layout a name that looks like a digest may be one of something else.
        let counts = is_there || path.starts_with("blobs/");
        if counts && called.is_some_and(|called| called != seen.blob.digest) {
            return Err(ArchiveError::Damaged(path));
        }
        if let Some(text) = seen.document {
            self.keep(text.len())?;
            self.contents
                .documents
                .insert(seen.blob.digest.clone(), text);
        }
        self.contents.blobs.insert(path, seen.blob);
        Ok(())
    }

    /// What names the images, unless the node has all of them by these names.
    pub(crate) fn finish(
        mut self,
        found: &[(Found, Reference)],
        loading: &str,
        nameless: usize,
    ) -> Result<Passed, ArchiveError> {
        let mut images = Vec::new();
        let mut manifests = Vec::new();
        for (number, (found, name)) in found.iter().enumerate() {
            let loading = format!("{loading}{number}");
            let mut target = found.target.clone();
            target.annotations = [(WHOLE_NAME.to_owned(), loading.clone())].into();
            images.push(PendingImage {
                name: name.clone(),
                loading,
                digest: target.digest.clone(),
            });
            manifests.push(target);
        }
        let is_there = |arrival: &PendingImage| {
            let listed = |it: &&Listed| it.name == arrival.name.as_str();
            let listed = self.guest.images.iter().find(listed);
            listed.is_some_and(|it| it.digest == arrival.digest)
        };
        if self.sent > 0 || !images.iter().all(is_there) {
            for (found, _) in found {
                let there = self.guest.digests.contains(&found.target.digest);
                if let Some(manifest) = found.manifest.as_ref().filter(|_| !there) {
                    let path = format!("blobs/{}", found.target.digest.replace(':', "/"));
                    self.whole(&path, manifest)?;
                }
            }
            self.whole(LAYOUT, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
            let index = json!({ "schemaVersion": 2, "manifests": manifests });
            self.whole(INDEX, index.to_string().as_bytes())?;
            self.write(&[0; 1024])?;
        }
        Ok(Passed {
            images,
            sent: Size::bytes(self.sent),
            left_out: Size::bytes(self.left_out),
            nameless,
        })
    }

    fn whole(&mut self, path: &str, content: &[u8]) -> Result<(), ArchiveError> {
        self.begin(path, content.len() as u64)?;
        self.write(content)?;
        self.pad(content.len() as u64)
    }

    fn begin(&mut self, path: &str, size: u64) -> Result<(), ArchiveError> {
        let mut header = Header::new_gnu();
        header.set_path(path).map_err(ArchiveError::Refused)?;
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(size);
        header.set_cksum();
        self.write(header.as_bytes())
    }

    /// Each file fills whole blocks of 512 bytes.
    fn pad(&mut self, size: u64) -> Result<(), ArchiveError> {
        let missing = size.next_multiple_of(512) - size;
        let zeros = [0; 512];
        self.write(
            zeros
                .get(..usize::try_from(missing).unwrap_or(0))
                .unwrap_or_default(),
        )
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.out.write_all(bytes).map_err(ArchiveError::Refused)
    }
}

struct Seen {
    blob: Blob,
    document: Option<Vec<u8>>,
}

fn copied(mut from: impl Read, size: u64, to: &mut impl Write) -> Result<Seen, ArchiveError> {
    let mut hasher = Hasher::default();
    let (mut read, mut first) = (0, Vec::new());
    let mut document = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let some = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(some) => &buffer[..some],
            Err(error) => return Err(ArchiveError::reading(error)),
        };
        // A pipe may give it byte by byte.
        let missing = 4_usize.saturating_sub(first.len()).min(some.len());
        first.extend_from_slice(&some[..missing]);
        if size <= DOCUMENT {
            document.extend_from_slice(some);
        }
        hasher.update(some);
        to.write_all(some).map_err(ArchiveError::Refused)?;
        read += some.len() as u64;
    }
    if read < size {
        return Err(ArchiveError::Truncated);
    }
    let is_document = document.trim_ascii_start().starts_with(b"{");
    Ok(Seen {
        blob: Blob {
            digest: format!("sha256:{}", hasher.finish()),
            size,
            packed: match () {
                () if first.starts_with(&GZIP) => "+gzip",
                () if is_zstd(&first) => "+zstd",
                () => "",
            },
        },
        document: is_document.then_some(document),
    })
}
