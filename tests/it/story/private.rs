//! Files, secrets and open ports in the story.

use std::{collections::BTreeSet, fs, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use k3s_vm::k3s::Kubeconfig;

use crate::{
    support::{mode, names},
    transcript::{Story, chapter, found},
};

pub(super) fn files_are_private_and_ignored_by_git(story: &Story) {
    chapter("The VM's files are private, and git does not see them");
    let machine = story.file("");
    let kube = story.env.project.join(".kube");
    for directory in [&machine, &machine.join("bin"), &kube] {
        assert_eq!(mode(directory), 0o700, "{}", directory.display());
    }
    let expected = [
        "config",
        "console.log",
        "disk.qcow2",
        "host_ed25519",
        "id_ed25519",
        "qemu.log",
        "qemu.pid",
        "record.json",
        "seed.img",
        "stages.log",
    ];
    for name in expected {
        assert!(machine.join(name).is_file(), "{name}");
    }
    for directory in [&machine, &kube] {
        for path in names(directory).iter().map(|name| directory.join(name)) {
            assert!(
                path.is_dir() || mode(&path) & 0o077 == 0,
                "{}",
                path.display()
            );
        }
        let ignore = fs::read_to_string(directory.join(".gitignore"));
        assert_eq!(ignore.expect("a .gitignore"), "*\n");
    }
    found("directories are 0700, files are 0600, .gitignore says *");
    story.run("git status --porcelain").succeeds().prints("");
    assert!(!story.env.path("home/.kube/config").exists());
    found("~/.kube/config was not touched");
}

pub(super) fn secrets_in_the_guest_are_private(story: &Story) {
    chapter("What is secret in the guest is root's alone, and no password opens it");
    let search = "grep -rlsI 'BEGIN OPENSSH PRIVATE KEY' \
        /run/k3s-vm /run/cloud-init /var/lib/cloud /etc/ssh /dev/disk/by-id/virtio-seed";
    story
        .run(&format!("k3s-vm ssh \"{search}\""))
        .never_says("/run/k3s-vm/seed")
        .says("/etc/ssh/ssh_host_ed25519_key");
    let told = story
        .run(&format!(
            "k3s-vm ssh \"setpriv --reuid=nobody --regid=nogroup --clear-groups {search}\""
        ))
        .prints("");
    assert_ne!(told.ended.code, 0, "another user finds no key");
    story
        .run("k3s-vm ssh \"su nobody -s /bin/sh -c 'cat /dev/disk/by-id/virtio-seed'\"")
        .exits(1)
        .says("Permission denied");
    story
        .run("k3s-vm ssh \"sshd -T | grep -E '^(password|kbdinteractive)authentication'\"")
        .succeeds()
        .prints("passwordauthentication no\nkbdinteractiveauthentication no");
    story
        .run("k3s-vm ssh \"passwd --status --all | awk '\\$2 != \\\"L\\\"'\"")
        .succeeds()
        .prints("");
    found("every account's password is locked");
}

pub(super) fn only_loopback_listens(story: &Story) {
    chapter("Only this host reaches the VM");
    let status = story.status();
    let ports = ["api_port", "ssh_port"].map(|port| {
        let port = status["process"][port].as_u64().expect("a port");
        format!("127.0.0.1:{port}")
    });
    let told = story.env.ok(&["port", "list", "--json"]).stdout;
    let document: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let all = document["ports"].as_array().expect("a list").iter();
    let open = all.filter(|port| port["open"] == true);
    let open: BTreeSet<String> = open
        .filter_map(|port| port["address"].as_str().map(str::to_owned))
        .collect();
    assert!(ports.iter().all(|port| open.contains(port)), "{open:?}");
    assert_eq!(listening(story.qemu()), open, "as `port list` says");
    found(&format!(
        "QEMU listens on {} and nowhere else",
        open.into_iter().collect::<Vec<_>>().join(", ")
    ));
}

pub(super) fn secrets_are_in_no_output(story: &Story) {
    chapter("What is secret is in no log at any level, in no line of ps, and not in the status");
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).expect("there")).into_owned();
    let kubeconfig = read(&story.env.project.join(".kube/config"));
    let keys = ["id_ed25519", "host_ed25519"].map(|name| read(&story.file(name)));
    let token = ["ssh", "cat", "/var/lib/rancher/k3s/server/token"];
    let admin = Kubeconfig::parse(&kubeconfig).and_then(|it| it.credentials());
    let admin = String::from_utf8(admin.expect("sound").identity).expect("PEM");
    // The key comes behind the certificate.
    let key = &admin[admin.rfind("-----BEGIN ").expect("a key")..];
    let mut secrets = vec![
        story.env.ok(&token).stdout.trim().to_owned(),
        BASE64.encode(key),
    ];
    secrets.extend(
        key.lines()
            .filter(|line| line.len() == 64)
            .map(str::to_owned),
    );
    let squeezed: String = kubeconfig.split_whitespace().collect();
    assert!(squeezed.contains(&secrets[1]), "as the kubeconfig has it");
    // The first line is the same in all keys, the last one is short.
    let lines = keys.iter().flat_map(|pem| pem.lines().skip(2));
    secrets.extend(lines.filter(|line| line.len() == 70).map(str::to_owned));
    assert!(secrets.len() >= 8 && secrets.iter().all(|secret| secret.len() > 16));

    let mut told = vec![
        story.env.path("everything.log"),
        format!("/proc/{}/cmdline", story.qemu()).into(),
        format!("/proc/{}/environ", story.qemu()).into(),
    ];
    let names = [
        "config",
        "record.json",
        "console.log",
        "stages.log",
        "qemu.log",
    ];
    told.extend(names.map(|name| story.file(name)));
    let mut texts: Vec<String> = told.iter().map(|path| read(path)).collect();
    texts.push(story.status().to_string());
    assert!(texts[0].contains("qemu-system-x86_64") && texts[0].contains("DEBUG"));
    for secret in &secrets {
        assert!(!texts.iter().any(|text| text.contains(secret)));
    }
    found(&format!(
        "{} secrets, {} places, none in any",
        secrets.len(),
        texts.len()
    ));
}

/// The addresses on which a process listens, from proc(5): its sockets, and the kernel's tables of TCP sockets.
fn listening(pid: i32) -> BTreeSet<String> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("our own process");
    let sockets: BTreeSet<String> = descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            let link = link.to_string_lossy().into_owned();
            Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let tables = ["tcp", "tcp6"]
        .map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[3] == LISTEN && sockets.contains(fields[9]))
        .map(|fields| readable(fields[1]))
        .collect()
}

/// The kernel's TCP_LISTEN in hexadecimal.
const LISTEN: &str = "0A";

/// `0100007F:192B` is 127.0.0.1:6443; what is not IPv4 stays as it is.
fn readable(address: &str) -> String {
    let parts = address.split_once(':').and_then(|(host, port)| {
        let host = u32::from_str_radix(host, 16).ok()?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some((std::net::Ipv4Addr::from(host.to_ne_bytes()), port))
    });
    parts.map_or_else(
        || address.to_owned(),
        |(host, port)| format!("{host}:{port}"),
    )
}
