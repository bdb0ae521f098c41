//! Ports of the host that lead into the guest.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::story_of;
use crate::{
    support::{free_port, retried},
    transcript::{Story, chapter, found},
};

#[test]
fn ports_are_forwarded() {
    let story = story_of("ports");
    the_ingress_gets_free_ports(&story);

    chapter("A port is forwarded at once");
    serve(&story, 30080);
    let ports = [free_port(), free_port()];
    let [web, other] = [ports[0].number, ports[1].number];
    story
        .run(&format!("k3s-vm port add {web}:30080"))
        .succeeds()
        .prints(&format!("127.0.0.1:{web}"));
    assert!(answers(web), "{web}");
    found("the guest's web server answers");
    story
        .run(&format!("k3s-vm port add {web}:30080"))
        .succeeds();
    story
        .run(&format!("k3s-vm port add {web}:30081"))
        .exits(1)
        .says("already forwards to the guest's port 30080")
        .says(&format!("hint: remove it first: k3s-vm port rm {web}"));
    udp_is_forwarded(&story);

    chapter("What cannot be is refused, and changes nothing");
    let before = story.run("k3s-vm port list").succeeds().ended.stdout;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = taken.local_addr().expect("its address").port();
    story
        .run(&format!("k3s-vm port add {port}:80"))
        .exits(1)
        .says("in use by another program");
    for wrong in ["80", "0:80", "a:b", "1:2/sctp", "svc/", "svc/../x"] {
        story
            .run(&format!("k3s-vm port add {wrong}"))
            .exits(2)
            .says("invalid port forward");
    }
    story
        .run("k3s-vm port rm 1")
        .exits(1)
        .says("hint: list them: k3s-vm port list");
    story
        .run(&format!("k3s-vm setup --port {port}:80"))
        .exits(1)
        .says("in use by another program");
    story.run("k3s-vm port list").prints(before.trim_end());

    let service = services(&story);

    chapter("Ports are kept, also where they are changed while the VM is stopped");
    story.run("k3s-vm stop --suspend").succeeds();
    assert!(!answers(web), "{web}");
    story
        .run(&format!(
            "k3s-vm port add {other}:30080 && k3s-vm port rm {service}"
        ))
        .succeeds();
    assert_eq!(is_open(&story, other), Some(false));
    story
        .run("k3s-vm status")
        .exits(3)
        .says(&format!("127.0.0.1:{other} to 30080"))
        .says(" (from the next start on)");
    let ports = story.status()["ports"].clone();
    let of_other = |it: &&Value| it["address"] == format!("127.0.0.1:{other}");
    let listed = ports.as_array().and_then(|all| all.iter().find(of_other));
    assert_eq!(
        listed.map(|it| &it["guest"]),
        Some(&30080.into()),
        "{ports}"
    );
    drop(taken);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, web)).expect("free now");
    story.run("k3s-vm start").succeeds().says(&format!(
        "port {web} on 127.0.0.1 is in use by another program"
    ));
    assert!(answers(other), "{other}");
    assert_eq!(is_open(&story, service), None);
    story
        .run("k3s-vm status")
        .says(&format!("127.0.0.1:{other} to 30080"))
        .says(&format!("127.0.0.1:{web} to 30080 (closed)"))
        .never_says("next start");
    drop(taken);
    story
        .run(&format!("k3s-vm port add {web}:30080"))
        .succeeds();
    assert!(answers(web), "{web}");
    story.run(&format!("k3s-vm port rm {web}")).succeeds();
    assert!(!answers(web), "{web}");
    found("one that was taken is forwarded when it is free");

    story.run("k3s-vm reset --yes").succeeds();
    story
        .run("k3s-vm port list")
        .exits(4)
        .says("hint: create it: k3s-vm setup");
}

/// Other machines of this host may have the ports, and come and go: what was taken when it started is opened by a start
/// later.
fn the_ingress_gets_free_ports(story: &Story) {
    chapter("The ingress has ports where they are free");
    story.run("k3s-vm port list").succeeds().says("the ingress");
    let began = Instant::now();
    for port in [8080, 8443] {
        loop {
            let open = is_open(story, port).expect("it is listed");
            assert_eq!(open, listens(story, port), "{port}");
            let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err();
            if open || taken {
                found(&format!(
                    "{port} is {}",
                    if open { "open" } else { "another's" }
                ));
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(120), "{port}");
            retried("a start, for a port of the ingress was taken");
            story.run("k3s-vm start").succeeds();
        }
    }
}

/// Whether the machine's QEMU listens there, as the kernel tells (proc_pid_net(5)).
fn listens(story: &Story, port: u16) -> bool {
    let address = format!("0100007F:{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux");
    let mut sockets = table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let listens = columns.get(1) == Some(&address.as_str()) && columns.get(3) == Some(&"0A");
        listens.then(|| format!("socket:[{}]", columns[9]))
    });
    let files = format!("/proc/{}/fd", story.qemu());
    let mut files = fs::read_dir(files).expect("QEMU runs").flatten();
    sockets.next().is_some_and(|socket| {
        files.any(|it| fs::read_link(it.path()).is_ok_and(|to| to.as_os_str() == socket.as_str()))
    })
}

/// Forwards a port to a Service, and gives it.
fn services(story: &Story) -> u16 {
    chapter("A Service is found");
    story
        .run("k3s-vm port add svc/kubernetes")
        .exits(1)
        .says("of type ClusterIP, which only the cluster reaches");
    story
        .run("k3s-vm port add svc/web")
        .exits(1)
        .says("it does not exist");
    story
        .run("k3s-vm port add svc/traefik -n kube-system")
        .exits(1)
        .says("its ports are 80, 443: say which");
    let added = story
        .run("k3s-vm port add svc/traefik:web -n kube-system")
        .succeeds();
    let (_, port) = added.ended.stdout.trim().split_once(':').expect("a port");
    let service: u16 = port.parse().expect("a number");
    assert!(answers(service), "{service}");
    found("its port of the node answers");
    service
}

fn udp_is_forwarded(story: &Story) {
    let held = free_port();
    let port = held.number;
    story
        .run(&format!("k3s-vm port add {port}:5353/udp"))
        .succeeds();
    let echo = "import socket; it = socket.socket(type=socket.SOCK_DGRAM); it.bind((str(), 5353))\n\
                while True: it.sendto(*it.recvfrom(99))";
    story
        .run(&format!(
            "k3s-vm ssh \"systemd-run --quiet python3 -c '{echo}'\""
        ))
        .succeeds();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let moment = Some(Duration::from_millis(200));
    socket.set_read_timeout(moment).expect("set");
    let heard = within_a_minute(|| {
        let mut echo = [0; 4];
        socket.send_to(b"echo", (Ipv4Addr::LOCALHOST, port)).is_ok()
            && socket.recv(&mut echo).is_ok()
            && &echo == b"echo"
    });
    assert!(heard, "udp {port}");
    found("and UDP comes and goes");
    story.run(&format!("k3s-vm port rm {port}/udp")).succeeds();
}

/// Has the guest answer on its `port`.
fn serve(story: &Story, port: u16) {
    let serve = format!("systemd-run --quiet python3 -m http.server {port}");
    story.run(&format!("k3s-vm ssh {serve}")).succeeds();
    let there = format!("until curl -s -o /dev/null localhost:{port}; do sleep 0.2; done");
    story
        .run(&format!("k3s-vm ssh \"timeout 60 bash -c '{there}'\""))
        .succeeds();
}

/// Whether a web server answers there.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return false;
    };
    let minute = Some(Duration::from_secs(60));
    stream.set_read_timeout(minute).expect("set");
    let mut answer = String::new();
    let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    let _ = stream.read_to_string(&mut answer);
    answer.starts_with("HTTP/1.0 200")
}

/// Whether `port list` says that it is open, if it has it.
fn is_open(story: &Story, port: u16) -> Option<bool> {
    let told = story.env.ok(&["port", "list", "--json"]);
    let document: Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!(document["schema"], 1);
    let address = format!("127.0.0.1:{port}");
    let ports = document["ports"].as_array().expect("a list");
    let port = ports.iter().find(|it| it["address"] == address);
    port.map(|it| it["open"].as_bool().expect("yes or no"))
}

fn within_a_minute(is_so: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        if is_so() {
            return true;
        }
    }
    false
}
