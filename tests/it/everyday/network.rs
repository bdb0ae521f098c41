//! The network of a company: a proxy, a registry, an authority and name servers of its own, all of them real and on the
//! host, which the guest reaches as 10.0.2.2.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{images::Layout, story_of};
use crate::telling::{Story, chapter, found};

/// A server of the host, for as long as the test.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Until it listens on its port of loopback.
    fn start(mut command: Command, port: u16) -> Self {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("installed by tests/run.sh");
        let server = Self { child, port };
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "{command:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_guest_in_the_network_of_a_company() {
    let story = story_of("network");
    let registry = registry(&story);
    let (proxy, log) = proxy(&story, registry.port);
    let tls = tls_server(&story);
    let node = story.status()["machine"]["name"].clone();
    let node = node.as_str().expect("a name");

    chapter("nothing of it is known to a machine that nobody told");
    story
        .run(&format!(
            "k3s-vm ssh curl -sS https://10.0.2.2:{}/",
            tls.port
        ))
        .exits(60);
    assert_eq!(environment(&story), "");

    chapter("what cannot be is refused, and changes nothing");
    refused(&story);

    chapter("the machine is told, and has it from its next start on");
    let mirrors = format!(
        "mirrors:\n  registry.test:\n    endpoint:\n      - http://10.0.2.2:{}\n",
        registry.port
    );
    fs::write(story.env.project.join("registries.yaml"), &mirrors).expect("written");
    story
        .run(&format!(
            "k3s-vm configure --http-proxy http://localhost:{0} --https-proxy http://127.0.0.1:{0} \
             --no-proxy .corp.example,192.0.2.0/24 --registries registries.yaml --ca-certificate ca.pem \
             --dns 192.0.2.53 --no-restart",
            proxy.port
        ))
        .succeeds()
        .says("from the next start on");
    assert_eq!(environment(&story), "");
    story.run("k3s-vm restart").succeeds();

    proxied(&story, node, proxy.port, &log);
    chapter("images of the host's registry");
    story
        .run("k3s-vm ssh cat /etc/rancher/k3s/registries.yaml")
        .prints(mirrors.trim_end());
    story
        .run("k3s-vm ssh stat -c %a /etc/rancher/k3s/registries.yaml")
        .prints("600");
    story
        .run(&format!(
            "k3s-vm ssh 'k3s ctr -n k8s.io images pull --plain-http 10.0.2.2:{}/app:1 >/dev/null'",
            registry.port
        ))
        .succeeds();
    story
        .run("k3s-vm image list")
        .succeeds()
        .says(&format!("10.0.2.2:{}/app:1", registry.port));

    chapter("a server that the company vouches for");
    story
        .run(&format!(
            "k3s-vm ssh curl -sS https://10.0.2.2:{}/",
            tls.port
        ))
        .succeeds()
        .says("Ciphers");
    chapter("its name server, for the guest and for what k3s gives its pods");
    story.run("k3s-vm ssh resolvectl dns").says("192.0.2.53");
    story
        .run("k3s-vm ssh grep -m 1 nameserver /run/systemd/resolve/resolv.conf")
        .prints("nameserver 192.0.2.53");
    taken_back(&story, &tls);
    story.run("k3s-vm reset --yes").succeeds();
}

/// Of k3s's own process: what is in a file may not have come to it.
fn environment(story: &Story) -> String {
    let told = story
        .run(
            "k3s-vm ssh 'tr \"\\0\" \"\\n\" </proc/$(systemctl show -p MainPID --value k3s)/environ | grep -i proxy || true'",
        )
        .succeeds();
    told.ended.stdout
}

fn proxied(story: &Story, node: &str, port: u16, log: &std::path::Path) {
    chapter(
        "k3s has the proxies, as the guest reaches them, and goes around them for what is near",
    );
    let environment = environment(story);
    let value = |name: &str| {
        let lines = environment.lines();
        let mut values = lines.filter_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        values.next().unwrap_or_default().to_owned()
    };
    assert_eq!(value("HTTP_PROXY"), format!("http://10.0.2.2:{port}"));
    assert_eq!(value("HTTPS_PROXY"), format!("http://10.0.2.2:{port}"));
    let direct = value("NO_PROXY");
    let direct: Vec<&str> = direct.split(',').collect();
    for near in [
        "localhost",
        "127.0.0.0/8",
        "::1",
        "10.0.2.0/24",
        "10.42.0.0/16",
        "10.43.0.0/16",
        ".svc",
        ".cluster.local",
        ".corp.example",
        "192.0.2.0/24",
        node,
    ] {
        assert!(direct.contains(&near), "{near}: {direct:?}");
    }
    let seen = |what: &str| fs::read_to_string(log).is_ok_and(|log| log.contains(what));
    assert!(!seen("registry.test"));
    story
        .run(
            "k3s-vm ssh 'env $(tr \"\\0\" \"\\n\" </proc/$(systemctl show -p MainPID --value k3s)/environ | grep _PROXY=) \
             k3s ctr images pull --plain-http registry.test/app:1 >/dev/null'",
        )
        .succeeds();
    assert!(seen("registry.test"), "{}", log.display());
    found("a registry that only the proxy knows was reached through it");
}

fn refused(story: &Story) {
    let before = fs::read(story.file("config")).expect("there");
    for (wrong, code, why) in [
        ("--http-proxy ftp://x", 2, "--http-proxy: it is no proxy"),
        ("--https-proxy http://me:secret@", 2, "it is no proxy"),
        ("--dns example.com", 2, "invalid"),
        ("--ca-certificate nothing.pem", 1, "nothing.pem"),
        (
            "--ca-certificate .k3s-vm/config",
            2,
            "there is no certificate in it",
        ),
        ("--registries nothing.yaml", 1, "nothing.yaml"),
        ("--registries ca.pem", 2, "ca.pem cannot be used"),
    ] {
        story
            .run(&format!("k3s-vm configure {wrong}"))
            .exits(code)
            .says(why)
            .never_says("secret");
    }
    assert_eq!(fs::read(story.file("config")).expect("there"), before);
}

fn taken_back(story: &Story, tls: &Server) {
    chapter("taken back, all of it is gone again");
    story
        .run(
            "k3s-vm configure --unset network.http_proxy,network.https_proxy,network.no_proxy,network.ca,network.dns \
             --unset k3s.registries --restart",
        )
        .succeeds();
    assert_eq!(environment(story), "");
    story
        .run(&format!(
            "k3s-vm ssh curl -sS https://10.0.2.2:{}/",
            tls.port
        ))
        .exits(60);
    story
        .run(
            "k3s-vm ssh '! test -e /etc/rancher/k3s/registries.yaml && ! test -e /etc/default/k3s'",
        )
        .succeeds();
    story
        .run("k3s-vm ssh cat /run/systemd/resolve/resolv.conf")
        .never_says("192.0.2.53")
        .says("nameserver 10.0.2.3");
}

/// Debian's docker-registry, with one image.
fn registry(story: &Story) -> Server {
    let (config, data) = (story.env.path("registry.yml"), story.env.path("registry"));
    let port = free_port();
    let text = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
        data.display()
    );
    fs::write(&config, text).expect("written");
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(config);
    let server = Server::start(command, port);
    Layout::new(story.env.path("app"))
        .image("1", "amd64", &[("app", b"an app".to_vec())])
        .written();
    story
        .run(&format!(
            "skopeo copy -q --dest-tls-verify=false oci:../app:1 docker://127.0.0.1:{port}/app:1"
        ))
        .succeeds();
    server
}

/// Debian's tinyproxy, and its log. It passes on what is asked of registry.test to the registry.
fn proxy(story: &Story, registry: u16) -> (Server, PathBuf) {
    let (config, log) = (story.env.path("proxy.conf"), story.env.path("proxy.log"));
    let port = free_port();
    let text = format!(
        "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nLogLevel Connect\nLogFile \"{}\"\n\
         Upstream http 127.0.0.1:{registry} \".test\"\n",
        log.display()
    );
    fs::write(&config, text).expect("written");
    let mut command = Command::new("tinyproxy");
    command.arg("-d").arg("-c").arg(config);
    (Server::start(command, port), log)
}

/// OpenSSL's own server, with a certificate of an authority that nobody knows.
fn tls_server(story: &Story) -> Server {
    story
        .run(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=company \
             -addext keyUsage=keyCertSign -keyout ../ca.key -out ca.pem 2>/dev/null && \
             openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=server -keyout ../server.key \
             -out ../server.csr 2>/dev/null && \
             openssl x509 -req -in ../server.csr -CA ca.pem -CAkey ../ca.key -CAcreateserial -days 2 \
             -extfile <(echo subjectAltName=IP:10.0.2.2) -out ../server.pem 2>/dev/null",
        )
        .succeeds();
    let port = free_port();
    let mut command = Command::new("openssl");
    command
        .args(["s_server", "-quiet", "-www", "-accept"])
        .arg(format!("127.0.0.1:{port}"))
        .arg("-cert")
        .arg(story.env.path("server.pem"))
        .arg("-key")
        .arg(story.env.path("server.key"));
    Server::start(command, port)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}
