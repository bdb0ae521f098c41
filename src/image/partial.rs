//! A partial download, and what the next process needs to continue it.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use reqwest::{Response, header::HeaderValue};
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};
use tracing::debug;

use crate::{
    base::{FileError, Progress, Size, address::shown, files},
    image::{
        ImageError,
        checksum::Sums,
        http,
        job::{Fetched, Job},
    },
};

/// The partial file, and its hash so far.
#[derive(Debug)]
pub(super) struct Partial<'a> {
    job: &'a Job<'a>,
    file: File,
    pub(super) sums: Sums,
    pub(super) length: u64,
    /// How long it will be, when the server said.
    total: Option<u64>,
    /// The server's identification of the file that these bytes are of.
    pub(super) validator: Option<HeaderValue>,
}

impl<'a> Partial<'a> {
    /// Opens what an earlier try has left, as far as it can be continued.
    pub(super) async fn open(job: &'a Job<'a>) -> Result<Self, ImageError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(job.partial)
            .await
            .map_err(FileError::on("open", job.partial))?;
        let validator = files::read_if_exists(&validator_file(job.partial))?;
        let mut partial = Self {
            job,
            file,
            sums: Sums::toward(job.expected),
            length: 0,
            total: None,
            validator: validator.and_then(|text| HeaderValue::from_str(&text).ok()),
        };
        match partial.validator {
            Some(_) => partial.rehash().await?,
            None => partial.start_over(None).await?,
        }
        Ok(partial)
    }

    async fn rehash(&mut self) -> Result<(), ImageError> {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = self.file.read(&mut buffer).await;
            match read.map_err(FileError::on("read", self.job.partial))? {
                0 => return Ok(()),
                read => {
                    self.sums.update(&buffer[..read]);
                    self.length += read as u64;
                }
            }
        }
    }

    /// Forgets all bytes. The old validator goes before them and the new one comes after, so that no crash
    /// leaves the one with the other's bytes.
    pub(super) async fn start_over(
        &mut self,
        validator: Option<&HeaderValue>,
    ) -> Result<(), ImageError> {
        let path = self.job.partial;
        files::remove_if_exists(&validator_file(path))?;
        self.file
            .set_len(0)
            .await
            .map_err(FileError::on("empty", path))?;
        self.file
            .rewind()
            .await
            .map_err(FileError::on("rewind", path))?;
        self.sums = Sums::toward(self.job.expected);
        self.length = 0;
        if let Some(validator) = validator {
            files::write(&validator_file(path), validator.as_bytes(), files::PRIVATE)?;
        }
        Ok(())
    }

    /// Takes in the body of the answer, up to `total` bytes in the whole.
    pub(super) async fn receive(
        &mut self,
        response: &mut Response,
        total: Option<u64>,
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        let Job { url, retry, .. } = self.job;
        self.total = total;
        if let Some(total) = total {
            check_space(self.job.partial, total.saturating_sub(self.length))?;
        }
        let transfer = Transfer::begin(progress, self.job.name, self.length, total);
        while let Some(chunk) = http::next_chunk(response, url, retry, (self.length, total)).await?
        {
            let chunk = chunk.as_ref();
            self.sums.update(chunk);
            let written = self.file.write_all(chunk).await;
            written.map_err(|error| self.unwritten(error))?;
            self.length += chunk.len() as u64;
            transfer.advance(chunk.len());
        }
        match total {
            Some(total) if total != self.length => Err(self.cut(Some(total))),
            _ => Ok(()),
        }
    }

    /// Puts all that came into the file.
    pub(super) async fn flush(&mut self) -> Result<(), ImageError> {
        let flushed = self.file.flush().await;
        flushed.map_err(|error| self.unwritten(error))
    }

    /// Why bytes that came could not be kept. Those that can be continued stay for when there is room again.
    fn unwritten(&self, error: std::io::Error) -> ImageError {
        let path = self.job.partial;
        let error = FileError::on("write", path)(error);
        if !error.is_out_of_space() {
            return error.into();
        }
        let missing = self.total.unwrap_or_default().saturating_sub(length(path));
        let resumable = validator_file(path).exists();
        let removed = if resumable { Ok(()) } else { discard(path) };
        removed
            .and_then(|()| no_space(path, missing))
            .unwrap_or_else(ImageError::from)
    }

    /// Why this try ends with less than all.
    pub(super) fn cut(&self, total: Option<u64>) -> ImageError {
        ImageError::Cut {
            url: shown(self.job.url),
            got: self.length,
            total,
            source: None,
        }
    }
}

/// Removes a partial file and what is remembered of it.
pub(super) fn discard(partial: &Path) -> Result<(), FileError> {
    files::remove_if_exists(&validator_file(partial))?;
    files::remove_if_exists(partial)
}

/// Refuses what will not fit beside `path`.
pub(super) fn check_space(path: &Path, needed: u64) -> Result<(), ImageError> {
    match no_space(path, needed)? {
        ImageError::NoSpace { needed, free, .. } if needed <= free => Ok(()),
        error => Err(error),
    }
}

/// The error of `needed` more bytes that do not fit beside `path`.
pub(super) fn no_space(path: &Path, needed: u64) -> Result<ImageError, FileError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    Ok(ImageError::NoSpace {
        directory: directory.to_owned(),
        needed: Size::bytes(needed),
        free: files::free_space(directory)?.bytes,
    })
}

/// Where the validator of a partial file is remembered.
pub(super) fn validator_file(partial: &Path) -> PathBuf {
    let mut name = partial.as_os_str().to_owned();
    name.push(".validator");
    name.into()
}

/// How much of a file is here.
pub(super) fn length(path: &Path) -> u64 {
    match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                debug!(path = %path.display(), %error, "no length");
            }
            0
        }
    }
}

/// A transfer that ends when it is dropped, however that comes about.
#[derive(Debug)]
pub(super) struct Transfer<'a> {
    progress: &'a dyn Progress,
    handle: usize,
}

impl<'a> Transfer<'a> {
    pub(super) fn begin(
        progress: &'a dyn Progress,
        name: &str,
        done: u64,
        total: Option<u64>,
    ) -> Self {
        let handle = progress.begin(name, done, total);
        Self { progress, handle }
    }

    pub(super) fn advance(&self, bytes: usize) {
        self.progress.advance(self.handle, bytes as u64);
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        self.progress.end(self.handle);
    }
}

/// Compares what came with what should have come; wrong bytes are not kept.
pub(crate) fn verify(
    sums: Sums,
    size: u64,
    job: &Job<'_>,
    resumed: bool,
) -> Result<Fetched, ImageError> {
    let (digest, actual) = sums.finish();
    match job.expected {
        Some(expected) if *expected != actual => {
            discard(job.partial)?;
            Err(ImageError::WrongChecksum {
                origin: shown(job.url),
                expected: expected.to_string(),
                actual: actual.to_string(),
                resumed,
            })
        }
        _ => Ok(Fetched { digest, size }),
    }
}
