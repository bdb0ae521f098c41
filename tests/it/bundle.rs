//! `doctor --bundle`: the archive has everything that explains a fault, and no secrets.

use std::{fs, path::Path};

use crate::{
    stopped_vm::{NAME, add_stopped_vm},
    support::mode,
    transcript::{Story, chapter},
};

/// The decompressed bytes of an archive.
pub(crate) fn unpacked(archive: &Path) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(fs::File::open(archive).expect("opened"))
        .read_to_end(&mut bytes)
        .expect("gzip");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The secrets in the files of the VM.
const SECRETS: [&str; 9] = [
    "opensesame",
    "b3BlbnNlc2FtZTEyMzQ1Njc4OTBvcGVuc2VzYW1lQUJDREVG",
    "AAAAC3NzaC1lZDI1NTE5AAAAIOpensesame0123456789",
    "eyJhbGciOiJSUzI1NiIsImtpZCI6Im9wZW5zZXNhbWUxMjMifQ",
    "K10aa11bb22::server:0pensesame",
    "Q0VSVA==",
    "S0VZS0VZ",
    "QyNTUxOQAAACAplainlowercase",
    "plainlowercasehostkey",
];

#[test]
fn a_bundle_has_no_secrets() {
    let story = Story::begin("shop");
    has_the_host_without_a_vm(&story);
    chapter("Secrets in every file of the VM");
    add_stopped_vm(&story);
    write_secrets(&story);
    let told = story.run("k3s-vm doctor --bundle").succeeds();
    let name = told.ended.stdout.trim().to_owned();
    assert!(
        name.starts_with("k3s-vm-bundle-2") && name.ends_with("Z.tar.gz"),
        "{name}"
    );
    let archive = story.env.project.join(&name);
    assert_eq!(mode(&archive), 0o600);
    let text = unpacked(&archive);
    for secret in SECRETS {
        let at = text
            .find(secret)
            .map(|at| &text[at.saturating_sub(200)..at + 60]);
        assert_eq!(at, None, "{secret}");
    }
    explains_the_fault(&story, &name, &text);

    chapter("Nothing is overwritten");
    story
        .run(&format!("k3s-vm doctor --bundle {name}"))
        .exits(1)
        .says("hint: it is not overwritten");
    story
        .run("k3s-vm doctor --bundle --json")
        .exits(2)
        .says("cannot be used with");
}

fn has_the_host_without_a_vm(story: &Story) {
    chapter("No VM: the host alone");
    story
        .run("k3s-vm doctor --bundle ../none.tar.gz")
        .succeeds()
        .prints("../none.tar.gz");
    let none = unpacked(&story.env.path("none.tar.gz"));
    assert!(
        none.contains("QEMU") && none.contains("\"absent\""),
        "{none}"
    );
}

fn write_secrets(story: &Story) {
    let file = |name: &str| story.env.project.join(".k3s-vm").join(name);
    let [word, base64, ssh, jwt, token, ..] = SECRETS;
    let all = format!(
        "it began\nregistry https://ada:{word}@mirror/x\npassword: {word}\nDB_PASSWORD=\"{word} {word}\"\n\
         key {base64} end\nssh-ed25519 {ssh} ada\nAuthorization: Bearer {jwt}.{jwt}.x\nserver --token {token}\n\
         -----BEGIN EC PRIVATE KEY-----\n{word}\n{base64}\n-----END EC PRIVATE KEY-----\nit ended\n"
    );
    for name in [
        "console.log",
        "qemu.log",
        "stages.log",
        "idle.log",
        "suspended.json",
        "odd",
    ] {
        fs::write(file(name), &all).expect("written");
    }
    for (name, key) in [("id_ed25519", SECRETS[7]), ("host_ed25519", SECRETS[8])] {
        let pem = "-----BEGIN OPENSSH PRIVATE KEY-----";
        fs::write(
            file(name),
            format!("{pem}\n{key}\n-----END OPENSSH PRIVATE KEY-----\n"),
        )
        .expect("written");
    }
    let leaked = SECRETS[5..].join(", ") + "\n";
    fs::write(file("console.log"), all.clone() + &leaked).expect("written");
    let config =
        format!("# {word}:{word}@x password={word}\nk3s_mirror = \"https://ada:{word}@mirror/\"\n");
    fs::write(
        file("config"),
        config.replace(&format!("{word}:{word}@x"), "mine"),
    )
    .expect("written");
}

fn explains_the_fault(story: &Story, name: &str, text: &str) {
    let parts = story
        .run(&format!("tar -tzf {name} | cut -d / -f 2-"))
        .succeeds();
    for part in [
        "doctor",
        "host",
        "status.json",
        "machine/config",
        "machine/record.json",
        "machine/console.log",
        "machine/qemu.log",
        "machine/stages.log",
        "machine/idle.log",
        "machine/suspended.json",
        "machine/files",
    ] {
        assert!(parts.ended.stdout.lines().any(|it| it == part), "{part}");
    }
    for kept in [
        "it began",
        "it ended",
        "id_ed25519",
        "# mine",
        NAME,
        "https://***@mirror",
    ] {
        assert!(text.contains(kept), "{kept}: {text}");
    }
}
