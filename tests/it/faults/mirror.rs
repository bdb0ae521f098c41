//! The release cannot be had.

use std::fs;

use rustix::process::Signal;

use super::{
    sandbox::{Background, Sandbox, eventually},
    server::{Server, ServerFault},
    table::record_stopped_fault,
};
use crate::support::{VERSION, free_port};

#[test]
fn a_mirror_that_is_not_there() {
    let sandbox = Sandbox::new();
    let closed_port = free_port();
    let url = format!("http://127.0.0.1:{closed_port}");
    let words = [
        "cannot reach",
        &url,
        "refused",
        "check the network",
        "--k3s-mirror URL",
    ];
    sandbox.fails("nobody listens", sandbox.setup_from(&url, &[]), 1, &words);
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn a_mirror_without_the_version() {
    let sandbox = Sandbox::new();
    let server = Server::of(&sandbox.mirror, ServerFault::None);
    let other = ["--k3s-version", "v1.2.3+k3s1"];
    let words = [
        &server.url,
        "/v1.2.3%2Bk3s1/sha256sum-amd64.txt answered 404",
        "check the address and the version",
    ];
    sandbox.fails("404", sandbox.setup_from(&server.url, &other), 1, &words);
    let words = [
        "v1.2.3+k3s1/sha256sum-amd64.txt",
        "No such file",
        "check the address and the version",
    ];
    sandbox.fails("no such directory", sandbox.setup(&other), 1, &words);
    let words = ["invalid k3s version \"1.33\""];
    sandbox.fails(
        "no version",
        sandbox.setup(&["--k3s-version", "1.33"]),
        2,
        &words,
    );
    let words = ["invalid mirror \"ftp://h/\": it takes http, https or file"];
    sandbox.fails("no mirror", sandbox.setup_from("ftp://h/", &[]), 2, &words);
    sandbox.continues(sandbox.setup_from(&server.url, &[]));
}

#[test]
fn a_transfer_that_is_always_interrupted() {
    let sandbox = Sandbox::new();
    let server = Server::of(&sandbox.mirror, ServerFault::Cut);
    let words = [
        &server.url,
        "/k3s was interrupted after 1000 of 1048576 bytes",
        "continues where it stopped",
    ];
    sandbox.fails(
        "a transfer that breaks off",
        sandbox.setup_from(&server.url, &[]),
        1,
        &words,
    );
    server.mends();
    sandbox.continues(sandbox.setup_from(&server.url, &[]));
    assert!(
        server
            .requests()
            .iter()
            .any(|request| request.contains("\r\nrange: bytes=1000-"))
    );
}

#[test]
fn a_release_with_other_checksums() {
    let sandbox = Sandbox::new();
    let binary = sandbox.mirror.join(VERSION).join("k3s");
    let sound = fs::read(&binary).expect("readable");
    fs::write(&binary, vec![7; sound.len()]).expect("tampered with");
    let words = [
        "k3s has the wrong checksum: expected SHA-256 ",
        ", got SHA-256 ",
        "hint: run the same command again",
    ];
    let server = Server::of(&sandbox.mirror, ServerFault::None);
    sandbox.fails(
        "wrong checksum, http",
        sandbox.setup_from(&server.url, &[]),
        1,
        &words,
    );
    sandbox.fails("wrong checksum, file", sandbox.setup(&[]), 1, &words);
    fs::write(&binary, sound).expect("repaired");

    let sums = sandbox.mirror.join(VERSION).join("sha256sum-amd64.txt");
    let text = fs::read(&sums).expect("readable");
    fs::write(&sums, "<html>please log in</html>").expect("replaced");
    let words = [
        "sha256sum-amd64.txt has no checksum for k3s",
        "hint: use another mirror or another version",
    ];
    sandbox.fails(
        "no checksum",
        sandbox.setup_from(&server.url, &[]),
        1,
        &words,
    );
    fs::write(&sums, text).expect("repaired");
    fs::remove_file(&binary).expect("removed");
    let words = [
        "k3s answered 404",
        "hint: check the address and the version",
    ];
    sandbox.fails("no binary", sandbox.setup_from(&server.url, &[]), 1, &words);
}

#[test]
fn an_interrupted_download_continues_where_it_stopped() {
    let sandbox = Sandbox::new();
    let server = Server::of(&sandbox.mirror, ServerFault::Stall);
    let setup = Background::start(&sandbox, sandbox.setup_from(&server.url, &[]));
    let half = fs::metadata(sandbox.mirror.join(VERSION).join("k3s"))
        .expect("there")
        .len()
        / 2;
    let partial = || sizes(&sandbox.env.cache.join("partial")).contains(&half);
    eventually("half of the file is here", partial);
    setup.signal(Signal::INT);
    let ended = setup.end();
    record_stopped_fault(&sandbox, "Ctrl-C during a download", &ended);
    assert_eq!(ended.code, 130);
    assert!(
        ended.stderr.contains("it continues where it stopped"),
        "{}",
        ended.stderr
    );
    sandbox.nothing_runs();
    assert!(partial(), "what came is kept");
    server.mends();
    sandbox.continues(sandbox.setup_from(&server.url, &[]));
    let range = format!("\r\nrange: bytes={half}-");
    assert!(
        server
            .requests()
            .iter()
            .any(|request| request.contains(&range)),
        "{:?}",
        server.requests()
    );
}

/// The sizes of the files in a directory.
pub(super) fn sizes(directory: &std::path::Path) -> Vec<u64> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some(entry.metadata().ok()?.len()))
        .collect()
}
