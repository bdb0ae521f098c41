//! The figures of the program: `cargo bench`. It prints, and asserts nothing but that it measured what it says.
//!
//! Times of one machine say little about those of another; ratios say more. So beside the program's figures stand those
//! of the old way to the same cluster (see `old-way.sh`), measured in the same run.
//!
//! `cargo bench -- --rounds 5` boots each machine five times rather than three; `--update` writes table and
//! picture to figures.md and figures.svg beside this file.
#![expect(clippy::print_stdout, reason = "a benchmark prints figures")]

mod baseline;
mod course;
mod figures;
mod host;
mod markdown;
mod measure;
mod picture;
mod program;
mod report;
#[path = "../it/faults/server.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests, which cause trouble with it"
)]
mod server;
#[path = "../it/support.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod support;
mod ways;

use std::{fs, path::Path};

use k3s_vm::qemu::version::find_program;

use figures::Figures;
use host::Host;
use server::{Server, ServerFault};
use support::{VERSION, make_release, repository};

/// The file with the tables, the marks around them in it, and the picture.
const FIGURES: &str = "tests/bench/figures.md";
const BEGIN: &str = "<!-- figures: written by cargo bench -- --update -->\n";
const END: &str = "<!-- end of figures -->\n";
const PICTURE: &str = "tests/bench/figures.svg";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |flag: &str| arguments.iter().skip_while(move |it| *it != flag).nth(1);
    let rounds = after("--rounds").map_or(3, |it| it.parse().expect("--rounds takes a number"));
    require_tools();

    let releases = tempfile::tempdir().expect("temporary directory");
    make_release(&releases.path().join(VERSION), VERSION);
    let mirror = Server::of(releases.path(), ServerFault::None).url;
    let mut figures = Figures::default();
    course::short(&mut figures);
    let seen = course::warm_up(&mirror);
    let host = Host::detect(&seen);
    println!("{host}");
    let mut loads = Vec::new();
    for round in 1..=rounds {
        course::round(&mut figures, &seen, &mirror);
        loads.push(measure::load());
        let load = loads[round - 1];
        println!("\nround {round} of {rounds} is over, load {load}\n");
        println!("{}", report::tables(&figures));
        keep(&figures, &host, &loads);
    }
    if arguments.iter().any(|it| it == "--update") {
        update(&repository(""), &figures, &host, rounds);
    }
}

/// What is measured so far, in `target/bench`.
fn keep(figures: &Figures, host: &Host, loads: &[f64]) {
    let target = support::program();
    let directory = target.ancestors().nth(2).expect("target/").join("bench");
    fs::create_dir_all(&directory).expect("created");
    let json = report::document(figures, host, loads);
    let json = serde_json::to_string_pretty(&json).expect("numbers have a JSON form");
    let picture = picture::picture(&figures.bars());
    for (name, content) in [("figures.json", json), ("figures.svg", picture)] {
        fs::write(directory.join(name), content).expect("written");
    }
    println!("{}", directory.join("figures.json").display());
}

/// What the old way needs and the program does not.
fn require_tools() {
    const TOOLS: [(&str, &str); 6] = [
        ("qemu-img", "qemu-utils"),
        ("genisoimage", "genisoimage"),
        ("ssh", "openssh-client"),
        ("ssh-keygen", "openssh-client"),
        ("kubectl", "kubernetes-client"),
        ("qemu-system-x86_64", "qemu-system-x86"),
    ];
    let missing = TOOLS
        .iter()
        .filter(|(tool, _)| find_program(tool).is_none());
    let mut packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    packages.dedup();
    if !packages.is_empty() {
        println!(
            "the benchmark's baseline needs: apt-get install --no-install-recommends {}",
            packages.join(" ")
        );
        std::process::exit(1);
    }
}

/// Table and picture of this run become those of the repository.
fn update(repository: &Path, figures: &Figures, host: &Host, rounds: usize) {
    let picture = picture::picture(&figures.bars());
    fs::write(repository.join(PICTURE), picture).expect("written");
    let path = repository.join(FIGURES);
    let written = fs::read_to_string(&path).expect("read");
    let (before, rest) = written.split_once(BEGIN).expect("the file has the mark");
    let (_, after) = rest.split_once(END).expect("the file has the end's mark");
    let text = format!(
        "![Seconds to a node that is Ready, phase by phase](figures.svg)\n\n{}\n\
         Medians of {rounds} boots, of 50 runs without a machine. {host}.\n",
        report::tables(figures)
    );
    fs::write(&path, format!("{before}{BEGIN}{text}{END}{after}")).expect("written");
}
