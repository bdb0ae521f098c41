//! The compression of an archive of images, and the names of its files.

use std::{
    io::{self, BufRead, BufReader, Read},
    path::{Component, Path},
};

use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

use crate::{base::Digest, k3s::images::ArchiveError};

/// How packed files begin.
pub(crate) const GZIP: [u8; 2] = [0x1f, 0x8b];

const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Whether a file begins as zstd does, be it with a frame that is skipped (RFC 8878, 3.1.2).
pub(crate) fn is_zstd(first: &[u8]) -> bool {
    let is_skippable =
        first.len() >= 4 && first[0] & 0xf0 == 0x50 && first[1..4] == [0x2a, 0x4d, 0x18];
    first.starts_with(&ZSTD) || is_skippable
}

/// All frames of a zstd stream. ruzstd's own reader ends with the first one.
struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    within: bool,
}

impl<R: BufRead> Frames<R> {
    /// To the begin of the next frame that has content; false at the end of the stream.
    fn next(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut skipped = (&mut self.source).take(length.into());
                    if io::copy(&mut skipped, &mut io::sink())? < length.into() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.within && !self.next()? {
                return Ok(0);
            }
            self.within = true;
            while self.decoder.can_collect() < buffer.len() && !self.decoder.is_finished() {
                let more = buffer.len() - self.decoder.can_collect();
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBytes(more))
                    .map_err(io::Error::other)?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.within = false;
        }
    }
}

/// The tar archive in what may be packed.
pub(crate) fn unpacked<'a>(mut source: impl Read + 'a) -> Result<Box<dyn Read + 'a>, ArchiveError> {
    let mut first = Vec::new();
    source
        .by_ref()
        .take(4)
        .read_to_end(&mut first)
        .map_err(ArchiveError::reading)?;
    let whole = io::Cursor::new(first.clone()).chain(source);
    Ok(match first.as_slice() {
        [] => return Err(ArchiveError::Empty),
        packed if packed.starts_with(&GZIP) => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        packed if is_zstd(packed) => Box::new(Frames {
            source: BufReader::new(whole),
            decoder: FrameDecoder::new(),
            within: false,
        }),
        _ => Box::new(whole),
    })
}

/// A path without the dots in it.
pub(crate) fn plain(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str().unwrap_or_default()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts.join("/")
}

/// Whether a file can be a part of an image. manifest.json may call them anything; in the older layout, these are others.
pub(crate) fn is_part(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    path.starts_with("blobs/") || !["VERSION", "json", "repositories"].contains(&name)
}

/// The digest that a file is named after, as containerd writes it.
pub(crate) fn digest_in(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    let name = name.strip_prefix("sha256:").unwrap_or(name);
    let name = [".tar", ".json"]
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(name);
    let digest: Digest = name.parse().ok()?;
    Some(format!("sha256:{digest}"))
}
