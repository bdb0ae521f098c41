//! Images of the host in the node: from docker's kind of tool, from archives that a real tool has made, through a pipe;
//! and what cannot be loaded, of which nothing stays behind.

mod layout;

use std::{fs, path::Path};

use serde_json::Value;

pub(super) use self::layout::Layout;
use super::story_of;
use crate::transcript::{Story, chapter, found};

/// What does not get smaller when it is packed; the same for the same seed.
fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..bytes).map(|_| next()).collect()
}

/// The layouts that the stories are about, beside the project.
fn images(story: &Story) {
    let folder = |name: &str| Layout::new(story.env.path(name));
    let base = noise(1, 2 << 20);
    let app = |version: u32| {
        [
            ("etc/base", base.clone()),
            ("app", noise(10 + version, 300 << 10)),
        ]
    };
    folder("one").image("dev", "amd64", &app(1)).written();
    folder("two").image("dev", "amd64", &app(2)).written();
    folder("three").image("dev", "amd64", &app(3)).written();
    let zeros = vec![0; 300 << 20];
    folder("large")
        .image("dev", "amd64", &[("app", zeros)])
        .written();
    folder("latest")
        .image("latest", "amd64", &[("tool", noise(4, 1000))])
        .written();
    folder("arm")
        .image("dev", "arm64", &[("app", noise(5, 1000))])
        .written();
    folder("both")
        .image("a", "amd64", &[("app", noise(6, 1000))])
        .image("b", "arm64", &[("app", noise(7, 1000))])
        .together("1")
        .written();
}

/// A tool of the host's that has one image: an archive in a file.
fn tool(story: &Story, name: &str, image: &str, archive: &str) {
    let script = format!(
        "#!/bin/sh\ncase \"$1 $2 $3 $4\" in\n\
         'image inspect -- {image}') ;;\n\
         'save -- {image} ') exec cat {archive} ;;\n\
         *) echo \"Error: No such image: $4\" >&2; exit 1 ;;\nesac\n"
    );
    program(&story.env.path("tools").join(name), &script);
}

fn program(path: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(path.parent().expect("in a folder")).expect("created");
    fs::write(path, script).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("made a program");
}

/// What the node's containerd has, in its own words.
fn node(story: &Story) -> String {
    let all = "k3s ctr -n k8s.io images check; k3s ctr -n k8s.io content ls -q; k3s ctr -n k8s.io content active";
    story
        .run(&format!("k3s-vm ssh '{all}'"))
        .succeeds()
        .ended
        .stdout
}

#[test]
fn image_load_from_the_host() {
    let story = story_of("images");
    let tools = story.env.path("tools");
    let story = story.with_programs_of(&tools);
    images(&story);
    for tool in ["docker", "podman", "nerdctl"] {
        program(
            &tools.join(tool),
            "#!/bin/sh\necho 'cannot connect to its daemon' >&2; exit 1\n",
        );
    }

    chapter("an image that podman has, of which docker knows nothing");
    story
        .run("skopeo copy -q oci:../one:dev docker-archive:../one.tar:localhost/app:dev")
        .succeeds();
    tool(&story, "podman", "localhost/app:dev", "../one.tar");
    story
        .run("k3s-vm image load localhost/app:dev")
        .succeeds()
        .says("localhost/app:dev: sent 2.3 MiB")
        .prints("localhost/app:dev");
    let has = node(&story);
    assert!(
        has.contains("localhost/app:dev") && has.contains("complete (3/3)"),
        "{has}"
    );
    found("containerd has all of it");
    story
        .run("k3s-vm image load localhost/app:dev")
        .succeeds()
        .says("already on the node")
        .prints("localhost/app:dev");

    chapter("the next version of it: only what is new goes over");
    story
        .run("skopeo copy -q oci:../two:dev docker-archive:../two.tar:localhost/app:dev")
        .succeeds();
    let before = digest_of(&story, "localhost/app:dev");
    story
        .run("k3s-vm image load ../two.tar")
        .succeeds()
        .says("2 MiB already on the node")
        .never_says("sent 2.3 MiB")
        .prints("localhost/app:dev");
    assert_ne!(digest_of(&story, "localhost/app:dev"), before);

    chapter("through a pipe, packed, by another name; and one for two kinds of computers");
    story
        .run("skopeo copy -q oci:../three:dev docker-archive:../three.tar:app:dev && gzip -c ../three.tar | k3s-vm image load --name team/app:3 -")
        .succeeds()
        .prints("docker.io/team/app:3");
    story
        .run("skopeo copy -q --all oci:../both:1 oci-archive:../both.tar:both:1 && k3s-vm image load ../both.tar")
        .succeeds()
        .prints("docker.io/library/both:1");
    story
        .run("skopeo copy -q oci:../latest:latest docker-archive:../latest.tar:tool && zstd -q ../latest.tar && k3s-vm image load ../latest.tar.zst")
        .succeeds()
        .says("imagePullPolicy: IfNotPresent")
        .prints("docker.io/library/tool:latest");

    chapter("what the node has, and less of it");
    story
        .run("k3s-vm image list")
        .succeeds()
        .says("docker.io/team/app:3")
        .never_says("k3s-vm.invalid");
    let listed = listed(&story);
    assert_eq!(listed["schema"], 1);
    assert_eq!(
        listed["images"].as_array().map(Vec::len),
        Some(4),
        "{listed}"
    );
    completed(&story);
    story
        .run("k3s-vm image rm tool app:3")
        .exits(1)
        .says("the node has no image app:3; it has docker.io/team/app:3, localhost/app:dev");
    story
        .run("k3s-vm image rm nothing")
        .exits(1)
        .says("k3s-vm image list");
    story
        .run("k3s-vm image rm tool team/app:3")
        .succeeds()
        .says("removed docker.io/library/tool:latest");
    story
        .run("k3s-vm image list")
        .succeeds()
        .never_says("tool")
        .never_says("team/app");

    story.run("k3s-vm reset --yes").succeeds();
}

#[test]
fn failed_image_loads_change_nothing() {
    let story = story_of("refused");
    let tools = story.env.path("tools");
    let story = story.with_programs_of(&tools);
    images(&story);
    story
        .run("skopeo copy -q oci:../one:dev docker-archive:../one.tar:app:1 && k3s-vm image load ../one.tar")
        .succeeds();
    let before = node(&story);
    refused(&story, &tools);
    broken_off(&story, &tools);
    assert_eq!(node(&story), before);
    found("the node has what it had");
    interrupted(&story);
    assert_eq!(node(&story), before);
    found("nothing of it runs on, and the node has what it had");
    too_large(&story);
    assert_eq!(node(&story), before);
    story
        .run("k3s-vm ssh rm /filler && k3s-vm image load --name app:2 ../two.tar")
        .succeeds();
    not_running(&story);
}

fn refused(story: &Story, tools: &Path) {
    chapter("what is not there");
    for tool in ["docker", "podman", "nerdctl"] {
        program(
            &tools.join(tool),
            "#!/bin/sh\necho 'cannot connect to its daemon' >&2; exit 1\n",
        );
    }
    tool(story, "podman", "other:1", "../one.tar");
    story
        .run("k3s-vm image load nothing:1")
        .exits(1)
        .says("cannot find the image nothing:1")
        .says("docker: cannot connect to its daemon; podman: Error: No such image: nothing:1");
    story
        .run("this=$(dirname $(command -v k3s-vm)); PATH=$this k3s-vm image load nothing:1")
        .exits(1)
        .says("docker, podman or nerdctl is not on the PATH");
    story
        .run("k3s-vm image load ./nothing")
        .exits(1)
        .says("the archive ./nothing does not exist");
    story
        .run("k3s-vm image load ../one/")
        .exits(1)
        .says("tar -C DIR -c .");
    story.run("k3s-vm image load --name a - -").exits(2);
    story
        .run("k3s-vm image load --name 'A b' -")
        .exits(2)
        .says("invalid image name");

    chapter("archives without an image for this node");
    story
        .run("k3s-vm image load ../bin/k3s-vm")
        .exits(1)
        .says("it is not a tar archive, plain or compressed with gzip or zstd");
    story
        .run("tar c ../bin | k3s-vm image load -")
        .exits(1)
        .says("the archive contains no image that index.json or manifest.json names");
    story
        .run("k3s-vm image load - </dev/null")
        .exits(1)
        .says("standard input: it is empty");
    story
        .run("skopeo copy -q --override-arch arm64 oci:../arm:dev docker-archive:../arm.tar:app:2 && k3s-vm image load ../arm.tar")
        .exits(1)
        .says("the image is for linux/arm64, and the node needs linux/amd64");
    story
        .run("skopeo copy -q oci:../two:dev oci-archive:../two.tar:dev && k3s-vm image load ../two.tar")
        .exits(1)
        .says("its image has no name")
        .says("k3s-vm image load --name");
}

fn broken_off(story: &Story, tools: &Path) {
    chapter("what breaks off");
    story
        .run("head -c 2300000 ../two.tar | k3s-vm image load -")
        .exits(1)
        .says("the archive is truncated");
    program(
        &tools.join("docker"),
        "#!/bin/sh\n[ \"$1\" = image ] || { head -c 2300000 ../two.tar; echo 'the daemon went away' >&2; exit 1; }\n",
    );
    story
        .run("k3s-vm image load app:2")
        .exits(1)
        .says("docker did not save the whole image: the daemon went away");
}

fn interrupted(story: &Story) {
    chapter("Ctrl-C on the way");
    story
        .run(
            "set -m; mkfifo ../pipe; k3s-vm image load - <../pipe & exec 3>../pipe; head -c 2300000 ../two.tar >&3\n\
             wait_until \"k3s-vm ssh 'pgrep -f \\\"^/usr/bin/ctr .* import\\\"'\"; kill -INT %1; wait %1",
        )
        .exits(130)
        .says("interrupted");
    story.until("k3s-vm ssh '! pgrep -f [l]eases.rm'");
}

fn too_large(story: &Story) {
    chapter("a disk that is too small for the image, and for what it unpacks to");
    story
        .run("k3s-vm ssh 'fallocate -l $(($(df --output=avail -B1 / | tail -n 1) - (60 << 20))) /filler'")
        .succeeds();
    story
        .run("skopeo copy -q oci:../large:dev docker-archive:../large.tar:app:2 && k3s-vm image load ../large.tar")
        .exits(1)
        .says("free, and its next layer takes 300 MiB")
        .says("k3s-vm image rm NAME");
    story
        .run("skopeo copy -q oci:../large:dev oci-archive:../small.tar:app:1 && k3s-vm image load ../small.tar")
        .exits(1)
        .says("the guest's disk is full")
        .says("k3s-vm image rm NAME");
}

/// For `LD_PRELOAD`: a second of the program's clock is a hundred of the host's.
const SLOW_CLOCK: &str = r"
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_MONOTONIC) {
        long long time = (now->tv_sec * 1000000000LL + now->tv_nsec) / 100;
        now->tv_sec = time / 1000000000;
        now->tv_nsec = time % 1000000000;
    }
    return result;
}
";

/// As a shell asks for what can be removed. The guest has a second for its answer, in which an emulated one does not even
/// let us in.
fn completed(story: &Story) {
    fs::write(story.env.path("clock.c"), SLOW_CLOCK).expect("written");
    story
        .run("cc -shared -fPIC -o ../clock.so ../clock.c")
        .succeeds();
    let ask = |clock: &str, begun: &str| {
        let line = format!("k3s-vm -- k3s-vm image rm '{begun}' | cut -f 1 | xargs");
        let told = story.run(&format!("K3S_VM_COMPLETE=3 {clock} timeout 90 {line}"));
        let found = told.succeeds().ended;
        assert_eq!(found.stderr, "");
        found.stdout.trim_end().to_owned()
    };
    let slow = "LD_PRELOAD=$PWD/../clock.so";
    assert_eq!(ask(slow, "to"), "tool:latest");
    assert_eq!(ask(slow, "docker.io/te"), "docker.io/team/app:3");
    let all = "both:1 tool:latest team/app:3 localhost/app:dev";
    assert_eq!(ask(slow, ""), all);
    story.run("k3s-vm pause").succeeds();
    assert_eq!(ask("", "to"), "");
    found("a guest that stands still is not waited for");
    story.run("k3s-vm resume").succeeds();
}

fn not_running(story: &Story) {
    chapter("a VM that is suspended, stopped, resumed and deleted");
    story.run("k3s-vm stop --suspend").succeeds();
    story
        .run("k3s-vm image load ../one.tar")
        .exits(3)
        .says("k3s-vm start");
    story.run("k3s-vm image list").exits(3);
    story.run("k3s-vm start").succeeds();
    story
        .run("k3s-vm image list")
        .succeeds()
        .says("docker.io/library/app:1")
        .says("docker.io/library/app:2");
    story.run("k3s-vm stop").succeeds();
    story
        .run("k3s-vm image rm app:1")
        .exits(3)
        .says("is stopped");
    story.run("k3s-vm reset --yes").succeeds();
    story.run("k3s-vm image list").exits(4).says("k3s-vm setup");
}

fn listed(story: &Story) -> Value {
    let told = story.run("k3s-vm image list --json").succeeds();
    serde_json::from_str(&told.ended.stdout).expect("one document")
}

fn digest_of(story: &Story, name: &str) -> String {
    let listed = listed(story);
    let images = listed["images"].as_array().expect("a list");
    let image = images
        .iter()
        .find(|it| it["name"] == name)
        .expect("it is there");
    image["digest"].as_str().expect("a digest").to_owned()
}
