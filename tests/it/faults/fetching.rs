//! Images and releases that cannot be had, or are not what they should be.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use super::{booting::kill, dead_setup, end, failed, nothing_is_left, spawn, until};
use crate::support::{TestEnv, VERSION};

/// What the mirror has of the release.
fn release(env: &TestEnv) -> PathBuf {
    env.mirror();
    env.path("mirror").join(VERSION)
}

/// The setup with another image.
fn with_image(env: &TestEnv, image: &str, more: &[&str]) -> Vec<String> {
    let setup = dead_setup(env, &[&["--timeout", "1s"], more].concat());
    setup
        .into_iter()
        .map(|it| {
            if it.ends_with("dead.img") {
                image.to_owned()
            } else {
                it
            }
        })
        .collect()
}

/// The setup with another mirror.
fn with_mirror(env: &TestEnv, mirror: &str) -> Vec<String> {
    let setup = dead_setup(env, &["--timeout", "1s"]);
    setup
        .into_iter()
        .map(|it| {
            if it.starts_with("file://") {
                mirror.to_owned()
            } else {
                it
            }
        })
        .collect()
}

/// Files below `directory` whose name ends so.
fn cached(env: &TestEnv, ending: &str) -> usize {
    fn walk(directory: &std::path::Path, ending: &str) -> usize {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .map(|it| {
                if it.path().is_dir() {
                    walk(&it.path(), ending)
                } else {
                    usize::from(it.path().ends_with(ending))
                }
            })
            .sum()
    }
    walk(&env.cache, ending)
}

#[test]
fn an_image_that_is_none() {
    let env = TestEnv::new();
    let file = env.path("not-a-disk.img");
    let page = format!("<!DOCTYPE html><html>{}</html>", " ".repeat(2 << 20));
    for (content, words) in [
        (page.into_bytes(), "not a disk image"),
        (Vec::new(), "not a disk image"),
        (b"\x1f\x8b\x08".repeat(1 << 20), "not a disk image"),
    ] {
        fs::write(&file, content).expect("written");
        let ended = env.run(&with_image(&env, &file.display().to_string(), &[]));
        failed(
            "an image that is no disk image",
            &ended,
            1,
            &[words, "not-a-disk.img", "hint: take a cloud image"],
        );
        nothing_is_left(&env);
    }
    let ended = env.run(&with_image(&env, "/nowhere/disk.img", &[]));
    failed(
        "an image that is not there",
        &ended,
        1,
        &["/nowhere/disk.img"],
    );
    assert_eq!(
        fs::read_dir(env.cache.join("images"))
            .into_iter()
            .flatten()
            .count(),
        0
    );
}

#[test]
fn an_image_with_another_checksum() {
    let env = TestEnv::new();
    let wrong = "0".repeat(64);
    let ended = env.run(&dead_setup(
        &env,
        &["--timeout", "1s", "--image-sha256", &wrong],
    ));
    failed(
        "an image with another checksum",
        &ended,
        1,
        &["wrong checksum", &wrong, "hint: "],
    );
    nothing_is_left(&env);
}

#[test]
fn a_mirror_that_is_not_there() {
    let env = TestEnv::new();
    let closed = TcpListener::bind("127.0.0.1:0")
        .and_then(|it| it.local_addr())
        .expect("a free port");
    let ended = env.run(&with_mirror(&env, &format!("http://{closed}")));
    failed(
        "a mirror that does not answer",
        &ended,
        1,
        &[&format!("http://{closed}"), "hint: "],
    );
    nothing_is_left(&env);
}

#[test]
fn a_release_that_the_mirror_lacks() {
    let env = TestEnv::new();
    let (address, _) = serve(|_, stream| answer(stream, "404 Not Found", b"", 0));
    let ended = env.run(&with_mirror(&env, &format!("http://{address}")));
    failed(
        "a release that the mirror lacks",
        &ended,
        1,
        &[
            "404",
            VERSION.split('+').next().expect("a version"),
            "hint: check",
        ],
    );
    fs::rename(release(&env), env.path("elsewhere")).expect("moved");
    failed(
        "the same, of files",
        &env.run(&dead_setup(&env, &[])),
        1,
        &["sha256sum-amd64.txt"],
    );
    nothing_is_left(&env);
}

#[test]
fn a_release_that_is_not_what_it_should_be() {
    let env = TestEnv::new();
    let sums = release(&env).join("sha256sum-amd64.txt");
    let good = fs::read_to_string(&sums).expect("checksums");
    let setup = dead_setup(&env, &["--timeout", "1s"]);

    let wrong = good.replace(&good[..64], &"0".repeat(64));
    fs::write(&sums, wrong).expect("written");
    failed(
        "a k3s with another checksum",
        &env.run(&setup),
        1,
        &["wrong checksum", "hint: run the same command again"],
    );
    assert_eq!(cached(&env, "k3s"), 0, "what does not verify is not kept");

    fs::write(&sums, good.lines().skip(1).collect::<String>()).expect("written");
    failed(
        "checksums without k3s",
        &env.run(&setup),
        2,
        &["sha256sum-amd64.txt", "none for k3s"],
    );

    fs::write(&sums, &good).expect("mended");
    failed(
        "and goes on when it is mended",
        &env.run(&setup),
        1,
        &["not ready within 1s"],
    );
    nothing_is_left(&env);
}

#[test]
fn a_mirror_without_airgap_images() {
    let env = TestEnv::new();
    fs::remove_file(release(&env).join("k3s-airgap-images-amd64.tar.zst")).expect("removed");
    let ended = env.run(&dead_setup(&env, &["--timeout", "1s"]));
    failed(
        "a mirror without air-gap images goes on",
        &ended,
        1,
        &[
            "the guest will pull its images itself",
            "not ready within 1s",
        ],
    );
    nothing_is_left(&env);
}

#[test]
fn a_transfer_that_breaks_off() {
    let env = TestEnv::new();
    let directory = release(&env);
    let (address, _) = serve(
        move |request, stream| match request.path.rsplit('/').next() {
            Some("sha256sum-amd64.txt") => answer(
                stream,
                "200 OK",
                &fs::read(directory.join("sha256sum-amd64.txt")).expect("sums"),
                0,
            ),
            _ => answer(stream, "200 OK", b"only the beginning", 1 << 20),
        },
    );
    let ended = env.run(&with_mirror(&env, &format!("http://{address}")));
    failed(
        "a transfer that breaks off",
        &ended,
        1,
        &["broke off", "hint: "],
    );
    nothing_is_left(&env);
}

#[test]
fn a_download_goes_on_after_ctrl_c() {
    let env = TestEnv::new();
    let directory = release(&env);
    let half = fs::metadata(directory.join("k3s")).expect("k3s").len() / 2;
    let (hold, held): (Sender<()>, Receiver<()>) = channel();
    let held = Mutex::new(held);
    let (address, requests) = serve(move |request, stream| {
        let name = request
            .path
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        let bytes = fs::read(directory.join(&name)).expect("a file of the release");
        match (name.as_str(), request.range) {
            ("k3s", None) => {
                let half = usize::try_from(half).expect("a size");
                answer(stream, "200 OK", &bytes[..half], bytes.len() - half);
                // Nothing more comes until the test is over.
                let _ = held.lock().expect("one holder").recv();
            }
            (_, Some(from)) => {
                let (last, total) = (bytes.len() - 1, bytes.len());
                let status = format!(
                    "206 Partial Content
Content-Range: bytes {from}-{last}/{total}"
                );
                answer(stream, &status, &bytes[from..], 0);
            }
            _ => answer(stream, "200 OK", &bytes, 0),
        }
    });
    let mirror = format!("http://{address}");
    let setup = spawn(env.command(&with_mirror(&env, &mirror)));
    let partials = env.cache.join("partial");
    until("half of k3s", || {
        fs::read_dir(&partials)
            .ok()?
            .flatten()
            .find(|it| it.metadata().is_ok_and(|it| it.len() >= half))
            .map(drop)
    });
    kill(i32::try_from(setup.id()).expect("a process id"), "INT");
    failed(
        "Ctrl-C during a download",
        &end(setup),
        130,
        &["goes on where it stopped"],
    );
    drop(hold);
    failed(
        "and the same setup again",
        &env.run(&with_mirror(&env, &mirror)),
        1,
        &["at hand", "not ready within 1s"],
    );
    let resumed = requests.try_iter().any(|request| {
        request.path.ends_with("/k3s") && request.range.is_some_and(|from| from as u64 >= half)
    });
    assert!(resumed, "the second half was asked for alone");
    nothing_is_left(&env);
}

/// One request of the program.
#[derive(Debug, Clone)]
struct Request {
    path: String,
    range: Option<usize>,
}

/// A server of HTTP on a free port of loopback, and what it was asked.
fn serve(
    handle: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static,
) -> (std::net::SocketAddr, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let (asked, requests) = channel();
    let handle = std::sync::Arc::new(handle);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (asked, handle) = (asked.clone(), handle.clone());
            thread::spawn(move || {
                let mut head = BufReader::new(stream.try_clone().expect("cloned"))
                    .lines()
                    .map_while(Result::ok);
                let Some(first) = head.next() else { return };
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                let lines: Vec<String> = head
                    .take_while(|line| !line.is_empty())
                    .map(|line| line.to_lowercase())
                    .collect();
                let range = lines.iter().find_map(|line| {
                    line.strip_prefix("range: bytes=")?
                        .strip_suffix('-')?
                        .parse()
                        .ok()
                });
                let request = Request { path, range };
                let _ = asked.send(request.clone());
                handle(&request, &mut stream);
            });
        }
    });
    (address, requests)
}

/// An answer (its status may bring headers with it) with a body, to which `more` bytes are promised that do not come.
fn answer(stream: &mut TcpStream, status: &str, body: &[u8], more: usize) {
    let length = body.len() + more;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: \"one\"\r\nConnection: close\r\n\r\n"
    );
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body));
}
