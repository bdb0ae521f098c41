//! How an archive of images is packed, and what its files are called.

use std::{
    io::{self, Read},
    path::{Component, Path},
};

use ruzstd::decoding::StreamingDecoder;

use crate::{base::Digest, k3s::images::ArchiveError};

/// How packed files begin.
pub(crate) const GZIP: [u8; 2] = [0x1f, 0x8b];

pub(crate) const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

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
        packed if packed == ZSTD => {
            Box::new(StreamingDecoder::new(whole).map_err(|_| ArchiveError::NoTar)?)
        }
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

/// Whether a file can be a part of an image: those of both layouts, and of the tools that pack their layers.
pub(crate) fn is_part(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    path.starts_with("blobs/")
        || [".tar", ".tar.gz", ".tgz"]
            .iter()
            .any(|end| name.ends_with(end))
        || (name.ends_with(".json") && !path.contains('/'))
        || digest_in(path).is_some()
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
