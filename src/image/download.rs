//! Downloads a file of any size: a partial download is kept, hashed again and continued,
//! provided that the server confirms that the file is the same (RFC 9110, If-Range).

use reqwest::{
    Client, StatusCode,
    header::{self, HeaderMap, HeaderValue},
};
use tracing::debug;

use crate::{
    base::{Progress, address::shown},
    image::{
        ImageError,
        copy::copy,
        http,
        job::{Fetched, Job},
        partial::{self, Partial, discard, length},
        retry::Retries,
    },
};

#[cfg(test)]
mod tests;

/// Fills `job.partial` from its URL.
///
/// # Errors
///
/// When patience is at an end, the bytes are wrong, or they cannot be written. What has come stays for the
/// next time, unless it is wrong.
pub(crate) async fn download(
    job: &Job<'_>,
    progress: &dyn Progress,
) -> Result<Fetched, ImageError> {
    if let Some(source) = http::local_path(job.url)? {
        return copy(&source, job, progress).await;
    }
    let client = http::http_client()?;
    let mut tries = Retries::new(job.retry, length(job.partial));
    loop {
        match attempt(client, job, progress).await {
            Ok(fetched) => return Ok(fetched),
            Err(error) => tries.after(error, length(job.partial)).await?,
        }
    }
}

async fn attempt(
    client: &Client,
    job: &Job<'_>,
    progress: &dyn Progress,
) -> Result<Fetched, ImageError> {
    let mut partial = Partial::open(job).await?;
    let resumed = partial.length > 0;
    let mut request = client.get(job.url.clone());
    if let Some(validator) = partial.validator.take().filter(|_| resumed) {
        debug!(url = shown(job.url), from = partial.length, "resuming");
        request = request
            .header(header::RANGE, format!("bytes={}-", partial.length))
            .header(header::IF_RANGE, validator);
    }
    let mut response = http::send(request, job.url, job.retry).await?;
    let total = match response.status() {
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
            let range = ContentRange::of(response.headers());
            if !range.continues(response.status(), partial.length) {
                discard(job.partial)?;
                return Err(partial.cut(range.total));
            }
            range.total
        }
        status if status.is_success() => {
            partial.start_over(validator(response.headers())).await?;
            response.content_length()
        }
        _ => return Err(http::refused(job.url, &response)),
    };
    if response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
        let result = partial.receive(&mut response, total, progress).await;
        // Also after an interruption: the next try continues from the file's length.
        partial.flush().await?;
        result?;
    }
    let verified = partial::verify(
        partial.sums,
        partial.length,
        job,
        resumed && response.status() != StatusCode::OK,
    );
    match http::packed(job.url, &response) {
        // Bytes with the right checksum are right, whatever the server calls them.
        Some(error) if verified.is_err() || job.expected.is_none() => {
            discard(job.partial)?;
            Err(error)
        }
        _ => verified,
    }
}

/// `Content-Range: bytes START-END/TOTAL`, of which `416` has only the total.
#[derive(Debug, Default)]
pub struct ContentRange {
    start: Option<u64>,
    total: Option<u64>,
}

impl ContentRange {
    /// The range of a response; `None` for another form.
    pub fn of(headers: &HeaderMap) -> Self {
        let text = headers
            .get(header::CONTENT_RANGE)
            .and_then(|value| value.to_str().ok());
        let Some((range, total)) =
            text.and_then(|text| text.strip_prefix("bytes ")?.split_once('/'))
        else {
            return Self::default();
        };
        Self {
            start: range
                .split_once('-')
                .and_then(|(start, _)| start.parse().ok()),
            total: total.parse().ok(),
        }
    }

    /// Returns `true` when a response with this range continues after `length` bytes, or says that the file is
    /// complete.
    pub fn continues(&self, status: StatusCode, length: u64) -> bool {
        match status {
            StatusCode::RANGE_NOT_SATISFIABLE => length > 0 && self.total == Some(length),
            _ => self.start == Some(length),
        }
    }
}

/// The value for `If-Range`: an ETag unless it is a weak one, else the time of the last change.
fn validator(headers: &HeaderMap) -> Option<&HeaderValue> {
    let strong = |etag: &&HeaderValue| !etag.as_bytes().starts_with(b"W/");
    headers
        .get(header::ETAG)
        .filter(strong)
        .or_else(|| headers.get(header::LAST_MODIFIED))
}
