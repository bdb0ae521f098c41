use std::io;

use serde_json::{Value, json};
use tar::{EntryType, Header};

use crate::{
    base::{Digest, Size},
    k3s::images::{
        Listed,
        archive::*,
        contents::{INDEX, LAYOUT, MANIFEST},
        parts::plain,
    },
};

const LOADING: &str = "k3s-vm.invalid/loading:x-";

const NAME: &str = "docker.io/library/app:dev";

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", Digest::of(content))
}

fn blob(content: &[u8]) -> (String, Vec<u8>) {
    let path = format!("blobs/{}", digest(content).replace(':', "/"));
    (path, content.to_vec())
}

fn described(content: &[u8]) -> Value {
    json!({ "digest": digest(content), "size": content.len() })
}

fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_slice())
            .expect("in memory");
    }
    tar.into_inner().expect("in memory")
}

/// The archive of one image in OCI's layout, its layer last but for what names it.
fn layout(architecture: &str, name: Option<&str>) -> Vec<(String, Vec<u8>)> {
    let layer = b"the layer".repeat(100);
    let config = json!({ "architecture": architecture, "os": "linux" }).to_string();
    let manifest = json!({ "config": described(config.as_bytes()), "layers": [described(&layer)] });
    let manifest = manifest.to_string();
    let mut target = described(manifest.as_bytes());
    if let Some(name) = name {
        target["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    }
    let index = json!({ "schemaVersion": 2, "manifests": [target] }).to_string();
    vec![
        blob(manifest.as_bytes()),
        blob(config.as_bytes()),
        blob(&layer),
        (LAYOUT.to_owned(), b"{}".to_vec()),
        (INDEX.to_owned(), index.into_bytes()),
    ]
}

fn guest() -> Guest {
    Guest {
        digests: HashSet::new(),
        images: Vec::new(),
        room: Size::mib(1),
    }
}

/// What comes of an archive, and the files that are sent.
fn passed(archive: &[u8], guest: &Guest) -> (Result<Passed, ArchiveError>, Vec<String>) {
    let mut out = Vec::new();
    let passed = pass(archive, guest, None, LOADING, &mut out);
    let mut tar = tar::Archive::new(out.as_slice());
    let entries = tar.entries().expect("begun").map_while(Result::ok);
    let names = entries
        .map(|it| plain(&it.path().expect("a path")))
        .collect();
    (passed, names)
}

#[test]
fn only_new_layers_are_sent_again() {
    let files = layout("amd64", Some("app:dev"));
    let mut guest = guest();
    let (first, sent) = passed(&tar(&files), &guest);
    let first = first.expect("it is sound");
    assert_eq!(first.images[0].name.as_str(), NAME);
    assert_eq!(first.images[0].loading, "k3s-vm.invalid/loading:x-0");
    assert_eq!(first.left_out, Size::bytes(0));
    assert_eq!(sent.len(), 5);
    assert_eq!(sent[3..], [LAYOUT, INDEX]);

    guest.digests.insert(digest(&files[2].1));
    let (second, sent) = passed(&tar(&files), &guest);
    assert_eq!(
        second.expect("sound").left_out,
        Size::bytes(files[2].1.len() as u64)
    );
    assert!(!sent.contains(&files[2].0), "{sent:?}");

    guest
        .digests
        .extend(files[..2].iter().map(|(_, content)| digest(content)));
    let (_, sent) = passed(&tar(&files), &guest);
    assert_eq!(sent, [LAYOUT, INDEX], "the name is new");
    guest.images.push(Listed {
        name: NAME.to_owned(),
        digest: first.images[0].digest.clone(),
        size: Size::bytes(0),
    });
    let (third, sent) = passed(&tar(&files), &guest);
    assert_eq!(third.expect("sound").sent, Size::bytes(0));
    assert_eq!(sent, [""; 0]);
}

#[test]
fn compressed_archives_are_decompressed() {
    let files = tar(&layout("amd64", Some("app:dev")));
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(&files).expect("in memory");
    let gzip = packer.finish().expect("in memory");
    let zstd = ruzstd::encoding::compress_to_vec(
        files.as_slice(),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    // As pzstd and `zstd --append` write them: several frames, and ones that say something else.
    let (begin, end) = files.split_at(700);
    let frame = |part: &[u8]| {
        ruzstd::encoding::compress_to_vec(part, ruzstd::encoding::CompressionLevel::Fastest)
    };
    let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"any"].concat();
    let frames = [&skipped, &frame(begin), &skipped, &frame(end), &skipped]
        .map(Vec::as_slice)
        .concat();
    for packed in [gzip, zstd, frames] {
        let (passed, sent) = passed(&packed, &guest());
        assert_eq!(passed.expect("sound").images[0].name.as_str(), NAME);
        assert_eq!(sent.len(), 5);
    }
}

/// As docker before 25 and podman save: names that say nothing, a layer that is a link to another one.
#[test]
fn the_docker_layout_is_converted() {
    let config = br#"{"architecture":"amd64","os":"linux"}"#.to_vec();
    let manifest = json!([{ "Config": "c.json", "RepoTags": ["app:dev", "app:2"], "Layers": ["a/layer.tar", "b/layer.tar"] }]);
    let mut builder = tar::Builder::new(Vec::new());
    let mut append = |path: &str, content: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        builder
            .append_data(&mut header, path, content)
            .expect("in memory");
    };
    append("c.json", &config);
    append("a/layer.tar", b"layer");
    append("a/VERSION", b"1.0");
    append("a/json", b"{}");
    append(MANIFEST, manifest.to_string().as_bytes());
    let mut link = Header::new_gnu();
    link.set_entry_type(EntryType::Symlink);
    link.set_size(0);
    builder
        .append_link(&mut link, "b/layer.tar", "../a/layer.tar")
        .expect("in memory");
    let archive = builder.into_inner().expect("in memory");

    let (passed, sent) = passed(&archive, &guest());
    let images = passed.expect("sound").images;
    assert_eq!(images[0].name.as_str(), NAME);
    assert_eq!(images[1].name.as_str(), "docker.io/library/app:2");
    assert_eq!(images[0].digest, images[1].digest);
    let manifest = format!("blobs/{}", images[0].digest.replace(':', "/"));
    assert!(sent.contains(&manifest), "{sent:?}");
    assert!(!sent.contains(&"a/json".to_owned()), "{sent:?}");
}

#[test]
fn a_truncated_archive_names_no_image() {
    let whole = tar(&layout("amd64", Some("app:dev")));
    let end = whole.len() - 1024;
    for length in (0..end).step_by(100) {
        let (passed, sent) = passed(&whole[..length], &guest());
        assert!(passed.is_err(), "after {length} bytes: {passed:?}");
        assert!(!sent.contains(&INDEX.to_owned()), "after {length} bytes");
    }
}

#[test]
fn unusable_archives_are_explained() {
    let said = |archive: &[u8], guest: &Guest| {
        let (passed, sent) = passed(archive, guest);
        assert!(!sent.contains(&INDEX.to_owned()));
        passed.expect_err("it cannot be used").to_string()
    };
    let guest = guest();
    assert_eq!(said(b"", &guest), "it is empty");
    assert!(
        said(&b"MZ is no archive".repeat(99), &guest)
            .contains("it is not a tar archive, plain or compressed with gzip or zstd")
    );
    let other = tar(&[("README".to_owned(), b"text".to_vec())]);
    assert!(
        said(&other, &guest)
            .contains("the archive contains no image that index.json or manifest.json names")
    );
    let arm = tar(&layout("arm64", Some("app:dev")));
    assert_eq!(
        said(&arm, &guest),
        "the image is for linux/arm64, and the node needs linux/amd64"
    );
    assert_eq!(
        said(&tar(&layout("amd64", Some("dev"))), &guest),
        "its image has no name"
    );

    let mut files = layout("amd64", Some("app:dev"));
    files[2].1[0] ^= 1;
    assert!(said(&tar(&files), &guest).contains("does not match its digest"));
    files.remove(2);
    assert!(said(&tar(&files), &guest).contains(", a part of its image"));
    let full = Guest {
        room: Size::bytes(700),
        ..guest
    };
    let whole = tar(&layout("amd64", Some("app:dev")));
    assert!(said(&whole, &full).contains("its next layer takes 900 B"));
}

#[test]
fn one_name_is_for_one_image() {
    let mut files = layout("amd64", None);
    let given: Reference = "team/app:3".parse().expect("a name");
    let named = |files: &[(String, Vec<u8>)]| {
        pass(
            tar(files).as_slice(),
            &guest(),
            Some(&given),
            LOADING,
            io::sink(),
        )
    };
    assert_eq!(named(&files).expect("sound").images[0].name, given);
    let other = layout("amd64", Some("other:1"));
    let config = json!({ "architecture": "amd64", "os": "linux", "author": "b" }).to_string();
    let manifest = json!({ "config": described(config.as_bytes()), "layers": [] }).to_string();
    let mut index: Value = serde_json::from_slice(&other[4].1).expect("JSON");
    let second = described(manifest.as_bytes());
    index["manifests"]
        .as_array_mut()
        .expect("a list")
        .push(second);
    files[4].1 = index.to_string().into_bytes();
    files.push(blob(config.as_bytes()));
    files.push(blob(manifest.as_bytes()));
    let error = named(&files).expect_err("there are two").to_string();
    assert_eq!(error, "the archive has 2 images, and one name was given");
}

/// A reader that gives a byte at a time, as a pipe may.
struct Slow<'a>(&'a [u8]);

impl io::Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let some = into.len().min(1);
        io::Read::read(&mut self.0, &mut into[..some])
    }
}

/// An archive of `docker save`, whose layer is packed and called as `layer`.
fn saved(manifest: &Value, layer: &str) -> Vec<u8> {
    let config = br#"{"architecture":"amd64"}"#.to_vec();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(b"the layer").expect("in memory");
    tar(&[
        ("config.json".to_owned(), config),
        (layer.to_owned(), packer.finish().expect("in memory")),
        (MANIFEST.to_owned(), manifest.to_string().into_bytes()),
    ])
}

#[test]
fn accepts_what_containerd_accepts() {
    let one = |layer: &str| json!({ "Config": "config.json", "RepoTags": ["app:dev"], "Layers": [layer] });
    let nameless = json!({ "Config": "config.json", "RepoTags": null, "Layers": ["layers/0"] });
    for (what, manifest, layer) in [
        (
            "a layer called anything",
            json!([one("layers/0")]),
            "layers/0",
        ),
        ("absolute names", json!([one("/layers/0")]), "layers/0"),
        (
            "a path with dots",
            json!([one("./a/../layers/0")]),
            "./layers/0",
        ),
        (
            "one without a name",
            json!([nameless, one("layers/0")]),
            "layers/0",
        ),
    ] {
        let archive = saved(&manifest, layer);
        let mut out = Vec::new();
        let passed = pass(Slow(&archive), &guest(), None, LOADING, &mut out);
        let passed = passed.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(passed.images.len(), 1, "{what}");
        assert_eq!(
            passed.nameless,
            manifest.as_array().expect("a list").len() - 1,
            "{what}"
        );
        // However slowly it comes, it is known how the layer is packed.
        let text = String::from_utf8_lossy(&out).into_owned();
        assert!(text.contains("layer.v1.tar+gzip"), "{what}: {text}");
    }

    let mut files = layout("amd64", Some("app:dev"));
    let config = b"\n  {\"architecture\":\"AMD64\",\"os\":null}";
    let layer = files[2].1.clone();
    let manifest =
        json!({ "config": described(config), "layers": [described(&layer)], "annotations": null });
    let manifest = format!(" \r\n\t{manifest}");
    let variant = json!({ "digest": digest(b"not there"), "size": 9, "annotations": null,
        "platform": { "os": "linux", "architecture": "amd64", "variant": "v3" } });
    let mut there = described(manifest.as_bytes());
    there["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    let list = json!({ "manifests": [variant, there] }).to_string();
    let mut target = described(list.as_bytes());
    target["annotations"] = json!({ "org.opencontainers.image.ref.name": "app:dev" });
    let index = json!({ "manifests": [target] }).to_string();
    files.truncate(0);
    files.extend([config, manifest.as_bytes(), &layer, list.as_bytes()].map(blob));
    files.push((LAYOUT.to_owned(), b"{}".to_vec()));
    files.push((INDEX.to_owned(), index.into_bytes()));
    let (passed, _) = passed(&tar(&files), &guest());
    assert_eq!(passed.expect("sound").images[0].name.as_str(), NAME);
}

#[test]
fn the_last_image_with_a_name_has_it_and_invalid_names_are_reported() {
    let tags = ["app:dev", "App:dev", "app:2", "docker.io/library/app:dev"];
    let manifest = json!([{ "Config": "config.json", "RepoTags": tags, "Layers": ["layers/0"] }]);
    let (passed, _) = passed(&saved(&manifest, "layers/0"), &guest());
    let passed = passed.expect("sound");
    let names: Vec<_> = passed.images.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["docker.io/library/app:2", NAME]);
    assert_eq!(passed.nameless, 1);
}

/// A layer in the form of `tar --sparse`.
#[test]
fn a_layer_with_holes_is_read_whole() {
    let mut layer = vec![0; 1 << 20];
    layer[700 << 10] = 1;
    let mut files = layout("amd64", Some("app:dev"));
    let manifest = String::from_utf8(files[0].1.clone()).expect("UTF-8");
    let manifest = manifest
        .replace(&digest(&files[2].1), &digest(&layer))
        .replace("\"size\":900", &format!("\"size\":{}", layer.len()));
    let index = String::from_utf8(files[4].1.clone()).expect("UTF-8");
    let index = index.replace(&digest(&files[0].1), &digest(manifest.as_bytes()));
    files[0] = blob(manifest.as_bytes());
    files[2] = blob(&layer);
    files[4].1 = index.into_bytes();
    let folder = tempfile::tempdir().expect("temporary directory");
    for (path, content) in &files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("created");
        std::fs::write(path, content).expect("written");
    }
    let holes = folder.path().join(&files[2].0);
    let file = std::fs::File::create(holes).expect("created");
    file.set_len(1 << 20).expect("sparse");
    std::os::unix::fs::FileExt::write_all_at(&file, &[1], 700 << 10).expect("written");
    let packed = std::process::Command::new("tar")
        .args(["--format=gnu", "--sparse", "-c", "."])
        .current_dir(folder.path())
        .output()
        .expect("tar runs");
    assert!(packed.stdout.len() < 512 << 10, "it has holes");
    let guest = Guest {
        room: Size::mib(8),
        ..guest()
    };
    let (passed, _) = passed(&packed.stdout, &guest);
    assert_eq!(passed.expect("sound").images[0].name.as_str(), NAME);
}

/// Each of them is small when it is compressed, and none of them is a part of an image.
#[test]
fn endless_descriptions_are_rejected() {
    const DOCUMENT: u64 = 8 << 20;
    let one = |number: u64| {
        let mut header = Header::new_gnu();
        header.set_path(format!("layers/{number}")).expect("short");
        header.set_entry_type(EntryType::Regular);
        header.set_size(DOCUMENT);
        header.set_cksum();
        let start = format!("{{{number:07}");
        let rest = io::repeat(b' ').take(DOCUMENT - start.len() as u64);
        io::Cursor::new([header.as_bytes().as_slice(), start.as_bytes()].concat()).chain(rest)
    };
    let archive = (0..400).fold(Box::new(io::empty()) as Box<dyn Read>, |all, number| {
        Box::new(all.chain(one(number)))
    });
    let guest = Guest {
        room: Size::gib(100),
        ..guest()
    };
    let error = pass(archive, &guest, None, LOADING, io::sink()).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the archive has more than 128 MiB of names and descriptions"
    );
}
