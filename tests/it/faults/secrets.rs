//! Secrets are in no output: no log at any level, no line of `ps`, no JSON.

use std::{fs, path::Path, process::Command};

use rustix::process::Signal;

use super::{
    sandbox::{Background, Sandbox, eventually},
    server::{Server, ServerFault},
    table::record_stopped_fault,
};
/// The private keys and the seed that holds one, while everything is logged.
#[test]
fn keys_are_in_no_output() {
    let sandbox = Sandbox::new();
    let log = sandbox.env.path("log");
    let mut setup = sandbox.setup(&["--debug"]);
    setup.env("LOG_FILE", &log).env("RUST_LOG", "trace");
    let setup = Background::start(&sandbox, setup);
    eventually("the VM runs", || {
        sandbox.status()["process"]["run_state"] == "running"
    });
    eventually("the wait for the guest", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("phase=\"start QEMU\""))
    });
    let mut told = vec![
        ("status --json".to_owned(), sandbox.status().to_string()),
        ("ps".to_owned(), sandbox.processes().join("\n")),
        ("environment".to_owned(), environment(sandbox.env.pid())),
    ];
    setup.signal(Signal::INT);
    let ended = setup.end();
    record_stopped_fault(&sandbox, "everything is logged", &ended);
    assert!(ended.stderr.contains("qemu-system"), "the level is on");
    told.push(("stderr".to_owned(), ended.stderr));
    told.push(("LOG_FILE".to_owned(), read(&log)));
    for name in [
        "config",
        "record.json",
        "console.log",
        "stages.log",
        "qemu.log",
        // The template, from which others continue, has seen it.
        "seed.img",
    ] {
        told.push((name.to_owned(), read(&sandbox.file(name))));
    }
    let secrets = secrets(&sandbox);
    assert!(secrets.len() >= 4, "two keys of some lines each");
    for (place, text) in &told {
        for secret in &secrets {
            assert!(!text.contains(secret), "a key is in {place}");
        }
    }
}

/// The lines of the private keys, but for the first, which is the same in all keys, and the last, which is short.
fn secrets(sandbox: &Sandbox) -> Vec<String> {
    let keys = ["id_ed25519", "host_ed25519"].map(|name| read(&sandbox.file(name)));
    let lines = keys.iter().flat_map(|pem| pem.lines().skip(2));
    lines
        .filter(|line| line.len() == 70)
        .map(str::to_owned)
        .collect()
}

fn environment(pid: Option<i32>) -> String {
    read(Path::new(&format!(
        "/proc/{}/environ",
        pid.expect("it runs")
    )))
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).expect("readable")).into_owned()
}

/// A mirror behind a login: the password is used, kept where the config is, and never shown.
#[test]
fn the_password_of_a_mirror() {
    let sandbox = Sandbox::new();
    let server = Server::of(&sandbox.mirror, ServerFault::None);
    let url = server.url.replace("http://", "http://ada:open-sesame@");
    let log = sandbox.env.path("log");
    let logged = |mut command: Command| {
        command.arg("--debug").env("LOG_FILE", &log);
        command
    };
    let words = ["http://***@127.0.0.1:", "/v1.2.3%2Bk3s1/", "answered 404"];
    let setup = sandbox.setup_from(&url, &["--k3s-version", "v1.2.3+k3s1"]);
    let ended = sandbox.fails("404 behind a login", logged(setup), 1, &words);
    assert!(server.requests()[0].contains("authorization: basic "));
    // The image comes from there as well, and is shown wherever the VM is.
    fs::copy(&sandbox.image, sandbox.mirror.join("dead.img")).expect("copied");
    let image = format!("{url}/dead.img");
    let flags = ["--image", &image, "--insecure-no-checksum"];
    let setup = logged(sandbox.setup_from(&url, &flags));
    let setup = Background::start(&sandbox, setup);
    eventually("the VM runs", || {
        assert!(setup.is_running(), "{}", setup.said());
        sandbox.status()["process"]["run_state"] == "running"
    });
    let told = sandbox.status();
    assert!(
        told["machine"]["image"]
            .as_str()
            .is_some_and(|image| image.contains("***@"))
    );
    let told = told.to_string() + &sandbox.processes().join(" ");
    setup.signal(Signal::INT);
    let other = sandbox.env.run(&["start", "--debug", "--timeout", "1s"]);
    for text in [
        ended.stderr,
        read(&log),
        told,
        setup.end().stderr,
        other.stderr,
    ] {
        assert!(!text.contains("open-sesame"), "{text}");
    }
}
