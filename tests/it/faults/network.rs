//! The way to the release is bad: servers that fail, stall, cut or lie, proxies that refuse.

use super::{
    scene::Scene,
    server::{Server, Trouble},
};
use crate::support::free_port;

const RELEASE: &str = "/v1.33.5%2Bk3s1/";

fn once(trouble: Trouble) -> Trouble {
    Trouble::Once(Box::new(trouble))
}

#[test]
fn a_server_that_has_a_bad_moment() {
    for (fault, trouble, word) in [
        (
            "500, then success",
            Trouble::Status("500 Internal Server Error".to_owned()),
            "/k3s answered 500; trying again",
        ),
        (
            "429, then success",
            Trouble::Status("429 Too Many Requests".to_owned()),
            "/k3s answered 429; trying again",
        ),
        (
            "a cut, then the rest",
            Trouble::Cut,
            "broke off after 1000 of 1048576 bytes",
        ),
        (
            "more promised than sent",
            Trouble::Length(7),
            "broke off after 1048576 of 1048583 bytes",
        ),
    ] {
        let scene = Scene::new();
        let server = Server::of(&scene.mirror, once(trouble));
        scene.survives(fault, scene.setup_from(&server.url, &[]), &[word]);
        assert_eq!(server.troubled().len(), 2, "{fault}");
    }
}

#[test]
fn a_server_that_stays_bad() {
    let scene = Scene::new();
    for (fault, target, trouble, word, requests) in [
        (
            "500, always",
            "/k3s",
            Trouble::Status("500 Internal Server Error".to_owned()),
            "k3s answered 500",
            5,
        ),
        (
            "403",
            "/k3s",
            Trouble::Status("403 Forbidden".to_owned()),
            "k3s answered 403",
            1,
        ),
        (
            "a redirect loop",
            ".txt",
            Trouble::Status("302 Found\r\nLocation: sha256sum-amd64.txt".to_owned()),
            "too many redirects",
            11,
        ),
        (
            "less promised than sent",
            "/k3s",
            Trouble::Length(-1),
            "k3s has the wrong checksum",
            1,
        ),
        (
            "a packed file",
            "/k3s",
            Trouble::Body(b"\x1f\x8b packed"),
            "k3s has the wrong checksum",
            1,
        ),
    ] {
        let server = Server::at(&scene.mirror, target, trouble);
        let words = [server.url.as_str(), RELEASE, word, "hint: "];
        scene.fails(fault, scene.setup_from(&server.url, &[]), 1, &words);
        assert_eq!(server.troubled().len(), requests, "{fault}");
    }
    scene.goes_on(scene.setup(&[]));
}

/// The halves of a file are put together only if the server vouches that they belong together.
#[test]
fn a_file_that_comes_in_halves() {
    for (fault, trouble, resumes) in [
        ("a server without ranges", Trouble::NoRanges, "1"),
        (
            "a file that changes between two halves",
            Trouble::Changed,
            "0",
        ),
    ] {
        let scene = Scene::new();
        let server = Server::of(&scene.mirror, trouble);
        scene.survives(
            fault,
            scene.setup_from(&server.url, &[]),
            &["broke off after 1000 of 1048576 bytes", "trying again"],
        );
        let requests = server.troubled();
        assert_eq!(requests.len(), 2, "{requests:?}");
        assert!(requests[1].contains(&format!("\r\nif-range: \"{resumes}\"\r\n")));
    }
}

#[test]
fn an_answer_that_says_it_is_packed() {
    let header = Trouble::Header("Content-Encoding: gzip\r\n");
    let scene = Scene::new();
    let server = Server::of(&scene.mirror, header.clone());
    let setup = scene.setup_from(&server.url, &[]);
    scene.survives("a file that is called gzip and is not", setup, &[]);

    let scene = Scene::new();
    std::fs::write(scene.mirror.join("v1.33.5+k3s1/k3s"), b"\x1f\x8b packed").expect("packed");
    let server = Server::of(&scene.mirror, header.clone());
    let words = ["k3s came packed (gzip), which was not asked for", "hint: "];
    let setup = scene.setup_from(&server.url, &[]);
    scene.fails("a file that is packed on the way", setup, 1, &words);

    let sums = scene.mirror.join("v1.33.5+k3s1/sha256sum-amd64.txt");
    std::fs::write(sums, b"\x1f\x8b packed").expect("packed");
    let server = Server::at(&scene.mirror, ".txt", header);
    let words = ["sha256sum-amd64.txt came packed (gzip)", "hint: "];
    let setup = scene.setup_from(&server.url, &[]);
    scene.fails("checksums that are packed on the way", setup, 1, &words);
}

/// The patience is for silence: whatever moves is waited for.
#[test]
fn a_server_that_falls_silent() {
    let scene = Scene::new();
    let server = Server::of(&scene.mirror, once(Trouble::Stall));
    let setup = scene.setup_from(&server.url, &[]);
    let words = ["nothing came from", "/k3s for 30 s; trying again"];
    let ended = scene.survives("silence in the middle, then the rest", setup, &words);
    assert!(server.troubled()[1].contains("\r\nrange: bytes=524288-\r\n"));
    let fetched = ended.stderr.matches("fetched k3s").count();
    assert_eq!(fetched, 1, "only at its end: {}", ended.stderr);
}

#[test]
fn a_server_that_says_nothing_at_all() {
    let scene = Scene::new();
    let server = Server::at(&scene.mirror, ".txt", Trouble::Mute);
    let words = ["nothing came from", ".txt for 30 s", "check the network"];
    let setup = scene.setup_from(&server.url, &[]);
    scene.fails("a server that says nothing", setup, 1, &words);
    server.mends();
    scene.goes_on(scene.setup_from(&server.url, &[]));
}

#[test]
fn a_proxy_that_refuses() {
    let scene = Scene::new();
    let nobody = free_port();
    let absent = format!("http://127.0.0.1:{nobody}");
    let forbidding = Trouble::Status("407 Proxy Authentication Required".to_owned());
    let forbidding = Server::at(&scene.mirror, "", forbidding);
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
        let mut setup = scene.setup_from(mirror, &[]);
        setup.env(variable, proxy);
        let words = [mirror, word, "the proxy variables (https_proxy, no_proxy)"];
        scene.fails(fault, setup, 1, &words);
    }
    let server = Server::of(&scene.mirror, Trouble::None);
    let mut setup = scene.setup_from(&server.url, &[]);
    setup
        .env("http_proxy", &absent)
        .env("no_proxy", "127.0.0.1");
    scene.goes_on(setup);
}

#[test]
fn a_certificate_that_nobody_vouches_for() {
    let scene = Scene::new();
    let pem = scene.env.path("server.pem");
    let server = Server::by_https(&scene.mirror, Trouble::None, &pem);
    let words = [&server.url, "certificate", "SSL_CERT_FILE"];
    let setup = scene.setup_from(&server.url, &[]);
    let ended = scene.fails("an untrusted certificate", setup, 1, &words);
    assert!(!ended.stderr.contains("trying again"), "{}", ended.stderr);

    let mut setup = scene.setup_from(&server.url, &[]);
    setup.env("SSL_CERT_FILE", &pem);
    scene.goes_on(setup);
}

#[test]
fn a_way_from_https_to_http() {
    let scene = Scene::new();
    let plain = Server::of(&scene.mirror, Trouble::None);
    let there = format!("302 Found\r\nLocation: {}/v1.33.5+k3s1/k3s", plain.url);
    let pem = scene.env.path("server.pem");
    let server = Server::by_https(&scene.mirror, Trouble::Status(there), &pem);
    let mut setup = scene.setup_from(&server.url, &[]);
    setup.env("SSL_CERT_FILE", &pem);
    let words = [&server.url, "it leads from https to another protocol"];
    scene.fails("a redirect from https to http", setup, 1, &words);
    assert_eq!(plain.requests(), Vec::<String>::new());
}
