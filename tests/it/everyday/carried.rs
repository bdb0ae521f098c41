//! What a setup needs is carried to a host without internet, and a setup there needs none.

use std::{fs, path::Path};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    support::{VERSION, dead_image, guest_image, names, private_dir},
    telling::{Story, chapter, found},
};

/// Where nobody listens.
const NOWHERE: &str = "export https_proxy=http://127.0.0.1:9 http_proxy=http://127.0.0.1:9;";
const DEBIAN: &str =
    "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-genericcloud-amd64.qcow2";
const CHANNELS: &str = "https://update.k3s.io/v1-release/channels";

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A host that has once fetched Debian 13, and knows what k3s is the stable one: what it would have from the internet.
fn connected(project: &str, image: &Path) -> Story {
    let story = Story::begin(project);
    let cache = &story.env.cache;
    let bytes = fs::read(image).expect("readable");
    let digest = sha256(&bytes);
    private_dir(cache);
    for folder in ["images", "sources", "texts"] {
        private_dir(&cache.join(folder));
    }
    link_or_copy(image, &cache.join(format!("images/{digest}.img")));
    let source = json!({ "schema": 1, "from": DEBIAN, "digest": digest, "size": bytes.len(), "verified": true });
    let key = sha256(DEBIAN.as_bytes());
    fs::write(
        cache.join(format!("sources/{key}.json")),
        source.to_string(),
    )
    .expect("written");
    let key = sha256(CHANNELS.as_bytes());
    fs::write(cache.join(format!("texts/{key}")), VERSION).expect("written");
    story
}

fn link_or_copy(image: &Path, place: &Path) {
    if fs::hard_link(image, place).is_err() {
        fs::copy(image, place).expect("copied");
    }
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
fn a_host_without_internet_makes_a_machine() {
    let here = connected("connected", guest_image());
    let mirror = here.env.mirror();
    let choices = format!("--image debian-13 --k3s-mirror {mirror}");

    chapter("an archive with all that a setup needs");
    here.run(&format!("{NOWHERE} k3s-vm cache export {choices} shop.tar"))
        .succeeds()
        .prints("shop.tar");
    let mode = fs::metadata(here.env.project.join("shop.tar")).expect("there");
    assert!(mode.len() > 1 << 20);

    chapter("it comes to a host that reaches nobody");
    let there = Story::begin("island");
    fs::remove_dir_all(here.env.path("mirror")).expect("the mirror is gone");
    let archive = here.env.project.join("shop.tar");
    there
        .run(&format!("k3s-vm cache import - <{}", archive.display()))
        .succeeds()
        .says("debian-13")
        .says(&format!("images of k3s {VERSION}"))
        .says("3 files are new");

    chapter("a setup there, of the same image by its alias, and of the k3s that is stable");
    let flags = "--memory 1536MiB --disk 4GiB --accel tcg";
    there
        .run(&format!("{NOWHERE} k3s-vm setup {choices} {flags}"))
        .succeeds()
        .says(&format!("taking {VERSION}"))
        .never_says("fetching");
    there
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    there.run("k3s-vm reset --yes").succeeds();
}

#[test]
fn archives_of_the_cache_come_whole_or_not_at_all() {
    let scratch = Story::begin("scratch");
    let image = dead_image(&scratch.env.path("dead.img"));
    let here = connected("here", &image);
    let mirror = here.env.mirror();
    let choices = format!("--image debian-13 --k3s-mirror {mirror} --k3s-version {VERSION}");
    let export = |rest: &str| here.run(&format!("{NOWHERE} k3s-vm cache export {rest}"));

    chapter("what is written where");
    export(&choices).succeeds().prints("k3s-vm-cache.tar");
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
        .says("is a file of your own; take it along yourself");
    scratch.run("tar -tf k3s-vm-cache.tar | wc -l").prints("3");

    through_pipes(&here);
    what_is_not_whole(&here);
}

fn through_pipes(here: &Story) {
    chapter("through a pipe, and into one that nobody reads to its end");
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
        .says("all of it was there; nothing to do");
    found("what is there is no hindrance");

    chapter("a setup of other choices still asks");
    let other = "--image ubuntu-24.04 --k3s-mirror file:///nowhere --k3s-version v1.33.5+k3s1";
    there
        .run(&format!("{NOWHERE} k3s-vm setup {other} --accel tcg"))
        .exits(1)
        .says("cannot");
}

fn what_is_not_whole(here: &Story) {
    chapter("what is no such archive, or not whole");
    let empty = Story::begin("empty");
    for (line, says) in [
        ("k3s-vm cache import", "cannot open k3s-vm-cache.tar"),
        (
            "k3s-vm cache import .",
            "cannot take .: it is no archive of `k3s-vm cache export`",
        ),
        (
            "echo hello | k3s-vm cache import -",
            "it is no archive of `k3s-vm cache export`",
        ),
        (
            "head -c 1000000 $ALL | k3s-vm cache import -",
            "the archive ends before debian-13 is whole",
        ),
        (
            "head -c 3000000 $ALL | k3s-vm cache import -",
            "the archive ends before k3s ",
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
