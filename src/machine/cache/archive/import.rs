//! Imports an archive into the cache. Nothing is added until all of it is complete and verified.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use tar::{Archive, Entry};
use tokio::task::spawn_blocking;

use crate::{
    base::{
        Digest, FileError, Progress, Size,
        digest::Hasher,
        files::{PROGRAM, free_space},
        trust,
    },
    image::{Cache, ImageError, Known},
    k3s::release::{AIRGAP, BINARY, parse_checksums},
    machine::{
        MachineError,
        cache::{
            archive::{
                ArchiveEntry, ArchiveManifest, Kind,
                list::{LIST, LONGEST, Text},
            },
            assets::{BUCKET, DATA},
        },
        error::CacheArchiveError,
    },
};

/// The directory of files until the last one is verified.
const WAITING: &str = "partial/import";

/// Imports all files of the archive. Returns its list, and for each file `true` if it was there before.
///
/// # Errors
///
/// When the archive is not whole and right to its last byte; the cache is as it was then. When it does not fit.
pub async fn import(
    cache: &Cache,
    source: impl Read + Send + 'static,
    progress: Arc<dyn Progress>,
) -> Result<Vec<(ArchiveEntry, bool)>, MachineError> {
    trust::require_own_tree(cache.root())?;
    let _lock = cache.lock("import", "changes what is in the cache").await?;
    let waiting = ImportStaging::create(cache)?;
    let (shared, folder) = (cache.clone(), waiting.0.clone());
    let list = spawn_blocking(move || receive(&shared, &folder, source, &*progress))
        .await
        .expect("neither panics nor is cancelled")?;
    require_agreement(cache, &list)?;
    let mut taken = Vec::new();
    for file in list.files {
        let was_there = file.is_in(cache);
        if !was_there {
            admit(cache, &file, waiting.path(&file)).await?;
            if let Some(origin) = &file.origin {
                cache.remember_origin(file.sha256, origin, true)?;
            }
        }
        taken.push((file, was_there));
    }
    for image in &list.images {
        cache.learn_image(image)?;
    }
    for text in &list.texts {
        cache.learn_text(text.key, &text.text)?;
    }
    Ok(taken)
}

/// Refuses an archive that contradicts a checksum that the cache has verified from its origin.
fn require_agreement(cache: &Cache, list: &ArchiveManifest) -> Result<(), MachineError> {
    let ours = cache.known_images()?;
    for theirs in &list.images {
        let contradicts = |ours: &&Known| {
            ours.verified && ours.from == theirs.from && ours.digest != theirs.digest
        };
        if let Some(ours) = ours.iter().find(contradicts) {
            return Err(CacheArchiveError::Conflict {
                what: theirs.from.clone(),
                theirs: theirs.digest,
                ours: ours.digest,
                path: cache.source_path(&theirs.from),
            }
            .into());
        }
    }
    let texts = cache.texts()?;
    for Text { key, text } in &list.texts {
        let ours = texts.iter().find(|(ours, _)| ours == key);
        let contradiction = ours.and_then(|(_, ours)| contradiction(text, ours));
        if let Some((file, theirs, ours)) = contradiction {
            let listed = list.files.iter().find(|it| it.sha256 == theirs);
            return Err(CacheArchiveError::Conflict {
                what: listed.map_or(file, |it| &it.name).to_owned(),
                theirs,
                ours,
                path: cache.text_path(*key),
            }
            .into());
        }
    }
    Ok(())
}

/// The first file for which two texts have different checksums. Other texts than checksum lists, like the stable
/// version, may be newer in the archive.
fn contradiction(theirs: &str, ours: &str) -> Option<(&'static str, Digest, Digest)> {
    // For an unverified file, the text is its checksum.
    if let (Ok(theirs), Ok(ours)) = (theirs.trim().parse(), ours.trim().parse()) {
        return (theirs != ours).then_some((BINARY, theirs, ours));
    }
    let (theirs, ours) = (parse_checksums(theirs).ok()?, parse_checksums(ours).ok()?);
    let airgap = theirs.airgap.zip(ours.airgap);
    let binary = Some((theirs.binary, ours.binary));
    let files = [(BINARY, binary), (AIRGAP, airgap)];
    files.into_iter().find_map(|(name, digests)| {
        let (theirs, ours) = digests?;
        (theirs != ours).then_some((name, theirs, ours))
    })
}

async fn admit(cache: &Cache, file: &ArchiveEntry, waiting: PathBuf) -> Result<(), ImageError> {
    let digest = file.sha256;
    match file.kind {
        Kind::BaseImage => cache.admit_image(waiting, digest, &file.name).await,
        Kind::K3s => {
            let place = (BUCKET, digest, BINARY);
            cache.admit_file(waiting, place, PROGRAM).await
        }
        Kind::K3sImages => {
            let place = (BUCKET, digest, AIRGAP);
            cache.admit_file(waiting, place, DATA).await
        }
    }
}

/// The directory of unfinished imports. Only one runs at a time, so the files of a killed one are unusable.
struct ImportStaging(PathBuf);

impl ImportStaging {
    fn create(cache: &Cache) -> Result<Self, MachineError> {
        let waiting = Self(cache.root().join(WAITING));
        waiting.remove();
        cache.directory(WAITING)?;
        Ok(waiting)
    }

    fn path(&self, file: &ArchiveEntry) -> PathBuf {
        self.0.join(file.sha256.to_string())
    }

    fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "nothing was waiting");
        }
    }
}

impl Drop for ImportStaging {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Reads the archive to its end, and writes missing files to `folder`.
fn receive(
    cache: &Cache,
    folder: &Path,
    source: impl Read,
    progress: &dyn Progress,
) -> Result<ArchiveManifest, MachineError> {
    let mut archive = Archive::new(source);
    // Read without tar's extensions for long names and sparse files, which this archive does not use.
    let mut entries = archive
        .entries()
        .map_err(CacheArchiveError::Read)?
        .raw(true);
    let first = entries.next().and_then(Result::ok);
    let list = list_of(first.ok_or(CacheArchiveError::NoArchive)?)?;
    require_room(cache, folder, &list)?;
    let mut missing: Vec<&ArchiveEntry> = list.files.iter().collect();
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            // tar's messages for a truncated or damaged header.
            Err(error) if error.kind() == ErrorKind::Other => break,
            Err(error) => return Err(CacheArchiveError::Read(error).into()),
        };
        let file = announced(&entry, &list, &mut missing)?;
        let to = if file.is_in(cache) {
            None
        } else {
            let path = folder.join(file.sha256.to_string());
            let created = File::create(&path).map_err(FileError::on("create", &path))?;
            Some((created, path))
        };
        let transfer = progress.begin(&file.name, 0, Some(file.size));
        let taken = receive_file(file, entry, to, progress, transfer);
        progress.end(transfer);
        taken?;
    }
    match missing.first() {
        Some(file) => Err(CacheArchiveError::Truncated(file.name.clone()).into()),
        None => Ok(list),
    }
}

fn list_of(mut entry: Entry<'_, impl Read>) -> Result<ArchiveManifest, CacheArchiveError> {
    if *entry.path_bytes() != *LIST.as_bytes() || !entry.header().entry_type().is_file() {
        return Err(CacheArchiveError::NoArchive);
    }
    let size = entry.size();
    if size > LONGEST {
        return Err(CacheArchiveError::ArchiveManifest(format!(
            "it is of {size} bytes"
        )));
    }
    let mut text = Vec::new();
    entry
        .read_to_end(&mut text)
        .map_err(CacheArchiveError::Read)?;
    if (text.len() as u64) < size {
        return Err(CacheArchiveError::Truncated("its list".to_owned()));
    }
    ArchiveManifest::parse(&text)
}

/// The file of the list with that name, which may occur once.
fn announced<'a>(
    entry: &Entry<'_, impl Read>,
    list: &'a ArchiveManifest,
    missing: &mut Vec<&'a ArchiveEntry>,
) -> Result<&'a ArchiveEntry, CacheArchiveError> {
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    if !entry.header().entry_type().is_file() {
        return Err(CacheArchiveError::NotPlain(name));
    }
    let Some(file) = list.files.iter().find(|it| it.entry() == name) else {
        return Err(CacheArchiveError::Unlisted(name));
    };
    let Some(index) = missing.iter().position(|it| it.sha256 == file.sha256) else {
        return Err(CacheArchiveError::Twice(file.name.clone()));
    };
    missing.swap_remove(index);
    if entry.size() != file.size {
        return Err(CacheArchiveError::Length {
            name: file.name.clone(),
            size: Size::bytes(entry.size()),
            listed: Size::bytes(file.size),
        });
    }
    Ok(file)
}

/// Reads one file to its end, into `to` unless the cache has it.
fn receive_file(
    file: &ArchiveEntry,
    mut entry: Entry<'_, impl Read>,
    mut to: Option<(File, PathBuf)>,
    progress: &dyn Progress,
    transfer: usize,
) -> Result<(), MachineError> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let some = match entry.read(&mut buffer).map_err(CacheArchiveError::Read)? {
            0 => break,
            read => &buffer[..read],
        };
        hasher.update(some);
        if let Some((to, path)) = &mut to {
            to.write_all(some).map_err(FileError::on("write", path))?;
        }
        size += some.len() as u64;
        progress.advance(transfer, some.len() as u64);
    }
    if size < file.size {
        return Err(CacheArchiveError::Truncated(file.name.clone()).into());
    }
    let actual = hasher.finish();
    if actual != file.sha256 {
        return Err(CacheArchiveError::Damaged {
            name: file.name.clone(),
            expected: file.sha256,
            actual,
        }
        .into());
    }
    Ok(())
}

fn require_room(cache: &Cache, folder: &Path, list: &ArchiveManifest) -> Result<(), MachineError> {
    let new = list.files.iter().filter(|file| !file.is_in(cache));
    let needed = new.fold(0_u64, |sum, file| sum.saturating_add(file.size));
    let free = free_space(folder)?.bytes;
    if needed > free.as_bytes() {
        return Err(ImageError::NoSpace {
            directory: cache.root().to_owned(),
            needed: Size::bytes(needed),
            free,
        }
        .into());
    }
    Ok(())
}
