//! An archive of images on its way into the node: read once from its beginning to its end, so that a pipe does as well
//! as a file. What the node has already is left out, and what names the images comes last, when all of it is known to be
//! sound: an archive that is refused leaves nothing behind in the node that has a name.

use std::{
    collections::HashSet,
    io::{Read, Write},
};

use crate::k3s::images::{
    ArchiveError, Reference,
    archive_filter::ArchiveFilter,
    contents::Found,
    parts,
    pending::{Guest, Passed},
};

/// Reads the archive `source` and writes to `out` the archive of what `guest` lacks; nothing when it lacks nothing. The
/// images are called `loading` and a number there.
///
/// # Errors
///
/// See [`ArchiveError`]; what is written then names no image.
pub fn pass(
    source: impl Read,
    guest: &Guest,
    name: Option<&Reference>,
    loading: &str,
    out: impl Write,
) -> Result<Passed, ArchiveError> {
    let mut passing = ArchiveFilter::new(guest, out);
    passing.all_of(parts::unpacked(source)?)?;
    let (found, nameless) = named(passing.contents.images(&guest.digests)?, name)?;
    passing.finish(&found, loading, nameless)
}

/// Each image with the name that it is to have, and how many have none.
fn named(
    found: Vec<Found>,
    given: Option<&Reference>,
) -> Result<(Vec<(Found, Reference)>, usize), ArchiveError> {
    let digests: HashSet<&str> = found.iter().map(|it| it.target.digest.as_str()).collect();
    if given.is_some() && digests.len() > 1 {
        return Err(ArchiveError::Several(digests.len()));
    }
    let at_most = if given.is_some() { 1 } else { found.len() };
    let all = found.into_iter().take(at_most);
    let (mut named, mut nameless) = (Vec::<(Found, Reference)>::new(), 0);
    for found in all {
        match given.or(found.name.as_ref()).cloned() {
            Some(name) => {
                // As in containerd, the last image with a name has it.
                named.retain(|(_, it)| *it != name);
                named.push((found, name));
            }
            None => nameless += 1,
        }
    }
    if named.is_empty() {
        return Err(ArchiveError::Nameless);
    }
    Ok((named, nameless))
}

#[cfg(test)]
mod tests;
