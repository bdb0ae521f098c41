//! The whole story on what users get: each image of the catalogue, the k3s that the stable channel names, nothing replaced,
//! and KVM where the host has it. At the end a table says how long things took. `tests/real.sh` runs it.
//!
//! `REAL_IMAGE` takes one image instead of the catalogue's, `REAL_MIRROR` other releases than those on GitHub.

use std::{env, fs, panic, process::Command, thread, time::Duration};

use k3s_vm::{base::Size, k3s::release::Version, qemu::version};

use crate::{
    guest::Guest,
    story,
    support::{names, repository},
    transcript::{Story, Told, chapter},
};

#[path = "../bench/markdown.rs"]
mod markdown;

/// The limit of each command. A first setup may fetch a GiB, and emulate the real k3s.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(45 * 60);

const HEAD: [&str; 13] = [
    "image",
    "k3s",
    "accelerator",
    "QEMU",
    "host processor",
    "first setup",
    "second project",
    "clone",
    "start",
    "stop",
    "suspend",
    "resume",
    "k3s-vm",
];

#[test]
#[ignore = "fetches gigabytes and takes up to an hour for each image: tests/run.sh real"]
#[expect(clippy::print_stdout, reason = "the table is what the run is for")]
fn every_image_of_the_catalogue_with_the_stable_k3s() {
    let images = env::var("REAL_IMAGE").map_or_else(|_| catalogue(), |image| vec![image]);
    let mirror = env::var("REAL_MIRROR").ok();
    let mut lines = vec![HEAD.map(str::to_owned).to_vec()];
    let mut failed = Vec::new();
    for image in images {
        let guest = Guest {
            image: image.clone(),
            k3s: mirror.as_deref().and_then(newest_of),
            mirror: mirror.clone(),
            accelerator: None,
            memory: Size::gib(4),
            less_memory: Size::gib(3),
        };
        chapter(&format!("The image {image}"));
        // One image that fails leaves the others their turn.
        match panic::catch_unwind(|| measured(&guest)) {
            Ok(line) => lines.push(line),
            Err(_) => failed.push(image),
        }
    }
    if lines.len() > 1 {
        println!("\n{}", markdown::table(&lines));
    }
    assert!(failed.is_empty(), "failed with {}", failed.join(", "));
}

/// The aliases of all images.
fn catalogue() -> Vec<String> {
    let text = fs::read(repository("firmware/catalog.json")).expect("readable");
    let catalog: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let images = catalog["images"].as_array().expect("a list").iter();
    let alias = |image: &serde_json::Value| Some(image["alias"].as_str()?.to_owned());
    images
        .map(|image| alias(image).expect("an alias"))
        .collect()
}

/// The newest release in a directory of this host, whose versions no channel names.
fn newest_of(mirror: &str) -> Option<String> {
    let directory = mirror.strip_prefix("file://")?;
    let versions = names(directory.as_ref()).into_iter();
    let newest = versions.filter_map(|it| it.parse::<Version>().ok()).max();
    Some(newest.expect("the mirror has a release").to_string())
}

/// The story, and then a second project and two clones on what it has left in the cache: a line of the table.
fn measured(guest: &Guest) -> Vec<String> {
    let begin = |name| Story::begin(name).with_limit(COMMAND_TIMEOUT);
    let first_project = begin("shop");
    story::no_vm_yet(&first_project);
    let first = without_downloads(&story::setup_creates_a_cluster(&first_project, guest));
    story::lives_through_all_commands(&first_project, guest);
    let beside = |name, more: &str| {
        let mut story = begin(name);
        story.env.cache.clone_from(&first_project.env.cache);
        let setup = story.run(&format!("k3s-vm setup {}{more}", guest.flags()));
        let took = setup.succeeds().never_says("fetching").seconds;
        (story, took)
    };

    chapter("A second project, whose VM is its own");
    let (story, second) = beside("second", "");
    let seconds = |line: &str| story.run(line).succeeds().seconds;
    let stop = seconds("k3s-vm stop");
    let start = seconds("k3s-vm start");
    let suspend = seconds("k3s-vm stop --suspend");
    let resume = seconds("k3s-vm start");
    ready(&story);
    let (k3s, accelerator) = (guest.version(&story), guest.accelerator(&story));
    seconds("k3s-vm reset --yes");

    chapter("A clone of a cluster that is Ready");
    let (story, _) = beside("template", " --share-identity");
    story.run("k3s-vm reset --yes").succeeds();
    let (story, clone) = beside("clone", " --share-identity");
    ready(&story);
    story.run("k3s-vm reset --yes").succeeds();

    let image = guest.image.rsplit('/').next().unwrap_or_default();
    let (_, qemu) = version::find().expect("a QEMU");
    let mut line = vec![
        image.to_owned(),
        k3s,
        accelerator,
        qemu.to_string(),
        processor(),
    ];
    let figures = [first, second, clone, start, stop, suspend, resume];
    line.extend(figures.map(markdown::seconds));
    line.push(commit());
    line
}

fn ready(story: &Story) {
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
}

/// What a setup took, less what it waited for the internet, as `--timings` says.
fn without_downloads(setup: &Told) -> f64 {
    let lines = setup.ended.stderr.lines().chain(setup.ended.stdout.lines());
    let network = lines.filter_map(|line| line.strip_suffix("(network)"));
    let network = network.map(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    let network: Option<f64> = network.sum();
    setup.seconds - network.expect("seconds")
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find(|line| line.starts_with("model name"));
    let model = model
        .and_then(|line| line.split_once(": "))
        .unwrap_or_default()
        .1;
    let cores = thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores of {model}")
}

/// The program's.
fn commit() -> String {
    let described = Command::new("git")
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .current_dir(repository(""))
        .output();
    let described = described.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&described).trim().to_owned()
}
