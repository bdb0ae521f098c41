//! The network of a company: a proxy, a registry, an authority and name servers of its own, all of them real and on the
//! host, which the guest reaches as 10.0.2.2.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::images::Layout;
use crate::{
    support::{FreePort, free_port},
    transcript::{Story, Told, chapter, found},
};

/// A server of the host, for as long as the test.
struct Server {
    child: Child,
    port: FreePort,
}

impl Server {
    /// Until it listens on its port of loopback.
    fn start(mut command: Command, port: FreePort) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("installed by tests/run.sh");
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port.number)).is_err() {
            let runs = child.try_wait().expect("asked").is_none();
            let in_time = began.elapsed() < Duration::from_secs(60);
            assert!(runs && in_time, "{command:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the host has of the company's.
pub(super) struct Company {
    registry: Server,
    proxy: Server,
    /// The proxy's log.
    log: PathBuf,
    /// A server whose certificate is of `ca.pem`.
    tls: Server,
}

impl Company {
    pub(super) fn of(story: &Story) -> Self {
        let registry = registry(story);
        let (proxy, log) = proxy(story, &registry.port);
        let tls = tls_server(story);
        Self {
            registry,
            proxy,
            log,
            tls,
        }
    }

    pub(super) fn is_unknown_to(&self, story: &Story) {
        chapter("nothing of the company's network is known to a VM that is not told of it");
        // The host's loopback is closed.
        story.run(&self.asks_tls()).exits(7);
        assert_eq!(environment(story), "");
        story
            .run("k3s-vm ssh '! test -e /etc/rancher/k3s/registries.yaml && ! test -e /etc/default/k3s'")
            .succeeds();
        story
            .run("k3s-vm ssh cat /run/systemd/resolve/resolv.conf")
            .never_says("192.0.2.53")
            .says("nameserver 10.0.2.3");
    }

    pub(super) fn configures(&self, story: &Story) -> Told {
        chapter("invalid settings are refused, and the others reach the VM");
        refused(story);
        let port = &self.proxy.port;
        fs::write(story.env.project.join("registries.yaml"), self.mirrors()).expect("written");
        story.run(&format!(
            "k3s-vm configure --http-proxy http://localhost:{port} --https-proxy http://127.0.0.1:{port} \
             --no-proxy .corp.example,192.0.2.0/24 --registries registries.yaml --ca-certificate ca.pem \
             --dns 192.0.2.53 --dns 10.0.2.3 --host-access {} --restart",
            self.tls.port
        ))
    }

    pub(super) fn is_known_to(&self, story: &Story) {
        self.proxied(story);
        chapter("images of the host's registry");
        story
            .run("k3s-vm ssh cat /etc/rancher/k3s/registries.yaml")
            .prints(self.mirrors().trim_end());
        story
            .run("k3s-vm ssh stat -c %a /etc/rancher/k3s/registries.yaml")
            .prints("600");
        let image = format!("10.0.2.2:{}/app:1", self.registry.port);
        story
            .run(&format!(
                "k3s-vm ssh 'k3s ctr -n k8s.io images pull --plain-http {image} >/dev/null'"
            ))
            .succeeds();
        story.run("k3s-vm image list").succeeds().says(&image);

        chapter("a server with a certificate of the company's CA");
        story.run(&self.asks_tls()).succeeds().says("Ciphers");
        chapter("its name server, for the guest and for what k3s gives its pods");
        story.run("k3s-vm ssh resolvectl dns").says("192.0.2.53");
        story
            .run("k3s-vm ssh cat /run/systemd/resolve/resolv.conf")
            .says("nameserver 192.0.2.53\nnameserver 10.0.2.3");
    }

    fn mirrors(&self) -> String {
        format!(
            "mirrors:\n  registry.test:\n    endpoint:\n      - http://10.0.2.2:{}\n",
            self.registry.port
        )
    }

    fn asks_tls(&self) -> String {
        format!("k3s-vm ssh curl -sS https://10.0.2.2:{}/", self.tls.port)
    }

    fn proxied(&self, story: &Story) {
        chapter(
            "k3s has the proxies, as the guest reaches them, and goes around them for what is near",
        );
        let (environment, port) = (environment(story), &self.proxy.port);
        let node = story.status()["machine"]["name"].clone();
        let node = node.as_str().expect("a name");
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
        let seen = |what: &str| fs::read_to_string(&self.log).is_ok_and(|log| log.contains(what));
        assert!(!seen("registry.test"));
        story
            .run(
                "k3s-vm ssh 'env $(tr \"\\0\" \"\\n\" </proc/$(systemctl show -p MainPID --value k3s)/environ | grep _PROXY=) \
                 k3s ctr images pull --plain-http registry.test/app:1 >/dev/null'",
            )
            .succeeds();
        assert!(seen("registry.test"), "{}", self.log.display());
        found("a registry that only the proxy knows was reached through it");
    }
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

fn refused(story: &Story) {
    let before = fs::read(story.file("config")).expect("there");
    for (wrong, code, why) in [
        ("--http-proxy ftp://x", 2, "--http-proxy: invalid proxy"),
        ("--https-proxy http://me:secret@", 2, "invalid proxy"),
        ("--dns example.com", 2, "invalid"),
        ("--ca-certificate nothing.pem", 1, "nothing.pem"),
        (
            "--ca-certificate .k3s-vm/config",
            2,
            "it contains no certificate",
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
    let port = &server.port;
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
fn proxy(story: &Story, registry: &FreePort) -> (Server, PathBuf) {
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

/// OpenSSL's own server, with a certificate of an unknown CA.
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
