//! The HTTP client of the whole program, and the common parts of all downloads.

use std::{io::ErrorKind, path::PathBuf, sync::OnceLock, time::Duration};

use reqwest::{Certificate, Client, Proxy, RequestBuilder, Response, header, redirect};
use tracing::warn;
use url::Url;

use super::{ImageError, RetryPolicy, retry::Retries};
use crate::base::{address::shown, causes::with_causes, files, proxy, tls};

/// The client, built at its first use, for it reads the host's CA certificates.
///
/// # Errors
///
/// When TLS cannot be set up.
pub fn http_client() -> Result<&'static Client, ImageError> {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client);
    }
    tls::provide();
    // Checked here: the TLS library would wait for a FIFO, and read an endless device.
    let roots = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    if let Some(path) = roots.filter(|it| it.exists() && !it.is_dir()) {
        files::open_regular(&path)?;
    }
    let builder = || {
        Client::builder()
            .user_agent(concat!("k3s-vm/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .proxy(proxies())
            .redirect(redirect::Policy::custom(follow))
    };
    let client = builder()
        .tls_certs_merge(nix_roots())
        .build()
        .or_else(|error| {
            // A host without CA certificates can still use a mirror over http.
            warn!(
                "no https, for there are no certificate authorities: {}",
                with_causes(&error)
            );
            builder()
                .tls_certs_only([])
                .build()
                .map_err(ImageError::Client)
        })?;
    Ok(CLIENT.get_or_init(|| client))
}

/// The proxies of the environment, by the rules of curl and Go.
fn proxies() -> Proxy {
    let of = |scheme: &str| -> Option<Url> {
        let proxy = proxy::of_environment(scheme)?;
        let proxy = proxy.inspect_err(|error| warn!("no proxy for {scheme}: {error}"));
        Some(proxy.ok()?.into())
    };
    let (http, https) = (of("http"), of("https"));
    let direct = proxy::direct_of_environment().unwrap_or_default();
    Proxy::custom(move |url| {
        let proxy = if url.scheme() == "https" {
            &https
        } else {
            &http
        };
        proxy.clone().filter(|_| !proxy::is_direct(&direct, url))
    })
}

/// At most ten redirects, and none from https to http.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from = attempt.previous().last();
    if from.is_some_and(|url| url.scheme() == "https") && attempt.url().scheme() != "https" {
        return attempt.error("it leads from https to another protocol");
    }
    redirect::Policy::limited(10).redirect(attempt)
}

/// Nix has its own variable for the bundle; the TLS library knows the platform's and `SSL_CERT_FILE`.
fn nix_roots() -> Vec<Certificate> {
    if std::env::var_os("SSL_CERT_FILE").is_some() {
        return Vec::new();
    }
    let Some(path) = std::env::var_os("NIX_SSL_CERT_FILE").map(PathBuf::from) else {
        return Vec::new();
    };
    let roots = files::read(&path).map(|pem| Certificate::from_pem_bundle(&pem));
    match roots {
        Ok(Ok(roots)) => roots,
        Ok(Err(error)) => {
            warn!(
                "no certificates in NIX_SSL_CERT_FILE={}: {error}",
                path.display()
            );
            Vec::new()
        }
        Err(error) => {
            warn!("cannot read NIX_SSL_CERT_FILE={}: {error}", path.display());
            Vec::new()
        }
    }
}

/// The text at an http, https or file URL, of at most `limit` bytes.
///
/// # Errors
///
/// When it cannot be had within `patience`, or is longer, or is no UTF-8.
pub async fn fetch_text(
    url: &Url,
    limit: usize,
    retry: &RetryPolicy,
) -> Result<String, ImageError> {
    let not_text = || ImageError::NotText {
        url: shown(url),
        limit,
    };
    if let Some(path) = local_path(url)? {
        let bytes = match files::read_at_most(&path, limit as u64) {
            Err(error) if error.source.kind() == ErrorKind::FileTooLarge => return Err(not_text()),
            bytes => bytes?,
        };
        return String::from_utf8(bytes).map_err(|_| not_text());
    }
    let client = http_client()?;
    let mut tries = Retries::new(retry, 0);
    loop {
        match text_once(client, url, limit, retry).await {
            Ok(Some(text)) => return Ok(text),
            Ok(None) => return Err(not_text()),
            Err(error) => tries.after(error, 0).await?,
        }
    }
}

/// One try; `None` for more than `limit` bytes, or another encoding than UTF-8.
async fn text_once(
    client: &Client,
    url: &Url,
    limit: usize,
    retry: &RetryPolicy,
) -> Result<Option<String>, ImageError> {
    let mut response = send(client.get(url.clone()), url, retry).await?;
    if !response.status().is_success() {
        return Err(refused(url, &response));
    }
    let total = response.content_length();
    let mut bytes = Vec::new();
    while let Some(chunk) =
        next_chunk(&mut response, url, retry, (bytes.len() as u64, total)).await?
    {
        bytes.extend_from_slice(chunk.as_ref());
        if bytes.len() > limit {
            return Ok(None);
        }
    }
    String::from_utf8(bytes).map_or_else(
        |_| packed(url, &response).map_or(Ok(None), Err),
        |text| Ok(Some(text)),
    )
}

/// Sends a request and waits for the answer's head.
pub(super) async fn send(
    request: RequestBuilder,
    url: &Url,
    retry: &RetryPolicy,
) -> Result<Response, ImageError> {
    // Compression would change the meaning of lengths and ranges.
    let request = request.header(header::ACCEPT_ENCODING, "identity");
    let answer = tokio::time::timeout(retry.idle, request.send()).await;
    answer
        .map_err(|_| stalled(url, retry))?
        .map_err(|error| ImageError::Unreachable {
            url: shown(url),
            source: error.without_url(),
        })
}

/// The next bytes of the answer's body, of which `(got, total)` are here; `None` at its end.
pub(super) async fn next_chunk(
    response: &mut Response,
    url: &Url,
    retry: &RetryPolicy,
    (got, total): (u64, Option<u64>),
) -> Result<Option<impl AsRef<[u8]> + use<>>, ImageError> {
    let chunk = tokio::time::timeout(retry.idle, response.chunk()).await;
    chunk
        .map_err(|_| stalled(url, retry))?
        .map_err(|error| ImageError::Cut {
            url: shown(url),
            got,
            total,
            source: Some(error.without_url()),
        })
}

/// The reason why the body may differ from the file: the server compressed it although it was asked not to.
pub(super) fn packed(url: &Url, response: &Response) -> Option<ImageError> {
    let encoding = response.headers().get(header::CONTENT_ENCODING)?;
    let encoding = String::from_utf8_lossy(encoding.as_bytes()).into_owned();
    (!encoding.eq_ignore_ascii_case("identity")).then(|| ImageError::Packed {
        url: shown(url),
        encoding,
    })
}

/// A response without a usable body.
pub(super) fn refused(url: &Url, response: &Response) -> ImageError {
    ImageError::Status {
        url: shown(url),
        status: response.status().as_u16(),
    }
}

fn stalled(url: &Url, retry: &RetryPolicy) -> ImageError {
    ImageError::Stalled {
        url: shown(url),
        after: retry.idle,
    }
}

/// The file that a `file:` URL names, `None` for other URLs.
pub(super) fn local_path(url: &Url) -> Result<Option<PathBuf>, ImageError> {
    if url.scheme() != "file" {
        return Ok(None);
    }
    url.to_file_path()
        .map(Some)
        .map_err(|()| ImageError::BadUrl {
            url: shown(url),
            reason: "it names no file of this host".to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::test_server::{Reply, Server};

    const QUICK: RetryPolicy = RetryPolicy {
        tries: 3,
        pause: Duration::from_millis(1),
        idle: Duration::from_secs(10),
        first_contact: Duration::from_secs(5),
    };

    #[tokio::test]
    async fn small_texts_are_retried() {
        let server = Server::start(vec![Reply::status(503), Reply::ok(b"sums")]).await;
        let text = fetch_text(&server.url("/s"), 4, &QUICK)
            .await
            .expect("second try");
        assert_eq!(text, "sums");
        assert_eq!(server.requests().len(), 2);
        assert!(
            server.requests()[0]
                .to_lowercase()
                .contains("user-agent: k3s-vm/")
        );
    }

    #[tokio::test]
    async fn unusable_responses_name_the_url() {
        let server = Server::start(vec![
            Reply::ok(b"12345"),
            Reply::ok(b"\xff\xff"),
            Reply::status(404),
            Reply::status(500),
        ])
        .await;
        for what in [
            "not a text of at most 4",
            "not a text of at most 4",
            "answered 404",
            "answered 500",
        ] {
            let error = fetch_text(&server.url("/s"), 4, &RetryPolicy::BRIEF)
                .await
                .expect_err(what);
            let message = error.to_string();
            assert!(
                message.contains(what) && message.contains("/s"),
                "{message}"
            );
            assert_eq!(error.is_not_found(), what.contains("404"));
        }
    }

    #[tokio::test]
    async fn texts_are_read_from_file_urls() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("v1.36.5+k3s1");
        std::fs::write(&path, "sums").expect("written");
        // The form in which releases are asked for.
        let url = Url::from_file_path(&path)
            .expect("absolute")
            .to_string()
            .replace('+', "%2B");
        let url = Url::parse(&url).expect("a URL");
        assert_eq!(fetch_text(&url, 9, &QUICK).await.expect("read"), "sums");
        assert!(fetch_text(&url, 3, &QUICK).await.is_err());
        let absent = Url::parse("file:///nonexistent/x").expect("a URL");
        assert!(
            fetch_text(&absent, 9, &QUICK)
                .await
                .expect_err("absent")
                .is_not_found()
        );
    }
}
