//! The image is not what it should be.

use std::fs;

use super::{
    sandbox::Sandbox,
    server::{Server, ServerFault},
};
use crate::support::VERSION;

#[test]
fn no_disk_image() {
    let sandbox = Sandbox::new();
    let gzip = [&[0x1f, 0x8b, 8][..], &[0; 100]].concat();
    let half = fs::read(&sandbox.image).expect("readable")[..4096].to_vec();
    for (name, bytes, word) in [
        (
            "page.html",
            b"<!DOCTYPE html><title>404</title>".to_vec(),
            "it is an HTML page",
        ),
        ("disk.img.gz", gzip, "a gzip archive, to be unpacked first"),
        ("empty.img", Vec::new(), "an empty file"),
        (
            "zeros.img",
            vec![0; 4 << 20],
            "a file without a partition table",
        ),
        ("cut.img", half, "too small to be one"),
    ] {
        let path = sandbox.env.path(name);
        fs::write(&path, bytes).expect("written");
        let path = path.display().to_string();
        let words = [
            path.as_str(),
            "is not a disk image: ",
            word,
            "use a cloud image: --image debian-13",
        ];
        sandbox.fails(name, sandbox.setup(&["--image", &path]), 1, &words);
    }
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn no_image_at_all() {
    let sandbox = Sandbox::new();
    let path = sandbox.env.path("nowhere.img").display().to_string();
    let words = [path.as_str(), "No such file", "hint: "];
    sandbox.fails(
        "a path that is not there",
        sandbox.setup(&["--image", &path]),
        1,
        &words,
    );
    let words = ["unknown image \"ubuntu-95\"", "ubuntu-26.04", "debian-12"];
    sandbox.fails(
        "an alias that is none",
        sandbox.setup(&["--image", "ubuntu-95"]),
        2,
        &words,
    );
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn an_image_with_another_checksum() {
    let sandbox = Sandbox::new();
    let image = sandbox.image.display().to_string();
    let wrong = "0".repeat(64);
    let words = [
        "dead.img has the wrong checksum: expected SHA-256 0000",
        "hint: ",
    ];
    let setup = sandbox.setup(&["--image", &image, "--image-sha256", &wrong]);
    sandbox.fails("wrong --image-sha256", setup, 1, &words);
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn a_download_that_is_not_an_image() {
    let sandbox = Sandbox::new();
    fs::write(
        sandbox.mirror.join("page"),
        "<!DOCTYPE html><title>Log in</title>",
    )
    .expect("written");
    let server = Server::of(&sandbox.mirror, ServerFault::None);
    let digest = "0".repeat(64);
    for (fault, file, flags, word) in [
        (
            "404 for the image",
            "/nowhere.img",
            &["--image-sha256", &digest][..],
            "answered 404",
        ),
        (
            "a login page instead of the image",
            "/page",
            &["--insecure-no-checksum"],
            "is not a disk image: it is an HTML page",
        ),
        (
            "wrong --image-sha256, http",
            "/page",
            &["--image-sha256", &digest],
            "has the wrong checksum: expected SHA-256 0000",
        ),
    ] {
        let image = format!("{}{file}", server.url);
        let flags = [&["--image", &image], flags].concat();
        let words = [image.as_str(), word, "hint: "];
        sandbox.fails(fault, sandbox.setup(&flags), 1, &words);
    }
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn a_disk_that_is_too_small() {
    let sandbox = Sandbox::new();
    let words = ["a disk of 1GiB is too small: 4GiB is the least for a k3s node"];
    sandbox.fails(
        "a disk of 1 GiB",
        sandbox.setup(&["--disk", "1GiB"]),
        2,
        &words,
    );
    let image = sandbox.env.path("large.qcow2");
    fs::write(&image, empty_qcow2(30 << 30)).expect("written");
    let image = image.display().to_string();
    let words = [
        "a disk of 20GiB is smaller than the base image, which has 30GiB",
        "hint: ",
        "--disk 30GiB",
    ];
    sandbox.fails(
        "a disk below its image",
        sandbox.setup(&["--image", &image]),
        1,
        &words,
    );
    sandbox.continues(sandbox.setup(&["--image", &image, "--disk", "30GiB"]));
}

/// A qcow2 of clusters of 64 KiB in which nothing is allocated but its own metadata (QEMU's docs/interop/qcow2.txt).
fn empty_qcow2(size: u64) -> Vec<u8> {
    const CLUSTER: usize = 1 << 16;
    let covered_by_an_l2_table = (CLUSTER as u64 / 8) * CLUSTER as u64;
    let l1_entries = u32::try_from(size.div_ceil(covered_by_an_l2_table)).expect("few");
    let mut bytes = vec![0; 4 * CLUSTER];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, b"QFI\xfb");
    put(4, &3u32.to_be_bytes());
    put(20, &16u32.to_be_bytes());
    put(24, &size.to_be_bytes());
    put(36, &l1_entries.to_be_bytes());
    put(40, &(CLUSTER as u64).to_be_bytes());
    put(48, &(2 * CLUSTER as u64).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    // The refcount table, and the one block of it, which counts all four clusters.
    put(2 * CLUSTER, &(3 * CLUSTER as u64).to_be_bytes());
    put(3 * CLUSTER, &[0, 1].repeat(4));
    bytes
}

#[test]
fn a_release_without_air_gap_images_is_usable() {
    let sandbox = Sandbox::new();
    assert!(
        !sandbox
            .mirror
            .join(VERSION)
            .join("k3s-airgap-images-amd64.tar.zst")
            .exists()
    );
    sandbox.continues(sandbox.setup(&[]));
}
