//! A mirror on the web that misbehaves as it is told.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

/// What the server does to the release's binary; all else it serves as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    /// Nothing comes but the first thousand bytes, whatever is promised.
    Cut,
    /// The first half comes, and then nothing for as long as the client waits.
    Stall,
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    root: PathBuf,
    trouble: Trouble,
    requests: Vec<String>,
}

impl Server {
    pub(super) fn of(root: &Path, trouble: Trouble) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let requests = Vec::new();
        let state = Arc::new(Mutex::new(State {
            root: root.to_owned(),
            trouble,
            requests,
        }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A client that leaves early is what some tests are about.
                thread::spawn(move || serve(client, &state).ok());
            }
        });
        Self { url, state }
    }

    pub(super) fn mends(&self) {
        self.state.lock().expect("sound").trouble = Trouble::None;
    }

    /// The requests so far, heads and all.
    pub(super) fn requests(&self) -> Vec<String> {
        self.state.lock().expect("sound").requests.clone()
    }
}

fn serve(mut client: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let path = head
        .split(' ')
        .nth(1)
        .unwrap_or_default()
        .replace("%2b", "+");
    let (root, trouble) = {
        let mut state = state.lock().expect("sound");
        state.requests.push(head.clone());
        (state.root.clone(), state.trouble)
    };
    let Ok(bytes) = fs::read(root.join(path.trim_start_matches('/'))) else {
        return client.write_all(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    };
    let from = head
        .split_once("\r\nrange: bytes=")
        .and_then(|(_, rest)| rest.split_once('-')?.0.parse().ok());
    let from: usize = from.unwrap_or(0);
    let status = if from > 0 {
        format!(
            "206 Partial Content\r\nContent-Range: bytes {from}-{}/{}",
            bytes.len() - 1,
            bytes.len()
        )
    } else {
        "200 OK".to_owned()
    };
    let body = &bytes[from..];
    let length = body.len();
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: \"1\"\r\nConnection: close\r\n\r\n"
    )?;
    match trouble {
        Trouble::Cut if path.ends_with("/k3s") => client.write_all(&bytes[from.min(1000)..1000]),
        Trouble::Stall if path.ends_with("/k3s") => {
            client.write_all(&body[..length / 2])?;
            client.read_to_end(&mut Vec::new()).map(drop)
        }
        _ => client.write_all(body),
    }
}
