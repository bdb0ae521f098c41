//! What a setup needs is carried to a host without internet, and a setup there needs none.

use std::{fs, path::Path};

use serde_json::Value;
use sha2::{Digest, Sha256, Sha512};

use super::internet::Internet;
use crate::{
    support::{VERSION, dead_image, guest_image, make_release, names},
    transcript::{Story, chapter, found},
};

/// An address where no program listens.
const NOWHERE: &str = "export https_proxy=http://127.0.0.1:9 http_proxy=http://127.0.0.1:9;";
const UBUNTU: &str = "cloud-images.ubuntu.com/releases/26.04/release";
const DEBIAN: &str = "cloud.debian.org/images/cloud/trixie/latest";

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The internet with that image as Ubuntu's and Debian's, and k3s's releases.
fn internet(story: &Story, image: &Path) -> Internet {
    let internet = Internet::of(story);
    let bytes = fs::read(image).expect("readable");
    let (ubuntu, debian) = (
        "ubuntu-26.04-server-cloudimg-amd64.img",
        "debian-13-generic-amd64.qcow2",
    );
    internet.has(&format!("{UBUNTU}/{ubuntu}"), image);
    let sum = hexadecimal(&Sha256::digest(&bytes));
    internet.serve_text(
        &format!("{UBUNTU}/SHA256SUMS"),
        &format!("{sum} *{ubuntu}\n"),
    );
    internet.has(&format!("{DEBIAN}/{debian}"), image);
    let sum = hexadecimal(&Sha512::digest(&bytes));
    internet.serve_text(
        &format!("{DEBIAN}/SHA512SUMS"),
        &format!("{sum}  {debian}\n"),
    );
    internet.channels(&[("stable", VERSION)]);
    let release = story.env.path("release");
    make_release(&release, VERSION);
    for name in names(&release) {
        let version = VERSION.replace('+', "%2B");
        let url = format!("github.com/k3s-io/k3s/releases/download/{version}/{name}");
        internet.has(&url, &release.join(name));
    }
    internet
}

/// The files of a cache, but for locks.
fn kept(cache: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for folder in names(cache).into_iter().filter(|it| it != "locks") {
        for name in names(&cache.join(&folder)) {
            all.push(format!("{folder}/{name}"));
        }
    }
    all
}

#[test]
fn setup_without_internet() {
    let here = Story::begin("connected");
    let internet = internet(&here, guest_image());

    chapter("everything that a setup with the defaults needs");
    here.run(&format!(
        "{} k3s-vm cache export shop.tar",
        internet.reach()
    ))
    .succeeds()
    .says("debian-13")
    .prints("shop.tar");
    let mode = fs::metadata(here.env.project.join("shop.tar")).expect("there");
    assert!(mode.len() > 1 << 20);

    chapter("imported on a host without a network");
    let there = Story::begin("island");
    let archive = here.env.project.join("shop.tar");
    there
        .run(&format!("k3s-vm cache import - <{}", archive.display()))
        .succeeds()
        .says("debian-13")
        .says(&format!("images of k3s {VERSION}"))
        .says("imported 3 files");

    chapter("a setup there, of the usual image and of the k3s that is stable");
    let flags = "--memory 1536MiB --disk 4GiB --accel tcg";
    there
        .run(&format!("{NOWHERE} k3s-vm setup {flags}"))
        .succeeds()
        .says(&format!("using {VERSION}"))
        .never_says("fetching");
    there
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    there.run("k3s-vm reset --yes").succeeds();
}

#[test]
fn damaged_cache_archives_change_nothing() {
    let scratch = Story::begin("scratch");
    let image = dead_image(&scratch.env.path("dead.img"));
    let here = Story::begin("here");
    let mirror = here.env.mirror();
    let choices = format!("--image debian-13 --k3s-mirror {mirror} --k3s-version {VERSION}");
    let export = |rest: &str| here.run(&format!("{NOWHERE} k3s-vm cache export {rest}"));

    chapter("what is written where");
    export(&choices).exits(1).says("cannot");
    let internet = internet(&here, &image);
    here.run(&format!(
        "{} k3s-vm cache export {choices}",
        internet.reach()
    ))
    .succeeds()
    .prints("k3s-vm-cache.tar");
    export(&choices)
        .exits(1)
        .says("k3s-vm-cache.tar is there already");
    export(&format!("{choices} nowhere/x.tar"))
        .exits(1)
        .says("cannot write nowhere/x.tar");
    export("- --all --json")
        .exits(2)
        .says("k3s-vm cache export FILE --json");
    let told = export("--all --json all.tar").succeeds();
    let document: Value = serde_json::from_str(&told.ended.stdout).expect("one document");
    assert_eq!(document["schema"], 1);
    assert_eq!(document["archive"], "all.tar");
    let kinds: Vec<&Value> = document["files"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| &it["kind"])
        .collect();
    assert_eq!(kinds, ["base-image", "k3s", "k3s-images"]);
    assert_eq!(document["files"][0]["name"], "debian-13");
    assert_eq!(names(&here.env.project), ["all.tar", "k3s-vm-cache.tar"]);
    scratch
        .run("k3s-vm cache export --all")
        .exits(1)
        .says("has no image and no release yet");
    scratch
        .run(&format!(
            "k3s-vm cache export --image {} --k3s-mirror {mirror} --k3s-version {VERSION}",
            image.display()
        ))
        .succeeds()
        .says("is your own file; copy it yourself");
    scratch.run("tar -tf k3s-vm-cache.tar | wc -l").prints("3");

    through_pipes(&here);
    what_is_not_whole(&here);
}

fn through_pipes(here: &Story) {
    chapter("through a pipe, and into one that is closed early");
    let there = Story::begin("there");
    let (from, to) = (here.env.cache.display(), there.env.cache.display());
    there
        .run(&format!(
            "K3S_VM_CACHE_DIR={from} k3s-vm cache export - --all -q | K3S_VM_CACHE_DIR={to} k3s-vm cache import - --json"
        ))
        .succeeds()
        .says("\"was_there\": false")
        .never_says("error");
    assert_eq!(kept(&there.env.cache), kept(&here.env.cache));
    here.run("k3s-vm cache export - --all | head -c 100000 >/dev/null")
        .succeeds()
        .never_says("error");
    there
        .run(&format!(
            "k3s-vm cache import {}/all.tar",
            here.env.project.display()
        ))
        .succeeds()
        .says("everything is already in the cache; nothing to do");
    found("files that are there already do not matter");

    chapter("a setup of other choices still asks");
    let other = "--image ubuntu-24.04 --k3s-mirror file:///nowhere --k3s-version v1.33.5+k3s1";
    there
        .run(&format!("{NOWHERE} k3s-vm setup {other} --accel tcg"))
        .exits(1)
        .says("cannot");
}

fn what_is_not_whole(here: &Story) {
    chapter("other archives, and truncated ones");
    let empty = Story::begin("empty");
    for (line, says) in [
        ("k3s-vm cache import", "cannot open k3s-vm-cache.tar"),
        (
            "k3s-vm cache import .",
            "cannot import .: it is not an archive of `k3s-vm cache export`",
        ),
        (
            "echo hello | k3s-vm cache import -",
            "it is not an archive of `k3s-vm cache export`",
        ),
        (
            "head -c 1000000 $ALL | k3s-vm cache import -",
            "the archive is truncated in debian-13",
        ),
        (
            "head -c 3000000 $ALL | k3s-vm cache import -",
            "the archive is truncated in k3s ",
        ),
        (
            "sed 's/k3s-stand-in-version/k3s-stand-in-versiom/' $ALL | k3s-vm cache import -",
            "is damaged in the archive: expected SHA-256 ",
        ),
        (
            "sed 's/\"schema\": 1/\"schema\": 9/' $ALL | k3s-vm cache import -",
            "the archive has the layout 9",
        ),
    ] {
        empty
            .run(&format!(
                "ALL={}/all.tar; {line}",
                here.env.project.display()
            ))
            .exits(1)
            .says(says);
    }
    assert_eq!(kept(&empty.env.cache), Vec::<String>::new());
    found("nothing of it was taken");
}
