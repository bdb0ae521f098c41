//! What makes a machine this one and no other, and where it must not be found.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::Path,
    process::Command,
};

use aho_corasick::AhoCorasick;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use k3s_vm::k3s::Kubeconfig;
use rustix::io::Errno;

use crate::{
    support::names,
    transcript::{Story, chapter, found},
};

pub(crate) type Identity = BTreeMap<&'static str, String>;

/// What makes the machine this one and no other.
pub(crate) fn identity(story: &Story) -> Identity {
    let read = |path: &Path| fs::read_to_string(path).expect("readable");
    let guest = |path: &str| story.env.ok(&["ssh", "cat", path]).stdout.trim().to_owned();
    let record: serde_json::Value =
        serde_json::from_str(&read(&story.file("record.json"))).expect("JSON");
    let text = |name: &str| record[name].as_str().expect("a text").to_owned();
    let kubeconfig =
        Kubeconfig::parse(&read(&story.env.project.join(".kube/config"))).expect("sound");
    let credentials = kubeconfig.credentials().expect("sound");
    let long = |text: &str| {
        text.lines()
            .rfind(|it| it.len() == 64 || it.len() == 70)
            .expect("a line of it")
            .to_owned()
    };
    BTreeMap::from([
        ("name", text("name")),
        ("uuid", text("uuid")),
        ("machine-id", guest("/etc/machine-id")),
        (
            "host key",
            guest("/etc/ssh/ssh_host_ed25519_key.pub")
                .split(' ')
                .nth(1)
                .expect("a key")
                .to_owned(),
        ),
        ("private host key", long(&read(&story.file("host_ed25519")))),
        ("private key", long(&read(&story.file("id_ed25519")))),
        ("token", guest("/var/lib/rancher/k3s/server/token")),
        (
            "certificate",
            long(&String::from_utf8_lossy(&credentials.identity)),
        ),
    ])
}

#[track_caller]
pub(crate) fn differs(one: &Identity, other: &Identity) {
    for (what, value) in one {
        assert_ne!(other[what], *value, "{what}");
    }
    found("name, number, keys, certificates, token: all its own");
}

/// Nothing of the machine's identity is in what its setup has left for others: all that the published disk shows to a
/// guest, and all that the guest had in its memory, byte by byte. The machine is stopped or suspended.
pub(crate) fn is_in_nothing_published(story: &Story, identity: &Identity) {
    chapter("Nothing on the prepared disk and in the prepared memory is the first VM's");
    let folder = story.env.cache.join("prepared");
    let uuid = identity["uuid"].split('-').next().expect("a first part");
    let own = |name: &String| name.ends_with(&format!("-{uuid}.qcow2"));
    let disk = names(&folder).into_iter().find(own);
    let prepared = folder.join(disk.expect("a disk"));
    let needles: Vec<Vec<u8>> = identity.values().flat_map(|value| forms(value)).collect();
    assert!(needles.len() > 30, "{}", needles.len());
    let nothing = BTreeSet::new();
    assert_eq!(on_disk(story, &prepared, &needles), nothing);
    let memory = prepared.with_extension("memory");
    assert_eq!(occurring(&memory, &needles), nothing);
    let kernel = vec![b"Linux version ".to_vec()];
    assert_eq!(occurring(&memory, &kernel).len(), 1, "memory is searched");
    let told = ["name", "machine-id", "host key"].map(|what| identity[what].clone().into_bytes());
    let own = on_disk(story, &story.file("disk.qcow2"), &told);
    assert_eq!(own.len(), told.len(), "they would be found: {own:?}");
    found(&format!(
        "{} forms of what is its own, none anywhere",
        needles.len()
    ));
}

/// As text, in base64 at any offset, and a number as its bytes.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![value.as_bytes().to_vec()];
    for skipped in 0..3.min(value.len()) {
        let encoded = BASE64.encode(&value.as_bytes()[skipped..]);
        // The end depends on what follows.
        let sure = (value.len() - skipped) / 3 * 4;
        if sure >= 8 {
            forms.push(encoded.as_bytes()[..sure].to_vec());
        }
    }
    let digits: String = value.chars().filter(|it| !"-:".contains(*it)).collect();
    if digits.len().is_multiple_of(2) && digits.chars().all(|it| it.is_ascii_hexdigit()) {
        let bytes = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
        let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().expect("digits");
        forms.push(bytes);
        forms.push(digits.into_bytes());
    }
    forms
}

/// Which of them there are in what a guest would see of the disk.
fn on_disk(story: &Story, disk: &Path, needles: &[Vec<u8>]) -> BTreeSet<String> {
    let raw = story.env.path("raw");
    let converted = Command::new("qemu-img")
        .args(["convert", "-O", "raw"])
        .args([disk, &raw])
        .status();
    assert!(converted.expect("qemu-img runs").success());
    let found = occurring(&raw, needles);
    fs::remove_file(raw).expect("removed");
    found
}

/// Which of them there are in a file. Its holes are not read.
fn occurring(path: &Path, needles: &[Vec<u8>]) -> BTreeSet<String> {
    let searched = AhoCorasick::new(needles).expect("few and short");
    let mut file = File::open(path).expect("readable");
    let (mut found, mut end) = (BTreeSet::new(), 0);
    loop {
        let start = match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(end)) {
            Err(Errno::NXIO) => return found,
            start => start.expect("a file system that knows holes"),
        };
        end = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(start)).expect("as before");
        file.seek(SeekFrom::Start(start)).expect("there");
        let data = (&file).take(end - start);
        for one in searched.stream_find_iter(data) {
            let needle = &needles[one.expect("readable").pattern().as_usize()];
            found.insert(String::from_utf8_lossy(needle).into_owned());
        }
    }
}
