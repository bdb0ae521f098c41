//! A mirror on the web that misbehaves as a test chooses.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};

/// What the server does to one file, mostly the release's binary; all else it serves as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerFault {
    None,
    /// Nothing comes but the first thousand bytes, whatever is promised.
    Cut,
    /// The first half comes, and then nothing for as long as the client waits.
    Stall,
    /// The first half comes, and the second one when the server mends.
    Hold,
    /// The same, without a validator that shows that the halves are of one file.
    HoldUnnamed,
    /// Not a byte comes.
    Mute,
    /// This status, with headers if there are any, and no body.
    Status(String),
    /// More is promised than comes, or less.
    Length(isize),
    /// An unexpected header.
    Header(&'static str),
    /// Other bytes than the file's.
    Body(&'static [u8]),
    /// The first request meets this trouble, and no other one.
    Once(Box<ServerFault>),
    /// The first request is cut; all others get the whole, whatever part they ask for.
    NoRanges,
    /// The first request gets the beginning of what was another file then.
    Changed,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    root: PathBuf,
    /// The end of the path that the trouble is with.
    target: &'static str,
    trouble: ServerFault,
    requests: Vec<String>,
}

impl Server {
    /// With trouble about the release's binary.
    pub(crate) fn of(root: &Path, trouble: ServerFault) -> Self {
        Self::at(root, "/k3s", trouble)
    }

    /// With trouble about all files whose path ends so.
    pub(crate) fn at(root: &Path, target: &'static str, trouble: ServerFault) -> Self {
        Self::start(root, target, trouble, None)
    }

    /// By https, with a self-signed certificate, which is written to `pem`.
    pub(crate) fn by_https(root: &Path, trouble: ServerFault, pem: &Path) -> Self {
        let names = vec![Ipv4Addr::LOCALHOST.to_string()];
        let own = rcgen::generate_simple_self_signed(names).expect("a certificate");
        fs::write(pem, own.cert.pem()).expect("written");
        let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key);
        let tls = Arc::new(tls.expect("a sound certificate"));
        Self::start(root, "/k3s", trouble, Some(tls))
    }

    fn start(
        root: &Path,
        target: &'static str,
        trouble: ServerFault,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().expect("bound"));
        let state = Arc::new(Mutex::new(State {
            root: root.to_owned(),
            target,
            trouble,
            requests: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                // A client that leaves early is what some tests are about.
                thread::spawn(move || match tls {
                    None => serve(&mut client, &state).ok(),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls).ok()?;
                        let mut client = StreamOwned::new(connection, client);
                        serve(&mut client, &state).ok()?;
                        client.conn.send_close_notify();
                        client.flush().ok()
                    }
                });
            }
        });
        Self { url, state }
    }

    pub(crate) fn mends(&self) {
        self.state.lock().expect("sound").trouble = ServerFault::None;
    }

    /// The requests so far, heads and all.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().expect("sound").requests.clone()
    }

    /// Those for the file that the trouble is with.
    pub(crate) fn troubled(&self) -> Vec<String> {
        let target = self.state.lock().expect("sound").target;
        let mut requests = self.requests();
        requests.retain(|request| path(request).ends_with(target));
        requests
    }
}

fn path(head: &str) -> String {
    let path = head.split(' ').nth(1).unwrap_or_default();
    path.replace("%2b", "+")
}

impl State {
    /// Counts a request in, and says what it meets.
    fn meets(&mut self, head: &str) -> ServerFault {
        let is_target = |head: &String| path(head).ends_with(self.target);
        let first = !self.requests.iter().any(is_target);
        self.requests.push(head.to_owned());
        match &self.trouble {
            _ if !path(head).ends_with(self.target) => ServerFault::None,
            ServerFault::Once(trouble) if first => (**trouble).clone(),
            ServerFault::Changed if !first => ServerFault::None,
            ServerFault::Once(_) => ServerFault::None,
            ServerFault::NoRanges if first => ServerFault::Cut,
            trouble => trouble.clone(),
        }
    }
}

fn serve(client: &mut (impl Read + Write), state: &Mutex<State>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let (trouble, root) = {
        let mut state = state.lock().expect("sound");
        (state.meets(&head), state.root.clone())
    };
    let status = |status: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
    };
    match &trouble {
        ServerFault::Mute => return client.read_to_end(&mut Vec::new()).map(drop),
        ServerFault::Status(text) => return client.write_all(&status(text)),
        _ => {}
    }
    let Ok(bytes) = fs::read(root.join(path(&head).trim_start_matches('/'))) else {
        return client.write_all(&status("404 Not Found"));
    };
    match trouble {
        ServerFault::Body(body) => return answer(client, &head, body, &ServerFault::None),
        ServerFault::Changed => {
            let old = vec![b'?'; bytes.len()];
            return answer(client, &head, &old, &ServerFault::Changed);
        }
        _ => answer(client, &head, &bytes, &trouble)?,
    }
    if matches!(trouble, ServerFault::Hold | ServerFault::HoldUnnamed) {
        let began = Instant::now();
        let holds = || state.lock().expect("sound").trouble != ServerFault::None;
        // A test that has failed does not mend anything.
        while holds() && began.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(20));
        }
        client.write_all(&bytes[bytes.len() / 2..])?;
    }
    Ok(())
}

/// The file or the part of it that is asked for, as far as the trouble lets it through.
fn answer(
    client: &mut (impl Read + Write),
    head: &str,
    bytes: &[u8],
    trouble: &ServerFault,
) -> std::io::Result<()> {
    let range = head
        .split_once("\r\nrange: bytes=")
        .and_then(|(_, rest)| rest.split_once('-')?.0.parse().ok())
        .filter(|_| *trouble != ServerFault::NoRanges && head.contains("\r\nif-range: \"1\"\r\n"));
    let from: usize = range.unwrap_or(0);
    if from >= bytes.len() {
        let all = bytes.len();
        return write!(
            client,
            "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{all}\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        );
    }
    let status = if from > 0 {
        let (last, all) = (bytes.len() - 1, bytes.len());
        format!("206 Partial Content\r\nContent-Range: bytes {from}-{last}/{all}")
    } else {
        "200 OK".to_owned()
    };
    let body = &bytes[from..];
    let half = &body[..body.len() / 2];
    let (length, header, etag, body) = match trouble {
        ServerFault::Cut => (0, "", 1, &bytes[from.min(1000)..1000]),
        ServerFault::Changed => (0, "", 0, &bytes[..1000]),
        ServerFault::Stall | ServerFault::Hold | ServerFault::HoldUnnamed => (0, "", 1, half),
        ServerFault::Length(more) => (*more, "", 1, body),
        ServerFault::Header(header) => (0, *header, 1, body),
        _ => (0, "", 1, body),
    };
    let etag = if *trouble == ServerFault::HoldUnnamed {
        String::new()
    } else {
        format!("ETag: \"{etag}\"\r\n")
    };
    let length = (bytes.len() - from)
        .checked_add_signed(length)
        .expect("a length");
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{etag}{header}Connection: close\r\n\r\n"
    )?;
    client.write_all(body)?;
    client.flush()?;
    if *trouble == ServerFault::Stall {
        client.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}
