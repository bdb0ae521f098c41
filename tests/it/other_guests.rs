//! The life of a cluster in guests of other kinds (tests/guest/kinds): from setup to a node that is Ready, stop, start,
//! suspend, resume, and a second machine. They are long, and run with `tests/run.sh all` only.
//! `cargo test --test it other_guests -- --nocapture`

use crate::{
    support::{VERSION, all, image_of, skipped},
    transcript::{Story, chapter, found},
};

#[test]
fn ubuntu() {
    lives("ubuntu");
}

#[test]
fn ifupdown() {
    lives("ifupdown");
}

#[test]
fn enterprise() {
    lives("enterprise");
}

#[test]
fn bare() {
    lives("bare");
}

fn lives(kind: &str) {
    if !all() {
        skipped("a guest of another kind; tests/run.sh all runs all of them");
        return;
    }
    let image = image_of(kind);
    let story = Story::begin(kind);
    let (image, mirror) = (image.display(), story.env.mirror());
    let setup = format!(
        "k3s-vm setup --image {image} --k3s-version {VERSION} --k3s-mirror {mirror} --memory 1536MiB --disk 6GiB \
         --accel tcg"
    );
    chapter("From nothing to a node that is Ready");
    story.run(&setup).succeeds();
    is_a_node(&story);
    let addresses = addresses(&story);
    story
        .run("k3s-vm ssh 'systemctl --failed --no-legend; df -Pk / | tail -n 1'")
        .succeeds();

    chapter("Stop and start");
    story.run("k3s-vm stop").succeeds().never_says("by force");
    story.run("k3s-vm start").succeeds().never_says("installed");
    is_a_node(&story);
    assert_eq!(
        self::addresses(&story),
        addresses,
        "the node's addresses stay"
    );

    chapter("Suspend and resume");
    story.run("k3s-vm stop --suspend").succeeds();
    story
        .run("k3s-vm start")
        .succeeds()
        .never_says("instead of resuming");
    is_a_node(&story);
    story.knows_the_time();

    chapter("A second VM");
    story.run("k3s-vm reset --yes").succeeds();
    story
        .run(&setup)
        .succeeds()
        .says("from a template")
        .never_says("installed");
    is_a_node(&story);
}

#[track_caller]
fn is_a_node(story: &Story) {
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    let servers = "k3s-vm ssh cat /etc/resolv.conf /run/systemd/resolve/resolv.conf 2>/dev/null";
    story.run(servers).says("nameserver 10.0.2.3");
    found("a node with a DNS server");
}

/// Those of the network card, sorted.
fn addresses(story: &Story) -> Vec<String> {
    let told = story
        .run("k3s-vm ssh \"ip -o address show scope global to 10.0.2.0/24; ip -o address show scope site\"")
        .succeeds();
    let lines = told.ended.stdout.lines();
    let address = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
    let mut addresses: Vec<String> = lines.filter_map(address).collect();
    addresses.sort();
    assert!(
        addresses.contains(&"10.0.2.15/24".to_owned()),
        "{addresses:?}"
    );
    addresses
}
