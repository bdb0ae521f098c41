//! Base images in the cache: from an alias, a URL or a path to a read-only file.

use std::path::{Path, PathBuf};

use tracing::debug;
use url::Url;

use crate::{
    base::{Digest, FileError, Progress, address::shown},
    image::{
        Cache, Checksum, ImageError, ImageSource,
        cache::{key, publish},
        copy::copy,
        download::download,
        format::inspect,
        http::fetch_text,
        image_file::BaseImage,
        job::{Fetched, Job},
        partial::discard,
        source::{Source, stamp},
    },
};

/// The largest list of checksums, in bytes; Ubuntu's and Debian's have a few kilobytes.
const CHECKSUMS_LIMIT: usize = 1 << 20;

/// The mode of a file that is read only.
const READ_ONLY: u32 = 0o444;

impl Cache {
    /// The base image from `source`, downloaded to the cache if it is missing. A verified source is not asked again,
    /// even if it has changed since; a changed file is read again. An unverified image is returned only if the user
    /// accepts that.
    ///
    /// # Errors
    ///
    /// When it cannot be fetched, does not match `sha256` or its publisher's checksum, or is not a usable disk image.
    pub async fn ensure_image(
        &self,
        source: &ImageSource,
        sha256: Option<Digest>,
        progress: &dyn Progress,
    ) -> Result<BaseImage, ImageError> {
        match source {
            ImageSource::Alias(entry) => {
                let (url, checksums) = (parse(&entry.url)?, parse(&entry.checksums)?);
                self.ensure_remote((&entry.name, &url), Some(&checksums), sha256, progress)
                    .await
            }
            ImageSource::Url(url) => {
                self.ensure_remote((file_name(url), url), None, sha256, progress)
                    .await
            }
            ImageSource::Path(path) => self.ensure_local(path, sha256, progress).await,
        }
    }

    /// The image with this digest, if the cache has it.
    pub fn find_image(&self, digest: Digest) -> Option<BaseImage> {
        let path = self.image_path(digest);
        let disk = inspect(&path, &path.display().to_string());
        disk.inspect_err(|error| debug!("no image {digest}: {error}"))
            .ok()
            .map(|disk| BaseImage {
                path,
                digest,
                virtual_size: disk.virtual_size,
                format: disk.format,
            })
    }

    async fn ensure_remote(
        &self,
        (name, url): (&str, &Url),
        checksums: Option<&Url>,
        sha256: Option<Digest>,
        progress: &dyn Progress,
    ) -> Result<BaseImage, ImageError> {
        let key = key(url);
        if let Some(image) = self.known(&key, sha256, None) {
            return Ok(image);
        }
        let _lock = self
            .lock(&key.to_string(), &format!("downloads {name}"))
            .await?;
        if let Some(image) = self.known(&key, sha256, None) {
            return Ok(image);
        }
        let expected = match (sha256, checksums) {
            (Some(digest), _) => Ok(Checksum::Sha256(digest)),
            (None, Some(checksums)) => self.published_checksum(checksums, file_name(url)).await,
            (None, None) => Err(ImageError::Unverifiable { url: shown(url) }),
        };
        let expected = self.or_unverified(expected)?;
        let remember = |image: &BaseImage| {
            self.remember_origin(image.digest, &shown(url), false)?;
            let source = Source::of(image, shown(url), expected.is_some())?;
            self.remember(&key, &source)
        };
        let cached = match expected {
            Some(Checksum::Sha256(digest)) => self.find_image(digest),
            _ => None,
        };
        if let Some(image) = cached {
            remember(&image)?;
            return Ok(image);
        }
        let partial = self.partial(&key)?;
        let job = Job {
            name,
            url,
            partial: &partial,
            expected: expected.as_ref(),
            retry: &self.retry,
        };
        let fetched = download(&job, progress).await?;
        let image = self.admit(partial, &fetched, &shown(url)).await?;
        remember(&image)?;
        Ok(image)
    }

    async fn ensure_local(
        &self,
        path: &Path,
        sha256: Option<Digest>,
        progress: &dyn Progress,
    ) -> Result<BaseImage, ImageError> {
        let path = path.canonicalize().map_err(FileError::on("open", path))?;
        let metadata = path.metadata().map_err(FileError::on("look at", &path))?;
        let stamp = stamp(&metadata);
        let key = Digest::of(path.as_os_str().as_encoded_bytes());
        if let Some(image) = self.known(&key, sha256, Some(&stamp)) {
            return Ok(image);
        }
        let name = path.display().to_string();
        let short = path.file_name().unwrap_or_default().to_string_lossy();
        let _lock = self
            .lock(&key.to_string(), &format!("copies {name}"))
            .await?;
        if let Some(image) = self.known(&key, sha256, Some(&stamp)) {
            return Ok(image);
        }
        if metadata.is_file() {
            // Checked before gigabytes are copied; the copy is checked as well.
            inspect(&path, &name)?;
        }
        let url = Url::from_file_path(&path).map_err(|()| ImageError::BadUrl {
            url: name.clone(),
            reason: "it is not an absolute path".to_owned(),
        })?;
        let partial = self.partial(&key)?;
        let expected = sha256.map(Checksum::Sha256);
        let job = Job {
            name: &short,
            url: &url,
            partial: &partial,
            expected: expected.as_ref(),
            retry: &self.retry,
        };
        let fetched = copy(&path, &job, progress).await?;
        let image = self.admit(partial, &fetched, &name).await?;
        self.remember_origin(image.digest, &name, false)?;
        let source = Source::of(&image, name, true)?.with_stamp(stamp);
        self.remember(&key, &source)?;
        Ok(image)
    }

    /// The known image of this source, unless it contradicts the request.
    fn known(
        &self,
        key: &Digest,
        sha256: Option<Digest>,
        stamp: Option<&str>,
    ) -> Option<BaseImage> {
        let source = self
            .recall(key)
            .filter(|source| source.stamp.as_deref() == stamp);
        let same = |source: &Source| match sha256 {
            Some(digest) => digest == source.digest,
            None => source.verified || self.unverified,
        };
        if let Some(source) = source.filter(same) {
            let image = self.find_image(source.digest)?;
            let whole = image
                .path
                .metadata()
                .is_ok_and(|metadata| metadata.len() == source.size);
            return whole.then_some(image);
        }
        // Bytes with the right digest are right, whatever the URL serves now.
        sha256
            .filter(|_| stamp.is_none())
            .and_then(|digest| self.find_image(digest))
    }

    async fn published_checksum(
        &self,
        checksums: &Url,
        file: &str,
    ) -> Result<Checksum, ImageError> {
        let text = fetch_text(checksums, CHECKSUMS_LIMIT, &self.retry).await?;
        Checksum::find_in(&text, file).ok_or_else(|| ImageError::NoChecksum {
            url: shown(checksums),
            file: file.to_owned(),
        })
    }

    /// Moves a verified file to the images, if it is a disk image.
    ///
    /// # Errors
    ///
    /// When it is not a usable disk image, or cannot be moved there; it is removed then.
    pub async fn admit_image(
        &self,
        partial: PathBuf,
        digest: Digest,
        origin: &str,
    ) -> Result<(), ImageError> {
        let size = partial.metadata().map_or(0, |it| it.len());
        let fetched = Fetched { digest, size };
        self.admit(partial, &fetched, origin).await.map(drop)
    }

    /// Moves a verified file to the images, if it is a disk image.
    async fn admit(
        &self,
        partial: PathBuf,
        fetched: &Fetched,
        origin: &str,
    ) -> Result<BaseImage, ImageError> {
        let disk = match inspect(&partial, origin) {
            Ok(disk) => disk,
            Err(error) => {
                discard(&partial)?;
                return Err(error);
            }
        };
        self.directory("images")?;
        let path = self.image_path(fetched.digest);
        publish(partial, path.clone(), READ_ONLY).await?;
        debug!(path = %path.display(), size = fetched.size, "new base image");
        Ok(BaseImage {
            path,
            digest: fetched.digest,
            virtual_size: disk.virtual_size,
            format: disk.format,
        })
    }

    /// The path of the image with this digest.
    pub fn image_path(&self, digest: Digest) -> PathBuf {
        self.root().join("images").join(format!("{digest}.img"))
    }
}

fn parse(url: &str) -> Result<Url, ImageError> {
    Url::parse(url).map_err(|error| ImageError::BadUrl {
        url: url.to_owned(),
        reason: error.to_string(),
    })
}

/// The last part of a URL's path, its name in checksum files and messages.
fn file_name(url: &Url) -> &str {
    let last = url
        .path_segments()
        .and_then(|mut segments| segments.next_back());
    last.filter(|name| !name.is_empty())
        .or(url.host_str())
        .unwrap_or("image")
}

#[cfg(test)]
mod tests;
