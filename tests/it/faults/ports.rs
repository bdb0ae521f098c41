//! A port is somebody else's: before the start, between the look and the start, or the port of another project. Record,
//! kubeconfig and status name the port that is in use.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::Command,
};

use rustix::process::Signal;

use super::{
    scene::{Background, Scene, eventually, program},
    table::tell,
};
use crate::support::free_port;

/// The port of the running machine, as all that name it agree.
#[track_caller]
fn agreed(scene: &Scene) -> u64 {
    eventually("QEMU tells its ports", || {
        scene.status()["process"]["api_port"].is_u64()
    });
    let status = scene.status();
    let port = status["process"]["api_port"].as_u64().expect("told");
    let server = format!("https://127.0.0.1:{port}");
    let record = fs::read_to_string(scene.file("record.json")).expect("there");
    let record: serde_json::Value = serde_json::from_str(&record).expect("a record");
    assert_eq!(record["api_port"], port);
    assert_eq!(status["cluster"]["server"], server);
    let kubeconfig = status["machine"]["kubeconfig"].as_str().expect("told");
    if let Ok(text) = fs::read_to_string(kubeconfig) {
        assert!(text.contains(&server), "{text} leads to {server}");
    }
    port
}

#[test]
fn the_last_port_is_taken_at_the_next_start() {
    let scene = Scene::new();
    let kubeconfig = scene.finished(".kube/config".as_ref());
    let before = fs::read_to_string(&kubeconfig).expect("there");
    let start = Background::start(&scene, scene.env.command(&["start"]));
    let last = agreed(&scene);
    start.signal(Signal::INT);
    assert_eq!(start.end().code, 130);
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, u16::try_from(last).expect("a port")));
    let start = Background::start(&scene, scene.env.command(&["start"]));
    assert_ne!(agreed(&scene), last);
    assert_ne!(fs::read_to_string(&kubeconfig).expect("there"), before);
    start.signal(Signal::INT);
    let ended = start.end();
    tell(&scene, "the last port is taken, start, interrupted", &ended);
    assert_eq!(ended.code, 130);
    drop(other);
}

/// A QEMU that waits with its start until `go` is there, and writes to `asked` what it was asked for.
struct Waiting {
    asked: PathBuf,
    go: PathBuf,
}

impl Waiting {
    fn before(scene: &Scene, command: &mut Command) -> Self {
        let path = std::env::var("PATH").unwrap_or_default();
        let (asked, go) = (scene.env.path("asked"), scene.env.path("go"));
        let script = format!(
            "PATH='{path}'\n[ \"$1\" = --version ] || [ -e '{go}' ] || {{ printf '%s\\n' \"$@\" >'{asked}.part'; \
             mv '{asked}.part' '{asked}'; for _ in $(seq 3000); do [ -e '{go}' ] && break; sleep 0.02; done; }}\n\
             exec qemu-system-x86_64 \"$@\"",
            asked = asked.display(),
            go = go.display(),
        );
        command.env("PATH", program(scene, "qemu-system-x86_64", &script));
        Self { asked, go }
    }

    /// The API's port that QEMU was given, taken by the test in time.
    fn grab(&self) -> (TcpListener, u16) {
        eventually("QEMU is started", || self.asked.exists());
        let asked = fs::read_to_string(&self.asked).expect("there");
        let port = asked
            .split_once("hostfwd=tcp:127.0.0.1:")
            .and_then(|(_, rest)| rest.split_once('-')?.0.parse().ok())
            .expect("a forwarded port");
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("it was free");
        fs::write(&self.go, "").expect("written");
        (taken, port)
    }
}

#[test]
fn a_port_that_is_taken_between_the_look_and_the_start() {
    let scene = Scene::new();
    scene.finished(".kube/config".as_ref());
    let own = free_port();
    scene.had_port(own.number);
    let mut start = scene.env.command(&["start"]);
    let waiting = Waiting::before(&scene, &mut start);
    let start = Background::start(&scene, start);
    let (other, port) = waiting.grab();
    assert_eq!(port, own.number);
    assert_ne!(agreed(&scene), u64::from(port));
    start.signal(Signal::INT);
    let ended = start.end();
    let fault = "a free port is taken right before QEMU's start, interrupted";
    tell(&scene, fault, &ended);
    assert_eq!(ended.code, 130);
    drop(other);
}

#[test]
fn a_chosen_port_that_is_taken_between_the_look_and_the_start() {
    let scene = Scene::new();
    let own = free_port();
    let mut setup = scene.setup(&["--api-port", &own.to_string()]);
    let waiting = Waiting::before(&scene, &mut setup);
    let setup = Background::start(&scene, setup);
    let (other, port) = waiting.grab();
    assert_eq!(port, own.number);
    let ended = setup.end();
    tell(
        &scene,
        "the chosen port is taken right before QEMU's start",
        &ended,
    );
    assert_eq!(ended.code, 1);
    for word in [
        &format!("port {port} on 127.0.0.1 is taken"),
        "ss -ltnp",
        "--api-port N",
    ] {
        assert!(ended.stderr.contains(word), "{}", ended.stderr);
    }
    drop(other);
    scene.goes_on(scene.setup(&[]));
}

#[test]
fn two_projects_that_chose_the_same_port() {
    let scene = Scene::named("first");
    let own = free_port();
    let port = own.to_string();
    let first = Background::start(&scene, scene.setup(&["--api-port", &port]));
    assert_eq!(agreed(&scene).to_string(), port);
    let second = scene.elsewhere(scene.env.path("second"));
    fs::create_dir(&second.project).expect("created");
    let message = format!("port {port} on 127.0.0.1 is taken");
    let refused = Background::start(&scene, second.here(scene.setup(&["--api-port", &port]))).end();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains(&message), "{refused:?}");
    assert!(first.is_running() && second.status()["state"] == "absent");
    first.signal(Signal::INT);
    assert_eq!(first.end().code, 130);
    tell(&scene, "two projects with the same port", &refused);
    let setup = Background::start(&scene, second.here(scene.setup(&["--api-port", &port])));
    eventually("the second has the port", || {
        second.status()["process"]["api_port"].as_u64() == port.parse().ok()
    });
    // Now it is the first one's turn to be late.
    let late = scene.env.run(&["start"]);
    assert_eq!(late.code, 1, "{late:?}");
    assert!(late.stderr.contains(&message), "{late:?}");
    setup.signal(Signal::INT);
    assert_eq!(setup.end().code, 130);
    scene.goes_on(scene.env.command(&["start"]));
}

#[test]
fn ports_that_cannot_be() {
    let scene = Scene::new();
    scene.stopped();
    let sound = fs::read_to_string(scene.file("config")).expect("there");
    for (port, words) in [
        ("0", ["k3s-vm/config: ", "api_port"]),
        ("70000", ["k3s-vm/config: ", "api_port"]),
    ] {
        fs::write(scene.file("config"), format!("{sound}api_port = {port}\n")).expect("written");
        let fault = format!("api_port = {port} in the config");
        scene.fails(&fault, scene.env.command(&["start"]), 1, &words);
    }
    for port in ["0", "70000", "-1", "http"] {
        let fault = format!("--api-port {port}");
        scene.fails(
            &fault,
            scene.setup(&[&format!("--api-port={port}")]),
            2,
            &["--api-port"],
        );
    }
    fs::write(scene.file("config"), sound).expect("written");
    scene.goes_on(scene.env.command(&["start"]));
}
