//! What stands for update.k3s.io: a proxy that is the server itself.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};
use serde_json::json;

use crate::telling::Story;

/// Has channels name these releases; gives what a command is to have before it to ask there.
pub(super) fn name(story: &Story, channels: &[(&str, &str)]) -> String {
    let data: Vec<_> = channels
        .iter()
        .map(|(name, latest)| json!({ "id": name, "type": "channel", "name": name, "latest": latest }))
        .collect();
    let document = json!({ "type": "collection", "data": data }).to_string();
    let own = rcgen::generate_simple_self_signed(vec!["update.k3s.io".to_owned()]);
    let own = own.expect("a certificate");
    let pem = story.env.path("update.pem");
    fs::write(&pem, own.cert.pem()).expect("written");
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key);
    let tls = Arc::new(tls.expect("a sound certificate"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // One that leaves early sees to that itself.
            let _ = answer(client, &tls, &document);
        }
    });
    format!(
        "https_proxy=http://{address} SSL_CERT_FILE={}",
        pem.display()
    )
}

fn answer(mut client: TcpStream, tls: &Arc<ServerConfig>, document: &str) -> io::Result<()> {
    read_head(&mut client)?;
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    let connection = ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?;
    let mut client = StreamOwned::new(connection, client);
    read_head(&mut client)?;
    let length = document.len();
    write!(
        client,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{document}"
    )?;
    client.conn.send_close_notify();
    client.flush()
}

fn read_head(client: &mut impl Read) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(())
}
