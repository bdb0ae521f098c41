//! `k3s server`: certificates, kubeconfig, TLS with optional client certificates, and the word to systemd.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

use crate::api::{Api, Question};
use crate::certs::{self, Certs};
use crate::config::{self, Config, ServerArgs};
use crate::objects::Node;
use crate::state::{self, State, write_atomically};
use crate::tls::{self, Lenient};
use crate::{Failure, kubeconfig, log, trailer};

/// How long a watcher waits until it has to list again.
const WATCH: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(args: &ServerArgs) -> Result<ExitCode, Failure> {
    let config = config::resolve(args)?;
    let version = trailer::version();
    log("info", &format!("Starting k3s {version}"));
    let state = State::open(&config.data_dir)?;
    if crashes(&config.data_dir, state.starts())? {
        log(
            "fatal",
            "Failed to initialize CSINode after retrying (as told)",
        );
        return Ok(ExitCode::from(255));
    }
    log_images(&config.data_dir);

    let address = node_address();
    let certs = certs::ensure(
        &config.data_dir.join("server/tls"),
        names(&config, &address),
    )?;
    write_token(&config.data_dir, &certs)?;

    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, config.port))
        .await
        .map_err(|error| format!("failed to listen on 0.0.0.0:{}: {error}", config.port))?;
    let verifier = Arc::new(Lenient::new(&certs)?);
    let acceptor = TlsAcceptor::from(Arc::new(tls::config(&certs, Arc::clone(&verifier))?));
    if let Some(directory) = config.kubeconfig.parent() {
        std::fs::create_dir_all(directory)?;
    }
    write_atomically(
        &config.kubeconfig,
        kubeconfig::render(&certs, config.port).as_bytes(),
        config.kubeconfig_mode,
    )?;
    log(
        "info",
        &format!("Wrote kubeconfig {}", config.kubeconfig.display()),
    );

    let node = Node {
        name: config.node_name,
        address,
        version,
        started: SystemTime::now(),
    };
    let api = Arc::new(Api {
        node,
        state: Mutex::new(state),
    });
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    notify_ready()?;
    log("info", "k3s is up and running");
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(serve(stream, acceptor.clone(), Arc::clone(&verifier), Arc::clone(&api)));
                }
                Err(error) => log("error", &format!("accept: {error}")),
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    log("info", "Shutting down");
    Ok(ExitCode::SUCCESS)
}

/// Faults on demand: the file holds how many of the next starts fail; a trailer does the same for the first ones.
fn crashes(data_dir: &Path, starts: u32) -> Result<bool, Failure> {
    if trailer::crashes().is_some_and(|first| starts <= first) {
        return Ok(true);
    }
    let path = data_dir.join("stand-in-crashes");
    let left = std::fs::read_to_string(&path)
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .unwrap_or(0);
    if left > 0 {
        std::fs::write(path, (left - 1).to_string())?;
    }
    Ok(left > 0)
}

fn log_images(data_dir: &Path) {
    for archive in std::fs::read_dir(data_dir.join("agent/images"))
        .into_iter()
        .flatten()
        .flatten()
    {
        if archive.file_name().to_string_lossy().contains(".tar") {
            log(
                "info",
                &format!("Importing images from {}", archive.path().display()),
            );
        }
    }
}

/// The address that packets to the world would carry; nothing is sent.
fn node_address() -> String {
    let ask = || -> std::io::Result<String> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9))?;
        Ok(socket.local_addr()?.ip().to_string())
    };
    ask().unwrap_or_else(|_| Ipv4Addr::LOCALHOST.to_string())
}

fn names(config: &Config, address: &str) -> Vec<String> {
    let cluster = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc.cluster.local",
    ];
    let local = [
        "127.0.0.1",
        "::1",
        "localhost",
        "10.43.0.1",
        address,
        &config.node_name,
    ];
    let mut names: Vec<String> = local
        .iter()
        .chain(&cluster)
        .map(|name| (*name).to_owned())
        .collect();
    names.extend(config.tls_san.iter().cloned());
    names.sort();
    names.dedup();
    names
}

fn write_token(data_dir: &Path, certs: &Certs) -> Result<(), Failure> {
    let path = data_dir.join("server/token");
    if path.exists() {
        return Ok(());
    }
    let hash: String = Sha256::digest(certs.server_ca.cert.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let secret = state::uid()?.replace('-', "");
    write_atomically(
        &path,
        format!("K10{hash}::server:{secret}\n").as_bytes(),
        0o600,
    )
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, verifier: Arc<Lenient>, api: Arc<Api>) {
    // A client that goes away during the handshake or later does not matter.
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let authenticated = verifier.trusts(stream.get_ref().1.peer_certificates());
    let service = service_fn(move |request| answer(request, Arc::clone(&api), authenticated));
    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    api: Arc<Api>,
    authenticated: bool,
) -> Result<Response<Full<Bytes>>, Failure> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let watch = head.uri.query().is_some_and(|query| {
        query
            .split('&')
            .any(|it| matches!(it, "watch=true" | "watch=1"))
    });
    if watch {
        tokio::time::sleep(WATCH).await;
    }
    let answer = api.answer(&Question {
        watch,
        authenticated,
        method: head.method.as_str(),
        path: head.uri.path(),
        accept: head
            .headers
            .get(header::ACCEPT)
            .and_then(|it| it.to_str().ok())
            .unwrap_or_default(),
        body: &body,
    });
    let (kind, body) = match answer.body {
        Value::String(text) => ("text/plain; charset=utf-8", text),
        object => ("application/json", object.to_string()),
    };
    Ok(Response::builder()
        .status(answer.status)
        .header(header::CONTENT_TYPE, kind)
        // Go dates each answer afresh; hyper keeps a date for a second, which is long for a clock that is set back.
        .header(header::DATE, httpdate::fmt_http_date(SystemTime::now()))
        .body(Full::from(body))?)
}

/// `Type=notify`: systemd starts what waits for k3s.
fn notify_ready() -> Result<(), Failure> {
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET") {
        std::os::unix::net::UnixDatagram::unbound()?.send_to(b"READY=1\n", path)?;
    }
    Ok(())
}
