//! Downloads that nothing verifies; and credentials for them, which are never shown.

use std::{
    fs,
    path::{Path, PathBuf},
};

use k3s_vm::base::Digest;

use super::{
    sandbox::Sandbox,
    server::{Server, ServerFault},
};
use crate::support::{VERSION, dead_image, finish, mode};

const ANYWAY: &str = "--insecure-no-checksum";

/// A server that also has an image.
fn with_image(sandbox: &Sandbox) -> (Server, String, String) {
    let image = dead_image(&sandbox.mirror.join("disk.img"));
    let digest = Digest::of(&fs::read(image).expect("readable")).to_string();
    let server = Server::at(&sandbox.mirror, "/disk.img", ServerFault::None);
    let url = format!("{}/disk.img", server.url);
    (server, url, digest)
}

#[test]
fn an_image_without_a_checksum() {
    let sandbox = Sandbox::new();
    let (server, url, digest) = with_image(&sandbox);
    let words = [
        "cannot verify",
        &url,
        "it has no checksum",
        "--image-sha256 HEX",
        ANYWAY,
    ];
    let refused = |sandbox: &Sandbox, fault: &str| {
        sandbox.fails(fault, sandbox.setup(&["--image", &url]), 1, &words);
    };
    refused(&sandbox, "an image without a checksum");
    assert_eq!(
        server.troubled(),
        Vec::<String>::new(),
        "not even asked for"
    );

    let anyway = sandbox.setup(&["--image", &url, ANYWAY]);
    let fault = "an image without a checksum, --insecure-no-checksum";
    sandbox.survives(fault, anyway, &["warning: cannot verify", ANYWAY]);
    let config = fs::read_to_string(sandbox.file("config")).expect("written");
    assert!(!config.contains("insecure"), "{config}");
    // The machine is begun, and needs nothing more.
    sandbox.continues(sandbox.setup(&["--image", &url]));

    let mut other = Sandbox::new();
    other.env.cache.clone_from(&sandbox.env.cache);
    refused(
        &other,
        "an image that another project took without a checksum",
    );
    other.continues(other.setup(&["--image", &url, "--image-sha256", &digest]));
    assert_eq!(server.troubled().len(), 1, "right bytes are right");
}

#[test]
fn a_release_without_checksums() {
    let sandbox = Sandbox::new();
    let sums = sandbox.mirror.join(VERSION).join("sha256sum-amd64.txt");
    for (fault, text) in [
        ("a release without checksums", None),
        ("a release without its checksum", Some("0000  k3s.exe\n")),
    ] {
        let sandbox = Sandbox {
            mirror: sandbox.mirror.clone(),
            ..Sandbox::new()
        };
        let written = match text {
            None => fs::remove_file(&sums),
            Some(text) => fs::write(&sums, text),
        };
        written.expect("changed");
        let server = Server::of(&sandbox.mirror, ServerFault::None);
        let setup = |flags| sandbox.setup_from(&server.url, flags);
        let words = [server.url.as_str(), "sha256sum-amd64.txt", ANYWAY];
        sandbox.fails(fault, setup(&[]), 1, &words);
        assert_eq!(
            server.troubled(),
            Vec::<String>::new(),
            "not even asked for"
        );
        let anyway = format!("{fault}, {ANYWAY}");
        sandbox.survives(
            &anyway,
            setup(&[ANYWAY]),
            &["warning: ", "taken unverified"],
        );
        sandbox.continues(setup(&[ANYWAY]));
        assert_eq!(server.troubled().len(), 1, "kept for those who take it");
        sandbox.fails(&format!("{fault}, later"), setup(&[]), 1, &words);
    }
    let wrong = format!("{}  k3s\n", "0".repeat(64));
    fs::write(&sums, wrong).expect("changed");
    let fault = format!("wrong checksum, {ANYWAY}");
    let words = ["k3s has the wrong checksum", "hint: "];
    sandbox.fails(&fault, sandbox.setup(&[ANYWAY]), 1, &words);
}

#[test]
fn a_password_in_a_url() {
    let sandbox = Sandbox::new();
    let (server, url, digest) = with_image(&sandbox);
    let secretly = |url: &str| url.replace("http://", "http://ada:hunter2@");
    let image = secretly(&url);
    let log = sandbox.env.path("run/log");
    let setup = |mirror: &str| {
        let flags = ["--debug", "--image", &image, "--image-sha256", &digest];
        let mut setup = sandbox.setup_from(&secretly(mirror), &flags);
        setup.env("LOG_FILE", &log);
        setup
    };
    let forbidden = ServerFault::Status("403 Forbidden".to_owned());
    for (fault, trouble, word) in [
        ("403, a password in the URL", forbidden, "/k3s answered 403"),
        (
            "a cut, a password in the URL",
            ServerFault::Cut,
            "/k3s was interrupted",
        ),
        (
            "wrong checksum, a password in the URL",
            ServerFault::Body(b"else"),
            "/k3s has the wrong checksum",
        ),
    ] {
        let bad = Server::of(&sandbox.mirror, trouble);
        let words = ["http://***@127.0.0.1", word];
        let ended = sandbox.fails(fault, setup(&bad.url), 1, &words);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
    let ended = sandbox.survives("a password in the URL", setup(&server.url), &[]);
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    let authorized = |request: &String| request.contains("\r\nauthorization: basic ");
    assert!(server.requests().iter().all(authorized));
    let status = sandbox.status();
    let shown = status["machine"]["image"].as_str().unwrap_or_default();
    assert!(shown.starts_with("http://***@127.0.0.1"), "{status}");
    // Without the wish as it was said, the next setup could not fetch anything.
    let config = sandbox.file("config");
    assert_eq!(mode(&config), 0o600);
    assert_eq!(files_with("hunter2", &sandbox.env.path("")), [config]);
    assert!(files_with("***@", &sandbox.env.path("")).contains(&log));
}

#[test]
fn a_password_in_an_invalid_url() {
    let sandbox = Sandbox::new();
    for (flag, url, words) in [
        (
            "--image",
            "ftp://ada:hunter2@h/x",
            "cannot use the URL ftp://***@h/x",
        ),
        (
            "--image",
            "http://ada:hun/ter2@h/x",
            "cannot use the URL http://***@h/x",
        ),
        (
            "--k3s-mirror",
            "ftp://ada:hunter2@h/x",
            "invalid mirror \"ftp://***@h/x\"",
        ),
    ] {
        let fault = format!("{flag} URL that cannot be, a password in it");
        let ended = sandbox.fails(&fault, sandbox.setup(&[flag, url]), 2, &[words]);
        assert!(!ended.stderr.contains("ter2"), "{}", ended.stderr);
    }
    let mut help = sandbox.env.command(&["setup", "--help"]);
    help.env("K3S_VM_K3S_MIRROR", "http://ada:hunter2@h/");
    let help = finish(help).stdout;
    assert!(
        help.contains("K3S_VM_K3S_MIRROR") && !help.contains("hunter2"),
        "{help}"
    );
}

/// The files below `directory` that have `text` in them.
fn files_with(text: &str, directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files_with(text, &path));
        } else if fs::read(&path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
        {
            found.push(path);
        }
    }
    found
}
