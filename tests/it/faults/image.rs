//! The image is not what it should be.

use std::fs;

use super::{
    scene::Scene,
    server::{Server, Trouble},
};
use crate::support::VERSION;

#[test]
fn no_disk_image() {
    let scene = Scene::new();
    let gzip = [&[0x1f, 0x8b, 8][..], &[0; 100]].concat();
    let half = fs::read(&scene.image).expect("readable")[..4096].to_vec();
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
        let path = scene.env.path(name);
        fs::write(&path, bytes).expect("written");
        let path = path.display().to_string();
        let words = [
            path.as_str(),
            "is not a disk image: ",
            word,
            "use a cloud image: --image debian-13",
        ];
        scene.fails(name, scene.setup(&["--image", &path]), 1, &words);
    }
    scene.goes_on(scene.setup(&[]));
}

#[test]
fn no_image_at_all() {
    let scene = Scene::new();
    let path = scene.env.path("nowhere.img").display().to_string();
    let words = [path.as_str(), "No such file", "hint: "];
    scene.fails(
        "a path that is not there",
        scene.setup(&["--image", &path]),
        1,
        &words,
    );
    let words = [
        "no image is called \"ubuntu-95\"",
        "ubuntu-26.04",
        "debian-12",
    ];
    scene.fails(
        "an alias that is none",
        scene.setup(&["--image", "ubuntu-95"]),
        2,
        &words,
    );
    scene.goes_on(scene.setup(&[]));
}

#[test]
fn another_image_than_its_checksum_says() {
    let scene = Scene::new();
    let image = scene.image.display().to_string();
    let wrong = "0".repeat(64);
    let words = [
        "dead.img has the wrong checksum: expected SHA-256 0000",
        "hint: ",
    ];
    let setup = scene.setup(&["--image", &image, "--image-sha256", &wrong]);
    scene.fails("wrong --image-sha256", setup, 1, &words);
    scene.goes_on(scene.setup(&[]));
}

#[test]
fn an_image_from_the_web_that_is_none() {
    let scene = Scene::new();
    fs::write(
        scene.mirror.join("page"),
        "<!DOCTYPE html><title>Log in</title>",
    )
    .expect("written");
    let server = Server::of(&scene.mirror, Trouble::None);
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
        scene.fails(fault, scene.setup(&flags), 1, &words);
    }
    scene.goes_on(scene.setup(&[]));
}

#[test]
fn a_disk_that_is_too_small() {
    let scene = Scene::new();
    let words = ["a disk of 1GiB is too small: 4GiB is the least for a k3s node"];
    scene.fails(
        "a disk of 1 GiB",
        scene.setup(&["--disk", "1GiB"]),
        2,
        &words,
    );
    let image = scene.env.path("large.qcow2");
    fs::write(&image, empty_qcow2(30 << 30)).expect("written");
    let image = image.display().to_string();
    let words = [
        "a disk of 20GiB is smaller than the base image, which has 30GiB",
        "hint: ",
        "--disk 30GiB",
    ];
    scene.fails(
        "a disk below its image",
        scene.setup(&["--image", &image]),
        1,
        &words,
    );
    scene.goes_on(scene.setup(&["--image", &image, "--disk", "30GiB"]));
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
fn a_release_without_air_gap_images_is_no_fault() {
    let scene = Scene::new();
    assert!(
        !scene
            .mirror
            .join(VERSION)
            .join("k3s-airgap-images-amd64.tar.zst")
            .exists()
    );
    scene.goes_on(scene.setup(&[]));
}
