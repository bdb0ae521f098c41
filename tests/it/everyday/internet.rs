//! What stands for the internet: a proxy that is itself every server, by https, of the files that it has.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};
use serde_json::json;

use crate::transcript::Story;

/// The servers' names, for which one certificate does.
const SERVERS: [&str; 4] = [
    "update.k3s.io",
    "github.com",
    "cloud-images.ubuntu.com",
    "cloud.debian.org",
];

/// For as long as the test, at that address of loopback.
pub(super) struct Internet {
    address: SocketAddr,
    certificate: PathBuf,
    files: Arc<Mutex<BTreeMap<String, PathBuf>>>,
    /// Where the files are that are made up.
    folder: PathBuf,
}

impl Internet {
    /// With nothing in it.
    pub(super) fn of(story: &Story) -> Self {
        let folder = story.env.path("internet");
        fs::create_dir_all(&folder).expect("created");
        let own = rcgen::generate_simple_self_signed(SERVERS.map(str::to_owned));
        let own = own.expect("a certificate");
        let certificate = folder.join("certificate.pem");
        fs::write(&certificate, own.cert.pem()).expect("written");
        let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key);
        let tls = Arc::new(tls.expect("a sound certificate"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let files = Arc::<Mutex<BTreeMap<_, _>>>::default();
        let known = Arc::clone(&files);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (tls, known) = (Arc::clone(&tls), Arc::clone(&known));
                // One that leaves early sees to that itself.
                thread::spawn(move || answer(client, tls, &known));
            }
        });
        Self {
            address,
            certificate,
            files,
            folder,
        }
    }

    /// A file at that address, without its `https://`.
    pub(super) fn has(&self, url: &str, file: &Path) {
        let mut files = self.files.lock().expect("no panic");
        files.insert(url.to_owned(), file.to_owned());
    }

    /// The same with that content.
    pub(super) fn serve_text(&self, url: &str, content: &str) {
        let file = self.folder.join(url.replace('/', "_"));
        fs::write(&file, content).expect("written");
        self.has(url, &file);
    }

    /// k3s's channels name these releases.
    pub(super) fn channels(&self, channels: &[(&str, &str)]) {
        let data: Vec<_> = channels
            .iter()
            .map(|(name, latest)| json!({ "id": name, "type": "channel", "name": name, "latest": latest }))
            .collect();
        let document = json!({ "type": "collection", "data": data });
        self.serve_text("update.k3s.io/v1-release/channels", &document.to_string());
    }

    /// The variables before a command that make it fetch from there.
    pub(super) fn reach(&self) -> String {
        format!(
            "https_proxy=http://{} SSL_CERT_FILE={}",
            self.address,
            self.certificate.display()
        )
    }
}

fn answer(
    mut client: TcpStream,
    tls: Arc<ServerConfig>,
    files: &Mutex<BTreeMap<String, PathBuf>>,
) -> io::Result<()> {
    // CONNECT HOST:443, and then GET PATH.
    let server = asked(&mut client)?;
    let server = server.split(':').next().unwrap_or_default();
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
    let mut client = StreamOwned::new(connection, client);
    let url = format!("{server}{}", asked(&mut client)?);
    let file = files.lock().expect("no panic").get(&url).cloned();
    match file.map(File::open).transpose()? {
        Some(mut file) => {
            let length = file.metadata()?.len();
            write!(
                client,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            )?;
            io::copy(&mut file, &mut client)?;
        }
        None => client.write_all(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )?,
    }
    client.conn.send_close_notify();
    client.flush()
}

/// What the head of a request asks for.
fn asked(client: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head);
    Ok(head.split(' ').nth(1).unwrap_or_default().to_owned())
}
