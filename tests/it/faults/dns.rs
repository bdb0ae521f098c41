//! The host's DNS is bad: no server, a dead first one, only IPv6 ones, a stub on loopback. The servers are real, and on
//! loopback addresses of their own.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::sandbox::{Sandbox, in_other_mounts};
use crate::support::{Ended, finish, skipped};

/// The forwarder of user networking to the host's first IPv6 server.
const FORWARDER_IPV6: &str = "fec0::3";
/// The host's loopback, as a guest reaches it.
const HOST: &str = "10.0.2.2";

const PATIENCE: Duration = Duration::from_secs(30);

/// A DNS server that knows nothing, and says so.
struct Dns {
    asked: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// Nothing where the port is another program's or only root's. Another test may have it for a moment.
    fn at(address: &str) -> Option<Self> {
        let address: IpAddr = address.parse().expect("an address");
        let began = Instant::now();
        let socket = loop {
            match UdpSocket::bind(SocketAddr::new(address, 53)) {
                Err(error)
                    if error.kind() == ErrorKind::AddrInUse && began.elapsed() < PATIENCE =>
                {
                    thread::sleep(Duration::from_millis(50));
                }
                other => break other.ok()?,
            }
        };
        let (asked, ends) = (Arc::default(), Arc::default());
        let thread = thread::spawn({
            let (asked, ends) = (Arc::clone(&asked), Arc::clone(&ends));
            move || answer(&socket, &asked, &ends)
        });
        Some(Self {
            asked,
            ends,
            thread: Some(thread),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(socket: &UdpSocket, asked: &AtomicUsize, ends: &AtomicBool) {
    const REFUSED: u8 = 5;
    let often = Some(Duration::from_millis(20));
    socket.set_read_timeout(often).expect("set");
    let mut packet = [0; 512];
    while !ends.load(Ordering::SeqCst) {
        let Ok((length, from)) = socket.recv_from(&mut packet) else {
            continue;
        };
        asked.fetch_add(1, Ordering::SeqCst);
        packet[2] |= 0x80;
        packet[3] = REFUSED;
        let _ = socket.send_to(&packet[..length], from);
    }
}

/// What `doctor` finds of DNS on a host with this resolv.conf, or with none.
#[track_caller]
fn doctor(sandbox: &Sandbox, resolv_conf: Option<&str>) -> Value {
    let ended = finish(with_resolv_conf(
        sandbox,
        resolv_conf,
        &sandbox.env.command(&["doctor", "--json"]),
    ));
    check(&ended)
}

#[track_caller]
fn check(ended: &Ended) -> Value {
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.code, 0, "DNS alone does not make doctor fail");
    let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("a list");
    let dns = checks.iter().find(|it| it["name"] == "DNS");
    dns.expect("DNS is checked").clone()
}

/// The command on a host with this resolv.conf, or with none.
fn with_resolv_conf(sandbox: &Sandbox, resolv_conf: Option<&str>, command: &Command) -> Command {
    let script = match resolv_conf {
        Some(content) => {
            let path = sandbox.env.path("resolv.conf");
            fs::write(&path, content).expect("written");
            format!(
                "mount --bind '{}' \"$(readlink -f /etc/resolv.conf)\"; exec \"$@\"",
                path.display()
            )
        }
        None => "mkdir -p ../etc; mount --bind ../etc /etc; exec \"$@\"".to_owned(),
    };
    in_other_mounts(sandbox, command, &script)
}

fn found(dns: &Value) -> &str {
    dns["found"].as_str().expect("a text")
}

#[track_caller]
fn is_ok(dns: &Value, server: &str) {
    assert_eq!(dns["result"], "ok", "{dns}");
    assert!(found(dns).contains(server), "{dns}");
    assert!(dns.get("fixes").is_none(), "nothing to fix: {dns}");
}

#[track_caller]
fn is_worse(dns: &Value, servers: &[&str]) {
    assert_eq!(dns["result"], "optional", "{dns}");
    for server in servers {
        assert!(found(dns).contains(server), "{server}: {dns}");
    }
    let fix = dns["fixes"][0].as_str().expect("a way out");
    assert!(fix.contains("--dns"), "{dns}");
}

#[test]
fn the_first_server_answers_or_not() {
    let sandbox = Sandbox::new();
    let Some(stub) = Dns::at("127.53.0.53") else {
        return skipped("port 53 is root's on this host");
    };
    let dns = doctor(
        &sandbox,
        Some("# a stub\nnameserver 127.53.0.53\noptions edns0\n"),
    );
    is_ok(&dns, "127.53.0.53");
    assert!(stub.asked() > 0);

    let dead = "nameserver 127.53.0.9\nnameserver 127.53.0.53\n";
    let dns = doctor(&sandbox, Some(dead));
    is_worse(&dns, &["127.53.0.9"]);
    drop(stub);
    let dns = doctor(&sandbox, Some("nameserver 127.53.0.53\n"));
    is_worse(&dns, &["127.53.0.53"]);
}

#[test]
fn a_server_with_another_address_in_the_guest() {
    let sandbox = Sandbox::new();
    let Some(_ipv6) = Dns::at("::1") else {
        return skipped("[::1]:53 cannot be had on this host");
    };
    for only_ipv6 in [
        "nameserver ::1\n",
        "nameserver ::1%lo\r\nnameserver 2001:db8::53",
    ] {
        is_worse(&doctor(&sandbox, Some(only_ipv6)), &[FORWARDER_IPV6]);
    }
    let dead = "nameserver 127.53.1.9\nnameserver ::1\n";
    is_worse(
        &doctor(&sandbox, Some(dead)),
        &["127.53.1.9", FORWARDER_IPV6],
    );
}

#[test]
fn no_server_at_all() {
    let sandbox = Sandbox::new();
    for nothing in [None, Some(""), Some("search corp.example\n")] {
        let dns = doctor(&sandbox, nothing);
        assert_eq!(dns["result"], "optional", "{dns}");
        assert!(!found(&dns).contains(FORWARDER_IPV6), "{dns}");
    }
    let Some(local) = Dns::at("127.0.0.1") else {
        return skipped("127.0.0.1:53 cannot be had on this host");
    };
    is_worse(&doctor(&sandbox, Some("")), &[HOST]);
    assert!(local.asked() > 0);
}

/// A server that is silent, as behind a firewall, costs less than a second.
#[test]
fn silent_servers_are_not_waited_for() {
    let sandbox = Sandbox::new();
    let Ok(silent) = UdpSocket::bind("127.53.2.9:53") else {
        return skipped("port 53 is root's on this host");
    };
    let asks = |content: &str| {
        let began = Instant::now();
        is_worse(&doctor(&sandbox, Some(content)), &["127.53.2.9"]);
        began.elapsed()
    };
    let once = asks("nameserver 127.53.2.9\n");
    let often = asks(&"nameserver 127.53.2.9\n".repeat(1000));
    crate::transcript::found(&format!("one silent server {once:?}, a thousand {often:?}"));
    drop(silent);
}

#[test]
fn chosen_servers_take_precedence() {
    let sandbox = Sandbox::new();
    let Some(stub) = Dns::at("127.53.3.53") else {
        return skipped("port 53 is root's on this host");
    };
    for (config, server) in [
        ("[network]\ndns = [\"192.0.2.7\"]\n", "192.0.2.7"),
        ("isolated = true\n", ""),
    ] {
        fs::create_dir_all(sandbox.file("")).expect("created");
        fs::write(sandbox.file("config"), config).expect("written");
        let dns = doctor(&sandbox, Some("nameserver 127.53.3.53\n"));
        is_ok(&dns, server);
        assert_eq!(stub.asked(), 0, "nothing is asked");
    }
}

/// The settings of the guest hold what `doctor` said, before it boots.
#[test]
fn a_new_vm_gets_working_servers() {
    let sandbox = Sandbox::new();
    let Some(_ipv6) = Dns::at("::1") else {
        return skipped("[::1]:53 cannot be had on this host");
    };
    let kept = sandbox.file("resolv.conf");
    let setup = |options: &[&str]| {
        let options = [options, &["--timeout", "1s"]].concat();
        let setup = sandbox.setup(&options);
        let dead = "nameserver 127.53.4.9\nnameserver ::1\n";
        finish(with_resolv_conf(&sandbox, Some(dead), &setup))
    };
    let ended = setup(&[]);
    assert!(ended.stderr.contains("--dns"), "{}", ended.stderr);
    assert!(ended.stderr.contains(FORWARDER_IPV6), "{}", ended.stderr);
    let content = fs::read_to_string(&kept).expect("kept");
    assert_eq!(content, format!("nameserver {FORWARDER_IPV6}\n"));
    let settings = fs::read(sandbox.file("config.tar"));
    let settings = settings.expect("given to the guest");
    let settings = String::from_utf8_lossy(&settings);
    assert!(settings.contains(FORWARDER_IPV6), "in the archive");

    let ended = setup(&["--dns", "192.0.2.7"]);
    assert!(!ended.stderr.contains(FORWARDER_IPV6), "{}", ended.stderr);
    assert!(!kept.exists(), "the user's win");
}
