//! Exports files of the cache to an archive.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use tar::{Builder, EntryType, Header};
use tokio::try_join;

use crate::{
    base::{
        Digest, FileError, Progress,
        address::shown,
        digest::Hasher,
        files::{self, PRIVATE},
        trust,
    },
    image::{BaseImage, Cache, Catalog, ImageError, ImageSource, Known, key},
    k3s::release::{self, AIRGAP, BINARY},
    machine::{
        MachineError, Spec,
        cache::{
            archive::{
                ArchiveEntry, ArchiveManifest, Kind,
                list::{LIST, SCHEMA, Text},
            },
            assets::{self, BUCKET},
        },
        error::CacheArchiveError,
    },
};

/// The files that a new VM like `spec` needs, in the cache: missing ones are downloaded, as setup does. An image that
/// is a file of the user is left out.
///
/// # Errors
///
/// When something cannot be fetched or does not verify.
pub async fn collect(
    cache: &Cache,
    spec: &Spec,
    progress: &dyn Progress,
) -> Result<ArchiveManifest, MachineError> {
    trust::require_own_tree(cache.root())?;
    let release = async {
        let version = assets::choose_version(cache, spec).await?;
        let (binary, airgap) =
            assets::ensure_release(cache, &spec.mirror, &version, progress).await?;
        Ok::<_, MachineError>((version, binary, airgap))
    };
    let image = async { Ok(image(cache, spec, progress).await?) };
    let (image, (version, path, airgap)) = try_join!(image, release)?;
    let mut list = ArchiveManifest {
        schema: SCHEMA,
        files: Vec::new(),
        images: Vec::new(),
        texts: Vec::new(),
    };
    if let Some((image, known)) = image {
        let named = (Kind::BaseImage, spec.image.clone());
        let entry = ArchiveEntry::of(cache, named, &image.path, image.digest)?;
        list.files.push(entry);
        list.images.extend(known);
    }
    let binary = (Kind::K3s, format!("k3s {version}"));
    list.files.push(release_file(cache, binary, &path)?);
    if let Some(path) = airgap {
        let airgap = (Kind::K3sImages, format!("images of k3s {version}"));
        list.files.push(release_file(cache, airgap, &path)?);
    }
    let checksums = release::plan(&spec.mirror, &version).checksums;
    if let Some(text) = cache.recall_text(&checksums)? {
        let key = key(&checksums);
        list.texts.push(Text { key, text });
    }
    if spec.k3s_version.is_none() {
        let text = version.to_string();
        let key = key(&assets::channels());
        list.texts.push(Text { key, text });
    }
    Ok(list)
}

/// The entry of a file of a release, whose directory has its digest as name.
fn release_file(
    cache: &Cache,
    named: (Kind, String),
    path: &Path,
) -> Result<ArchiveEntry, MachineError> {
    let folder = path.parent().and_then(|it| it.file_name()?.to_str());
    let sha256 = folder
        .and_then(|it| it.parse().ok())
        .ok_or_else(|| CacheArchiveError::Changed(path.to_owned()))?;
    Ok(ArchiveEntry::of(cache, named, path, sha256)?)
}

async fn image(
    cache: &Cache,
    spec: &Spec,
    progress: &dyn Progress,
) -> Result<Option<(BaseImage, Vec<Known>)>, ImageError> {
    let source = &spec.image_source;
    let from = match source {
        ImageSource::Path(path) => {
            tracing::warn!("{} is your own file; copy it yourself", path.display());
            return Ok(None);
        }
        ImageSource::Url(url) => shown(url),
        ImageSource::Alias(entry) => entry.url.clone(),
    };
    let image = cache
        .ensure_image(source, spec.image_sha256, progress)
        .await?;
    let is_it = |it: &Known| it.from == from && it.digest == image.digest;
    let known = cache.known_images()?.into_iter().filter(is_it).collect();
    Ok(Some((image, known)))
}

/// All images and releases of the cache. Templates are left out, for they depend on the host.
///
/// # Errors
///
/// When the cache has none, or cannot be read.
pub fn collect_all(cache: &Cache) -> Result<ArchiveManifest, MachineError> {
    trust::require_own_tree(cache.root())?;
    let mut files: Vec<ArchiveEntry> = Vec::new();
    let mut images = cache.known_images()?;
    images.retain(|image| cache.image_path(image.digest).is_file());
    for image in &images {
        if files.iter().all(|it| it.sha256 != image.digest) {
            let mut catalogue = Catalog::builtin().images().iter();
            let entry = catalogue.find(|it| it.url == image.from);
            let name = entry.map_or_else(|| image.from.clone(), |it| it.alias.clone());
            let (named, path) = ((Kind::BaseImage, name), cache.image_path(image.digest));
            files.push(ArchiveEntry::of(cache, named, &path, image.digest)?);
        }
    }
    files.extend(releases(cache)?);
    if files.is_empty() {
        return Err(CacheArchiveError::Empty(cache.root().to_owned()).into());
    }
    let texts = cache.texts()?.into_iter();
    Ok(ArchiveManifest {
        schema: SCHEMA,
        files,
        images,
        texts: texts.map(|(key, text)| Text { key, text }).collect(),
    })
}

fn releases(cache: &Cache) -> Result<Vec<ArchiveEntry>, FileError> {
    let folders = fs::read_dir(cache.root().join(BUCKET));
    let mut digests: Vec<Digest> = folders
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    digests.sort();
    let mut files = Vec::new();
    for (kind, file_name) in [(Kind::K3s, BINARY), (Kind::K3sImages, AIRGAP)] {
        for &sha256 in &digests {
            let path = cache.file_path(BUCKET, sha256, file_name);
            if path.is_file() {
                let named = (kind, format!("{file_name} {}", sha256.short(12)));
                files.push(ArchiveEntry::of(cache, named, &path, sha256)?);
            }
        }
    }
    Ok(files)
}

/// Writes the archive.
///
/// # Errors
///
/// When `out` does not take it, or a file of the cache is not what it was.
pub fn write(
    cache: &Cache,
    list: &ArchiveManifest,
    out: impl Write,
    progress: &dyn Progress,
) -> Result<(), MachineError> {
    let mut archive = Builder::new(out);
    let text = serde_json::to_vec_pretty(list)
        .map_err(|error| CacheArchiveError::Write(io::Error::other(error)))?;
    let mut header = header(text.len() as u64);
    archive
        .append_data(&mut header, LIST, text.as_slice())
        .map_err(CacheArchiveError::Write)?;
    for file in &list.files {
        let transfer = progress.begin(&file.name, 0, Some(file.size));
        let appended = append(cache, file, &mut archive, progress, transfer);
        progress.end(transfer);
        appended?;
    }
    let mut out = archive.into_inner().map_err(CacheArchiveError::Write)?;
    Ok(out.flush().map_err(CacheArchiveError::Write)?)
}

fn append(
    cache: &Cache,
    file: &ArchiveEntry,
    archive: &mut Builder<impl Write>,
    progress: &dyn Progress,
    transfer: usize,
) -> Result<(), MachineError> {
    let path = file.path(cache);
    let mut content = HashingReader {
        file: files::open_plain(&path)?.take(file.size),
        hasher: Hasher::default(),
        read: 0,
        progress,
        transfer,
        trouble: None,
    };
    let appended = archive.append_data(&mut header(file.size), file.entry(), &mut content);
    if let Some(error) = content.trouble {
        return Err(FileError::on("read", &path)(error).into());
    }
    appended.map_err(CacheArchiveError::Write)?;
    // Checked here: the importing host would find it too late.
    if content.read != file.size || content.hasher.finish() != file.sha256 {
        return Err(CacheArchiveError::Changed(path).into());
    }
    Ok(())
}

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(PRIVATE);
    header.set_size(size);
    header
}

/// A reader that reports how far it has read, and its error.
struct HashingReader<'a> {
    file: io::Take<File>,
    hasher: Hasher,
    read: u64,
    progress: &'a dyn Progress,
    transfer: usize,
    trouble: Option<io::Error>,
}

impl Read for HashingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer).map_err(|error| {
            let kind = error.kind();
            self.trouble = Some(error);
            io::Error::from(kind)
        })?;
        self.hasher.update(&buffer[..read]);
        self.read += read as u64;
        self.progress.advance(self.transfer, read as u64);
        Ok(read)
    }
}
