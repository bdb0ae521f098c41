use std::{
    fs,
    io::{self, Cursor},
    os::unix::fs::PermissionsExt,
};

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;
use url::Url;

use crate::{
    base::{Digest, progress::Silent},
    image::{Cache, ImageSource, Known},
    machine::{MachineError, cache::archive::*},
};

const URL: &str = "http://127.0.0.1:9/disk.img";

struct Host {
    directory: TempDir,
    cache: Cache,
}

/// A host whose cache has nothing.
fn host() -> Host {
    let directory = tempfile::tempdir().expect("temporary directory");
    let cache = Cache::new(directory.path().join("a/cache"));
    Host { directory, cache }
}

/// The smallest raw disk that passes.
fn disk() -> Vec<u8> {
    let mut disk = vec![7; 2 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// A host whose cache has an image, a release and what is known of them.
async fn stocked() -> Host {
    let host = host();
    let cache = &host.cache;
    let lay_down = |bytes: &[u8]| {
        let path = cache.directory("partial").expect("made").join("x");
        fs::write(&path, bytes).expect("written");
        (path, Digest::of(bytes))
    };
    let (path, digest) = lay_down(&disk());
    let admitted = cache.admit_image(path, digest, "a test").await;
    admitted.expect("a disk");
    let from = URL.to_owned();
    let known = Known {
        from,
        digest,
        verified: true,
    };
    cache.learn_image(&known).expect("learned");
    for (name, mode) in [("k3s", 0o755), ("k3s-airgap-images-amd64.tar.zst", 0o444)] {
        let (path, digest) = lay_down(name.as_bytes());
        let admitted = cache.admit_file(path, ("k3s", digest, name), mode).await;
        admitted.expect("put there");
    }
    cache
        .learn_text(Digest::of(b"sums"), "the sums")
        .expect("learned");
    host
}

fn exported(host: &Host) -> Vec<u8> {
    let list = collect_all(&host.cache).expect("there is something");
    let mut archive = Vec::new();
    write(&host.cache, &list, &mut archive, &Silent).expect("written");
    archive
}

async fn taken(host: &Host, archive: &[u8]) -> Result<Vec<(ArchiveEntry, bool)>, MachineError> {
    let archive = Cursor::new(archive.to_vec());
    import(&host.cache, archive, std::sync::Arc::new(Silent)).await
}

/// The files below a host's directory, but for locks.
fn files(host: &Host) -> Vec<String> {
    fn below(path: &std::path::Path, all: &mut Vec<String>) {
        for entry in path.read_dir().into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                below(&entry.path(), all);
            } else {
                all.push(entry.path().display().to_string());
            }
        }
    }
    let mut all = Vec::new();
    below(host.directory.path(), &mut all);
    all.retain(|path| !path.contains("/locks/"));
    all.sort();
    let root = format!("{}/", host.directory.path().display());
    all.iter().map(|it| it.replace(&root, "")).collect()
}

#[tokio::test]
async fn an_import_restores_an_export() {
    let (here, there) = (stocked().await, host());
    let archive = exported(&here);
    let new = taken(&there, &archive).await.expect("sound");
    assert_eq!(new.len(), 3);
    assert!(new.iter().all(|(_, was_there)| !was_there));
    assert_eq!(files(&there), files(&here));

    let url = ImageSource::Url(URL.parse::<Url>().expect("a URL"));
    let image = there.cache.ensure_image(&url, None, &Silent).await;
    let image = image.expect("nobody listens there, and nobody is asked");
    assert_eq!(fs::read(&image.path).expect("read"), disk());
    let binary = there.cache.file_path("k3s", Digest::of(b"k3s"), "k3s");
    let mode = |path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&image.path), mode(&binary)), (0o444, 0o755));

    let again = taken(&there, &archive).await.expect("sound");
    assert!(again.iter().all(|(_, was_there)| *was_there));
    // What is there and torn is replaced.
    fs::remove_file(&binary).expect("removed");
    fs::write(&binary, "k").expect("torn");
    taken(&there, &archive).await.expect("sound");
    assert_eq!(fs::read(&binary).expect("read"), b"k3s");
    assert_eq!(files(&there), files(&here));
}

/// What an archive says of origins is not what this host has seen.
#[tokio::test]
async fn an_origin_from_an_archive_is_marked() {
    let (here, there) = (stocked().await, host());
    let digest = Digest::of(&disk());
    let own = here.cache.remember_origin(digest, URL, false);
    own.expect("written");
    taken(&there, &exported(&here)).await.expect("sound");
    let origin = |host: &Host| {
        let origin = host.cache.origin(digest).expect("known");
        (origin.from, origin.imported)
    };
    assert_eq!(origin(&there), (URL.to_owned(), true));
    // What is carried further stays what an archive says.
    let further = host();
    taken(&further, &exported(&there)).await.expect("sound");
    assert_eq!(origin(&further), (URL.to_owned(), true));
    // An origin that this host has verified is kept, whatever an archive says.
    let (mirror, lie) = ("https://mirror/disk.img", "https://lie/disk.img");
    for (from, imported) in [(mirror, false), (lie, true)] {
        let written = there.cache.remember_origin(digest, from, imported);
        written.expect("written");
        assert_eq!(origin(&there), (mirror.to_owned(), false));
    }
    taken(&there, &exported(&further)).await.expect("sound");
    assert_eq!(origin(&there), (mirror.to_owned(), false));
}

#[tokio::test]
async fn a_truncated_archive_changes_nothing() {
    let (here, there) = (stocked().await, host());
    let archive = exported(&here);
    let whole = archive.len() - 1024;
    let cuts = (0..whole)
        .step_by(100_003)
        .chain([1, 511, 512, 600, whole - 513]);
    for cut in cuts {
        let error = taken(&there, &archive[..cut])
            .await
            .expect_err("cut off")
            .to_string();
        let told = error.contains("truncated") || error.contains("not an archive");
        assert!(told, "{cut}: {error}");
        assert_eq!(files(&there), Vec::<String>::new(), "{cut}");
    }
}

#[tokio::test]
async fn a_changed_file_is_not_exported() {
    let here = stocked().await;
    let list = collect_all(&here.cache).expect("there is something");
    let binary = here.cache.file_path("k3s", Digest::of(b"k3s"), "k3s");
    for bytes in ["k4s", "k"] {
        fs::remove_file(&binary).expect("removed");
        fs::write(&binary, bytes).expect("written");
        let error = write(&here.cache, &list, io::sink(), &Silent).expect_err("changed");
        assert!(
            error
                .to_string()
                .ends_with("/k3s has changed since it was verified"),
            "{error}"
        );
    }
    let error = collect_all(&host().cache).expect_err("nothing");
    assert!(
        error
            .to_string()
            .contains("has no image and no release yet")
    );
}

/// An entry that no tar program writes.
fn entry(name: &str, kind: EntryType, content: &[u8]) -> (Header, Vec<u8>) {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    if kind != EntryType::Regular {
        header.set_link_name("/etc").expect("short");
    }
    header.set_cksum();
    (header, content.to_vec())
}

fn archive_of(entries: Vec<(Header, Vec<u8>)>) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (header, content) in entries {
        archive
            .append(&header, content.as_slice())
            .expect("written");
    }
    archive.into_inner().expect("written")
}

fn list(files: Value) -> (Header, Vec<u8>) {
    let list = json!({ "schema": 1, "files": files, "images": [], "texts": [] });
    entry(
        "k3s-vm-cache.json",
        EntryType::Regular,
        list.to_string().as_bytes(),
    )
}

#[tokio::test]
async fn a_hostile_archive_writes_nothing() {
    let plain = EntryType::Regular;
    let digest = Digest::of(b"k3s").to_string();
    let path = format!("files/{digest}");
    let one = |size: u64| json!({ "kind": "k3s", "name": "k3s", "size": size, "sha256": digest });
    let right = || entry(&path, plain, b"k3s");
    let with = |more: Vec<(Header, Vec<u8>)>| {
        let mut all = vec![list(json!([one(3)]))];
        all.extend(more);
        archive_of(all)
    };
    let text = |text: &str| archive_of(vec![entry("k3s-vm-cache.json", plain, text.as_bytes())]);
    let huge = archive_of(vec![list(json!([one(u64::MAX)])), right()]);
    let two = archive_of(vec![list(json!([one(3), one(3)])), right()]);
    let mut odd = one(3);
    odd["name"] = "a\u{1b}[2Jb".into();
    let mut disguised = one(3);
    disguised["origin"] = "https://a\u{1b}[2Jb".into();
    let foreign = json!({ "schema": 1, "files": [one(3)], "texts": [],
        "images": [{ "from": "u", "digest": digest, "verified": true }] });
    for (archive, says) in [
        (Vec::new(), "not an archive"),
        (b"\x1f\x8b\x08 something packed".to_vec(), "not an archive"),
        (vec![b'x'; 4096], "not an archive"),
        (archive_of(vec![right()]), "not an archive"),
        (
            archive_of(vec![entry("k3s-vm-cache.json", EntryType::Symlink, b"")]),
            "not an archive",
        ),
        (text("{"), "list is damaged"),
        (text("{\"schema\": 1}"), "list is damaged"),
        (text("{\"schema\": 2, \"files\": 7}"), "the layout 2"),
        (text(&foreign.to_string()), "u is not one of its files"),
        (text(&" ".repeat(9 << 20)), "it is of 9437184 bytes"),
        (archive_of(vec![list(json!([odd]))]), "is not a valid name"),
        (
            archive_of(vec![list(json!([disguised]))]),
            "is not a valid name",
        ),
        (huge, "not enough space"),
        (two, "k3s twice"),
        (with(vec![]), "truncated in k3s"),
        (with(vec![right(), right()]), "k3s twice"),
        (with(vec![entry(&path, plain, b"k4s")]), "k3s is damaged"),
        (
            with(vec![entry(&path, plain, b"k3s4")]),
            "k3s is of 4 bytes in the archive, and of 3",
        ),
        (with(vec![entry(&path, plain, b"")]), "k3s is of 0 bytes"),
        (
            with(vec![entry("../../x", plain, b"k3s"), right()]),
            "\"../../x\", which its list",
        ),
        (
            with(vec![entry("/tmp/k3s-vm-x", plain, b"k3s")]),
            "\"/tmp/k3s-vm-x\", which",
        ),
        (
            with(vec![right(), entry("images/x", plain, b"k3s")]),
            "\"images/x\", which its list",
        ),
        (
            with(vec![entry(&path, EntryType::Symlink, b"")]),
            "not a regular file",
        ),
        (
            with(vec![entry(&path, EntryType::Link, b"")]),
            "not a regular file",
        ),
        (
            with(vec![entry("files", EntryType::Directory, b"")]),
            "not a regular file",
        ),
        (
            with(vec![
                entry("x", EntryType::GNULongName, b"../../x"),
                right(),
            ]),
            "not a regular file",
        ),
        (
            with(vec![entry("x", EntryType::GNUSparse, b""), right()]),
            "not a regular file",
        ),
    ] {
        let there = host();
        let error = taken(&there, &archive).await.expect_err(says).to_string();
        assert!(error.contains(says), "{says}: {error}");
        assert_eq!(files(&there), Vec::<String>::new(), "{says}");
    }
    assert!(!std::path::Path::new("/tmp/k3s-vm-x").exists());
    let image = json!({ "kind": "base-image", "name": "no disk", "size": 3, "sha256": digest });
    let there = host();
    let archive = archive_of(vec![list(json!([image])), right()]);
    let error = taken(&there, &archive)
        .await
        .expect_err("no disk")
        .to_string();
    assert!(error.contains("no disk is not a disk image"), "{error}");
    assert_eq!(files(&there), Vec::<String>::new());
}

/// What was verified from its origin is not replaced by what an archive says of it.
#[tokio::test]
async fn an_archive_that_contradicts_the_cache_changes_nothing() {
    let (here, there) = (stocked().await, host());
    let [theirs, ours] = ["theirs", "ours"].map(|text| Digest::of(text.as_bytes()));
    let key = Digest::of(b"a release");
    let checksums = |digest| format!("{digest}  k3s\n");
    let other = [disk(), vec![0; 512]].concat();
    let other_digest = Digest::of(&other);
    let path = there.cache.directory("partial").expect("made").join("x");
    fs::write(&path, &other).expect("written");
    let admitted = there.cache.admit_image(path, other_digest, "a test").await;
    admitted.expect("a disk");
    let mut known = Known {
        from: URL.to_owned(),
        digest: other_digest,
        verified: true,
    };
    there.cache.learn_image(&known).expect("learned");
    let before = files(&there);
    let archive = exported(&here);
    let error = taken(&there, &archive).await.expect_err("refused");
    let both = [Digest::of(&disk()), other_digest].map(|it| it.to_string());
    for word in [URL, &both[0], &both[1]] {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    assert_eq!(files(&there), before);
    // What came unverified is replaced.
    known.verified = false;
    there.cache.learn_image(&known).expect("learned");
    here.cache
        .learn_text(key, &checksums(theirs))
        .expect("learned");
    there
        .cache
        .learn_text(key, &checksums(ours))
        .expect("learned");
    let before = files(&there);
    let archive = exported(&here);
    let error = taken(&there, &archive).await.expect_err("refused");
    for word in ["k3s", &theirs.to_string(), &ours.to_string()] {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    assert_eq!(files(&there), before);
    let text = there.cache.text_path(key);
    assert_eq!(fs::read_to_string(&text).expect("there"), checksums(ours));
    fs::remove_file(text).expect("removed");
    taken(&there, &archive)
        .await
        .expect("no contradiction is left");
}
