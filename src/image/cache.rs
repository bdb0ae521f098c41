//! The shared cache: verified files under names that contain their digest, for all projects of a user, and safe
//! for several processes at once. A file that has its name is complete; it is made under another one.
//!
//! ```text
//! images/<digest>.img              base images, read-only
//! <bucket>/<digest>/<file name>    other files, as they have to be called
//! sources/<key>.json               which digest came from which URL or path
//! origins/<digest>.json            the URL or path of a file, for those who look
//! texts/<key>                      small texts that went with verified files
//! partial/<key>, locks/<key>       what is under way, and who is at it
//! ```

use std::{
    fs::{File, Permissions, TryLockError},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tracing::{info, warn};
use url::Url;

use crate::{
    base::{Digest, FileError, Progress, address::shown, files},
    image::{
        Checksum, ImageError, RetryPolicy, download::download, job::Job, partial::validator_file,
    },
};

/// How often a waiting process checks the lock.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// The cache below one directory.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    pub(super) retry: RetryPolicy,
    /// Files without a checksum are accepted.
    pub(super) unverified: bool,
}

/// A file that the cache should have.
#[derive(Debug, Clone)]
pub struct Download {
    /// Its name in messages: `k3s v1.33.5+k3s1`.
    pub name: String,
    /// Its source: http, https or file.
    pub url: Url,
    /// The expected digest; `None` only if the user accepts files without a checksum.
    pub expected: Option<Digest>,
    /// The file name.
    pub file_name: String,
    /// Its mode.
    pub mode: u32,
}

/// The lock on one item of the cache, released when dropped.
#[derive(Debug)]
pub struct ItemLock {
    _file: File,
}

impl Cache {
    /// The cache at `root`, which is created at the first write.
    pub fn new(root: PathBuf) -> Self {
        Self::with_patience(root, RetryPolicy::default())
    }

    /// As [`Cache::new`], with other timeouts.
    pub fn with_patience(root: PathBuf, retry: RetryPolicy) -> Self {
        Self {
            root,
            retry,
            unverified: false,
        }
    }

    /// The cache that, with `yes`, also takes a download without a checksum.
    #[must_use]
    pub fn unverified(self, yes: bool) -> Self {
        Self {
            unverified: yes,
            ..self
        }
    }

    /// The checksum; `None` if there is none and the user accepts that.
    ///
    /// # Errors
    ///
    /// When there is none or it cannot be fetched.
    pub fn or_unverified<T>(&self, found: Result<T, ImageError>) -> Result<Option<T>, ImageError> {
        match found {
            Err(error) if self.unverified && error.lacks_checksum() => {
                warn!("{error}; taken unverified, as --insecure-no-checksum says");
                Ok(None)
            }
            found => found.map(Some),
        }
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a verified file in `bucket`, downloaded if it is missing. Only one process at a time downloads it.
    ///
    /// # Errors
    ///
    /// When it cannot be had, is not what it should be, or does not fit.
    pub async fn ensure_file(
        &self,
        bucket: &str,
        wanted: &Download,
        progress: &dyn Progress,
    ) -> Result<PathBuf, ImageError> {
        let place = |digest| {
            let directory = format!("{bucket}/{digest}");
            (
                self.root.join(&directory).join(&wanted.file_name),
                directory,
            )
        };
        let there = || Some(place(self.digest_of(wanted)?).0).filter(|path| path.is_file());
        if let Some(path) = there() {
            return Ok(path);
        }
        let key = wanted.expected.unwrap_or_else(|| key(&wanted.url));
        let what = format!("downloads {}", wanted.name);
        let _lock = self.lock(&key.to_string(), &what).await?;
        if let Some(path) = there() {
            return Ok(path);
        }
        let partial = self.partial(&key)?;
        let expected = wanted.expected.map(Checksum::Sha256);
        let job = Job {
            name: &wanted.name,
            url: &wanted.url,
            partial: &partial,
            expected: expected.as_ref(),
            retry: &self.retry,
        };
        let fetched = download(&job, progress).await?;
        // Written before the file: with the file, nothing of this is done again.
        self.remember_origin(fetched.digest, &shown(&wanted.url), false)?;
        let (path, directory) = place(fetched.digest);
        self.directory(&directory)?;
        publish(partial, path.clone(), wanted.mode).await?;
        if wanted.expected.is_none() {
            self.remember_text(&wanted.url, &fetched.digest.to_string())?;
        }
        Ok(path)
    }

    /// The digest of a file: the required one, else the one that it had when it was fetched unverified.
    fn digest_of(&self, wanted: &Download) -> Option<Digest> {
        let remembered = || self.recall_text(&wanted.url).ok().flatten()?.parse().ok();
        wanted.expected.or_else(remembered)
    }

    /// A [remembered](Self::remember_text) text for this URL.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be read.
    pub fn recall_text(&self, url: &Url) -> Result<Option<String>, ImageError> {
        Ok(files::read_if_exists(&self.text_path(key(url)))?)
    }

    /// The file with the text for `key`.
    pub fn text_path(&self, key: Digest) -> PathBuf {
        self.root.join("texts").join(key.to_string())
    }

    /// Saves a text that belongs to verified files, such as the list of their checksums, so that the files are found
    /// again without a network. Called only when they are verified: a wrong text should be downloaded again.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn remember_text(&self, url: &Url, text: &str) -> Result<(), ImageError> {
        self.learn_text(key(url), text)
    }

    /// All [remembered](Self::remember_text) texts, with their keys.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn texts(&self) -> Result<Vec<(Digest, String)>, ImageError> {
        let folder = self.root.join("texts");
        let mut texts = Vec::new();
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            let name = entry.file_name();
            let key = name.to_str().and_then(|name| name.parse().ok());
            if let (Some(key), Some(text)) = (key, files::read_if_exists(&entry.path())?) {
                texts.push((key, text));
            }
        }
        texts.sort();
        Ok(texts)
    }

    /// Saves a text of another cache, which has the same keys.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn learn_text(&self, key: Digest, text: &str) -> Result<(), ImageError> {
        let path = self.directory("texts")?.join(key.to_string());
        Ok(files::write(&path, text.as_bytes(), files::PRIVATE)?)
    }

    /// The path of the file with this digest and name in `bucket`.
    pub fn file_path(&self, bucket: &str, digest: Digest, file_name: &str) -> PathBuf {
        self.root
            .join(bucket)
            .join(digest.to_string())
            .join(file_name)
    }

    /// Moves a verified file to `bucket`.
    ///
    /// # Errors
    ///
    /// When it cannot be put there.
    pub async fn admit_file(
        &self,
        partial: PathBuf,
        (bucket, digest, file_name): (&str, Digest, &str),
        mode: u32,
    ) -> Result<(), ImageError> {
        self.directory(&format!("{bucket}/{digest}"))?;
        publish(partial, self.file_path(bucket, digest, file_name), mode).await
    }

    /// Waits until no other command creates the item `key`, shown as `name`. Called only if the item is missing, and
    /// followed by another check: the other command may have created it.
    ///
    /// # Errors
    ///
    /// When the lock file cannot be made.
    pub async fn lock(&self, key: &str, what: &str) -> Result<ItemLock, ImageError> {
        let path = self.directory("locks")?.join(key);
        let file = File::create(&path).map_err(FileError::on("create", &path))?;
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(ItemLock { _file: file }),
                Err(TryLockError::Error(error)) => {
                    return Err(FileError::on("lock", &path)(error).into());
                }
                Err(TryLockError::WouldBlock) => {
                    if !said {
                        info!("waiting for another k3s-vm that {what}");
                        said = true;
                    }
                    // Polled: a blocking lock could not be interrupted by Ctrl-C.
                    tokio::time::sleep(LOCK_INTERVAL).await;
                }
            }
        }
    }

    /// A directory of the cache, created if it is missing.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn directory(&self, relative: &str) -> Result<PathBuf, ImageError> {
        let path = self.root.join(relative);
        files::create_private_dir(&path)?;
        Ok(path)
    }

    /// The unfinished item `key`, written by the holder of its lock.
    pub(super) fn partial(&self, key: &Digest) -> Result<PathBuf, ImageError> {
        Ok(self.directory("partial")?.join(key.to_string()))
    }
}

/// The key of a URL in the cache.
pub fn key(url: &Url) -> Digest {
    Digest::of(shown(url).as_bytes())
}

/// Gives a complete file its mode and its name, durably.
pub(super) async fn publish(partial: PathBuf, path: PathBuf, mode: u32) -> Result<(), ImageError> {
    let published = tokio::task::spawn_blocking({
        let path = path.clone();
        move || {
            let file = File::open(&partial).map_err(FileError::on("open", &partial))?;
            let permissions = Permissions::from_mode(mode);
            file.set_permissions(permissions)
                .map_err(FileError::on("set the mode of", &partial))?;
            file.sync_all().map_err(FileError::on("flush", &partial))?;
            files::remove_if_exists(&validator_file(&partial))?;
            std::fs::rename(&partial, &path).map_err(FileError::on("rename a file to", &path))?;
            files::sync_directory(path.parent().unwrap_or(Path::new(".")))
        }
    });
    let gone = |error: tokio::task::JoinError| FileError::on("publish", &path)(error.into());
    Ok(published.await.map_err(gone)??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::progress::Silent,
        image::test_server::{Reply, Server},
    };

    fn wanted(url: Url, body: &[u8]) -> Download {
        Download {
            name: "k3s v1.33.5+k3s1".to_owned(),
            url,
            expected: Some(Digest::of(body)),
            file_name: "k3s".to_owned(),
            mode: 0o555,
        }
    }

    #[tokio::test]
    async fn concurrent_requests_download_once() {
        let server = Server::start(vec![Reply::ok(b"binary")]).await;
        let directory = tempfile::tempdir().expect("temporary directory");
        let cache = Cache::new(directory.path().join("cache"));
        let wanted = wanted(server.url("/k3s"), b"binary");
        let (one, other) = tokio::join!(
            cache.ensure_file("k3s", &wanted, &Silent),
            cache.ensure_file("k3s", &wanted, &Silent)
        );
        let path = one.expect("set K3S_VM_CACHE_DIR to a directory that you can write to");
        assert_eq!(path, other.expect("waited"));
        assert_eq!(server.requests().len(), 1);
        assert!(path.ends_with(format!("k3s/{}/k3s", Digest::of(b"binary"))));
        assert_eq!(std::fs::read(&path).expect("read"), b"binary");
        let mode = path.metadata().expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o555);

        drop(server);
        assert_eq!(
            cache
                .ensure_file("k3s", &wanted, &Silent)
                .await
                .expect("kept"),
            path
        );
        let partial = cache.directory("partial").expect("is there");
        assert_eq!(
            partial.read_dir().expect("listed").count(),
            0,
            "nothing is left over"
        );
    }

    #[tokio::test]
    async fn an_unverified_file_needs_consent() {
        let server = Server::start(vec![Reply::ok(b"binary")]).await;
        let directory = tempfile::tempdir().expect("temporary directory");
        let cache = Cache::new(directory.path().join("cache"));
        let verified = wanted(server.url("/k3s"), b"binary");
        let unverified = Download {
            expected: None,
            ..verified.clone()
        };
        let once = cache.ensure_file("k3s", &unverified, &Silent).await;
        let path = once.expect("set K3S_VM_CACHE_DIR to a directory that you can write to");
        let again = cache.ensure_file("k3s", &unverified, &Silent).await;
        assert_eq!(again.expect("kept"), path);
        let right = cache.ensure_file("k3s", &verified, &Silent).await;
        assert_eq!(right.expect("right bytes are right"), path);
        assert_eq!(server.requests().len(), 1);
    }

    #[tokio::test]
    async fn file_urls_are_verified() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let cache = Cache::new(directory.path().join("cache"));
        let source = directory.path().join("k3s");
        std::fs::write(&source, "binary").expect("written");
        let url = Url::from_file_path(&source).expect("absolute");
        let wrong = wanted(url.clone(), b"other");
        let error = cache
            .ensure_file("k3s", &wrong, &Silent)
            .await
            .expect_err("wrong");
        assert!(matches!(error, ImageError::WrongChecksum { .. }), "{error}");
        assert!(!cache.root().join("k3s").exists());
        let path = cache
            .ensure_file("k3s", &wanted(url, b"binary"), &Silent)
            .await
            .expect("right");
        assert_eq!(std::fs::read(path).expect("read"), b"binary");

        let absent = wanted(Url::parse("file:///nonexistent/k3s").expect("a URL"), b"x");
        assert!(
            cache
                .ensure_file("k3s", &absent, &Silent)
                .await
                .expect_err("absent")
                .is_not_found()
        );
    }

    #[test]
    fn texts_are_cached_by_url() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let cache = Cache::new(directory.path().join("cache"));
        let [here, there] = ["http://a/s", "http://b/s"].map(|url| Url::parse(url).expect("a URL"));
        assert_eq!(cache.recall_text(&here).expect("no text"), None);
        cache.remember_text(&here, "sums").expect("written");
        assert_eq!(
            cache.recall_text(&here).expect("read").as_deref(),
            Some("sums")
        );
        assert_eq!(cache.recall_text(&there).expect("no text"), None);
    }
}
