//! A small HTTP server that misbehaves on demand, one scripted answer a request, for this room's tests.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use url::Url;

/// The reply to one request.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    bytes: Vec<u8>,
    pause: Option<Duration>,
    then_silence: bool,
}

impl Reply {
    /// `200` with this body and its length, and more headers.
    pub(super) fn with(status: &str, headers: &str, body: &[u8]) -> Self {
        Self::raw(
            &format!("{status}\r\nContent-Length: {}\r\n{headers}", body.len()),
            body,
        )
    }

    /// The status line's end, all headers and the body as they are.
    pub(super) fn raw(head: &str, body: &[u8]) -> Self {
        let head = head.trim_end();
        let mut bytes = format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").into_bytes();
        bytes.extend_from_slice(body);
        Self {
            bytes,
            pause: None,
            then_silence: false,
        }
    }

    pub(super) fn ok(body: &[u8]) -> Self {
        Self::with("200 OK", "", body)
    }

    pub(super) fn status(status: u16) -> Self {
        Self::with(&format!("{status} So"), "", b"sorry")
    }

    /// The first half of `200` with an ETag, of which the length promises all of `body`.
    pub(super) fn half(body: &[u8], etag: &str) -> Self {
        let head = format!("200 OK\r\nETag: {etag}\r\nContent-Length: {}", body.len());
        Self::raw(&head, &body[..body.len() / 2])
    }

    /// `206` with the bytes from `start` on.
    pub(super) fn rest(body: &[u8], start: usize, etag: &str) -> Self {
        let range = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
        let headers = format!("ETag: {etag}\r\nContent-Range: {range}");
        Self::with("206 Partial Content", &headers, &body[start..])
    }

    /// Not even a status line.
    pub(super) fn nothing() -> Self {
        Self {
            bytes: Vec::new(),
            pause: None,
            then_silence: false,
        }
    }

    /// The last bytes come one by one.
    pub(super) fn slowly(mut self, pause: Duration) -> Self {
        self.pause = Some(pause);
        self
    }

    /// The connection stays open and nothing more comes.
    pub(super) fn then_silence(mut self) -> Self {
        self.then_silence = true;
        self
    }
}

impl Reply {
    async fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let Some(pause) = self.pause else {
            return stream.write_all(&self.bytes).await;
        };
        let (soon, late) = self.bytes.split_at(self.bytes.len() - 16);
        stream.write_all(soon).await?;
        for byte in late {
            tokio::time::sleep(pause).await;
            stream.write_all(&[*byte]).await?;
        }
        Ok(())
    }
}

/// Answers on a free port until it is dropped; requests past the script get `410`.
#[derive(Debug)]
pub(super) struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(script: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            let mut silent = Vec::new();
            let mut script = script.into_iter();
            loop {
                let Ok((mut stream, _)) = listener.accept().await else {
                    return;
                };
                let request = read_head(&mut stream).await;
                seen.lock().expect("not poisoned").push(request);
                let reply = script.next().unwrap_or_else(|| Reply::status(410));
                // The client may have closed the connection.
                let _ = reply.send(&mut stream).await;
                if reply.then_silence {
                    silent.push(stream);
                }
            }
        });
        Self {
            port,
            requests,
            task,
        }
    }

    pub(super) fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://127.0.0.1:{}{path}", self.port)).expect("a URL")
    }

    /// The heads of all requests so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("not poisoned").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}
