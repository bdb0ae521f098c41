//! The way to the release is bad: servers that fail, stall, cut or lie, proxies that refuse.

use super::{
    sandbox::Sandbox,
    server::{Server, ServerFault},
};
use crate::support::free_port;

const RELEASE: &str = "/v1.33.5%2Bk3s1/";

fn once(trouble: ServerFault) -> ServerFault {
    ServerFault::Once(Box::new(trouble))
}

#[test]
fn a_server_with_a_transient_error() {
    for (fault, trouble, word) in [
        (
            "500, then success",
            ServerFault::Status("500 Internal Server Error".to_owned()),
            "/k3s answered 500; trying again",
        ),
        (
            "429, then success",
            ServerFault::Status("429 Too Many Requests".to_owned()),
            "/k3s answered 429; trying again",
        ),
        (
            "a cut, then the rest",
            ServerFault::Cut,
            "was interrupted after 1000 of 1048576 bytes",
        ),
        (
            "more promised than sent",
            ServerFault::Length(7),
            "was interrupted after 1048576 of 1048583 bytes",
        ),
    ] {
        let sandbox = Sandbox::new();
        let server = Server::of(&sandbox.mirror, once(trouble));
        sandbox.survives(fault, sandbox.setup_from(&server.url, &[]), &[word]);
        assert_eq!(server.troubled().len(), 2, "{fault}");
    }
}

#[test]
fn a_server_with_a_permanent_error() {
    let sandbox = Sandbox::new();
    for (fault, target, trouble, word, requests) in [
        (
            "500, always",
            "/k3s",
            ServerFault::Status("500 Internal Server Error".to_owned()),
            "k3s answered 500",
            5,
        ),
        (
            "403",
            "/k3s",
            ServerFault::Status("403 Forbidden".to_owned()),
            "k3s answered 403",
            1,
        ),
        (
            "a redirect loop",
            ".txt",
            ServerFault::Status("302 Found\r\nLocation: sha256sum-amd64.txt".to_owned()),
            "too many redirects",
            11,
        ),
        (
            "less promised than sent",
            "/k3s",
            ServerFault::Length(-1),
            "k3s has the wrong checksum",
            1,
        ),
        (
            "a packed file",
            "/k3s",
            ServerFault::Body(b"\x1f\x8b packed"),
            "k3s has the wrong checksum",
            1,
        ),
    ] {
        let server = Server::at(&sandbox.mirror, target, trouble);
        let words = [server.url.as_str(), RELEASE, word, "hint: "];
        sandbox.fails(fault, sandbox.setup_from(&server.url, &[]), 1, &words);
        assert_eq!(server.troubled().len(), requests, "{fault}");
    }
    sandbox.continues(sandbox.setup(&[]));
}

/// The halves of a file are put together only if the server confirms that they belong together.
#[test]
fn a_file_in_two_parts() {
    for (fault, trouble, resumes) in [
        ("a server without ranges", ServerFault::NoRanges, "1"),
        (
            "a file that changes between two halves",
            ServerFault::Changed,
            "0",
        ),
    ] {
        let sandbox = Sandbox::new();
        let server = Server::of(&sandbox.mirror, trouble);
        sandbox.survives(
            fault,
            sandbox.setup_from(&server.url, &[]),
            &[
                "was interrupted after 1000 of 1048576 bytes",
                "trying again",
            ],
        );
        let requests = server.troubled();
        assert_eq!(requests.len(), 2, "{requests:?}");
        assert!(requests[1].contains(&format!("\r\nif-range: \"{resumes}\"\r\n")));
    }
}

#[test]
fn a_compressed_response() {
    let header = ServerFault::Header("Content-Encoding: gzip\r\n");
    let sandbox = Sandbox::new();
    let server = Server::of(&sandbox.mirror, header.clone());
    let setup = sandbox.setup_from(&server.url, &[]);
    sandbox.survives("a file that is called gzip and is not", setup, &[]);

    let sandbox = Sandbox::new();
    std::fs::write(sandbox.mirror.join("v1.33.5+k3s1/k3s"), b"\x1f\x8b packed").expect("packed");
    let server = Server::of(&sandbox.mirror, header.clone());
    let words = [
        "k3s was sent compressed (gzip), which was not requested",
        "hint: ",
    ];
    let setup = sandbox.setup_from(&server.url, &[]);
    sandbox.fails("a file that is packed on the way", setup, 1, &words);

    let sums = sandbox.mirror.join("v1.33.5+k3s1/sha256sum-amd64.txt");
    std::fs::write(sums, b"\x1f\x8b packed").expect("packed");
    let server = Server::at(&sandbox.mirror, ".txt", header);
    let words = ["sha256sum-amd64.txt was sent compressed (gzip)", "hint: "];
    let setup = sandbox.setup_from(&server.url, &[]);
    sandbox.fails("checksums that are packed on the way", setup, 1, &words);
}

/// The patience is for silence: whatever moves is waited for.
#[test]
fn a_server_that_falls_silent() {
    let sandbox = Sandbox::new();
    let server = Server::of(&sandbox.mirror, once(ServerFault::Stall));
    let setup = sandbox.setup_from(&server.url, &[]);
    let words = ["no data from", "/k3s for 30 s; trying again"];
    let ended = sandbox.survives("silence in the middle, then the rest", setup, &words);
    assert!(server.troubled()[1].contains("\r\nrange: bytes=524288-\r\n"));
    let fetched = ended.stderr.matches("fetched k3s").count();
    assert_eq!(fetched, 1, "only at its end: {}", ended.stderr);
}

#[test]
fn a_server_that_says_nothing_at_all() {
    let sandbox = Sandbox::new();
    let server = Server::at(&sandbox.mirror, ".txt", ServerFault::Mute);
    let words = ["no data from", ".txt for 30 s", "check the network"];
    let setup = sandbox.setup_from(&server.url, &[]);
    sandbox.fails("a server that says nothing", setup, 1, &words);
    server.mends();
    sandbox.continues(sandbox.setup_from(&server.url, &[]));
}

#[test]
fn a_proxy_that_refuses() {
    let sandbox = Sandbox::new();
    let closed_port = free_port();
    let absent = format!("http://127.0.0.1:{closed_port}");
    let forbidding = ServerFault::Status("407 Proxy Authentication Required".to_owned());
    let forbidding = Server::at(&sandbox.mirror, "", forbidding);
    for (fault, variable, proxy, mirror, word) in [
        (
            "no proxy there, http",
            "http_proxy",
            &absent,
            "http://k3s.test",
            "refused",
        ),
        (
            "a proxy that forbids http",
            "http_proxy",
            &forbidding.url,
            "http://k3s.test",
            "answered 407",
        ),
        (
            "no proxy there, https",
            "https_proxy",
            &absent,
            "https://k3s.test",
            "refused",
        ),
        (
            "a proxy that forbids https",
            "https_proxy",
            &forbidding.url,
            "https://k3s.test",
            "proxy",
        ),
    ] {
        let mut setup = sandbox.setup_from(mirror, &[]);
        setup.env(variable, proxy);
        let words = [mirror, word, "the proxy variables (https_proxy, no_proxy)"];
        sandbox.fails(fault, setup, 1, &words);
    }
    let server = Server::of(&sandbox.mirror, ServerFault::None);
    let mut setup = sandbox.setup_from(&server.url, &[]);
    setup
        .env("http_proxy", &absent)
        .env("no_proxy", "127.0.0.1");
    sandbox.continues(setup);
}

#[test]
fn an_untrusted_certificate() {
    let sandbox = Sandbox::new();
    let pem = sandbox.env.path("server.pem");
    let server = Server::by_https(&sandbox.mirror, ServerFault::None, &pem);
    let words = [&server.url, "certificate", "SSL_CERT_FILE"];
    let setup = sandbox.setup_from(&server.url, &[]);
    let ended = sandbox.fails("an untrusted certificate", setup, 1, &words);
    assert!(!ended.stderr.contains("trying again"), "{}", ended.stderr);

    let mut setup = sandbox.setup_from(&server.url, &[]);
    setup.env("SSL_CERT_FILE", &pem);
    sandbox.continues(setup);
}

#[test]
fn a_redirect_from_https_to_http() {
    let sandbox = Sandbox::new();
    let plain = Server::of(&sandbox.mirror, ServerFault::None);
    let there = format!("302 Found\r\nLocation: {}/v1.33.5+k3s1/k3s", plain.url);
    let pem = sandbox.env.path("server.pem");
    let server = Server::by_https(&sandbox.mirror, ServerFault::Status(there), &pem);
    let mut setup = sandbox.setup_from(&server.url, &[]);
    setup.env("SSL_CERT_FILE", &pem);
    let words = [&server.url, "it leads from https to another protocol"];
    sandbox.fails("a redirect from https to http", setup, 1, &words);
    assert_eq!(plain.requests(), Vec::<String>::new());
}
