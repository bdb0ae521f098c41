//! What has to survive a power cut is on the disk before it has its name, and has its name before the command goes on:
//! strace shows the order of the flushes.

use std::{collections::BTreeSet, fs, path::Path};

use regex::Regex;

use super::scene::{Scene, say};

/// A flush of a file or directory, or a renaming.
#[derive(Debug, PartialEq)]
enum Call {
    Flush(String),
    Rename(String, String),
}

/// The calls of `setup` that matter, in their order.
fn calls_of_setup(scene: &Scene) -> Vec<Call> {
    let log = scene.env.path("strace");
    let setup = scene.setup(&["--timeout", "1s"]);
    let mut strace = scene.env.tool("strace");
    strace
        .args([
            "-f",
            "-y",
            "-s",
            "4096",
            "-e",
            "trace=fsync,fdatasync,rename,renameat,renameat2",
            "-o",
        ])
        .arg(&log)
        .arg(setup.get_program())
        .args(setup.get_args());
    scene.fails("a setup under strace", strace, 1, &["not ready within 1s"]);
    let log = fs::read_to_string(log).expect("strace wrote it");
    let flush = Regex::new(r"f(?:data)?sync\([0-9]+<(.+?)>").expect("sound");
    let rename = Regex::new(r#"rename[a-z0-9]*\(.*?"(.+?)".*"(.+?)""#).expect("sound");
    let calls = log.lines().filter_map(|line| {
        if let Some(found) = flush.captures(line) {
            return Some(Call::Flush(found[1].to_owned()));
        }
        let found = rename.captures(line)?;
        Some(Call::Rename(found[1].to_owned(), found[2].to_owned()))
    });
    calls.collect()
}

#[test]
fn everything_that_gets_a_name_is_flushed_before_and_its_directory_after() {
    let scene = Scene::new();
    let calls = calls_of_setup(&scene);
    let mut named = BTreeSet::new();
    for (index, call) in calls.iter().enumerate() {
        let Call::Rename(from, to) = call else {
            continue;
        };
        let directory = Path::new(to).parent().expect("a directory");
        let directory = Call::Flush(directory.display().to_string());
        assert!(
            calls[..index].contains(&Call::Flush(from.clone())),
            "{to} was not flushed"
        );
        assert!(
            calls[index..].contains(&directory),
            "the directory of {to} was not flushed"
        );
        named.insert(
            Path::new(to)
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned(),
        );
    }
    say(&format!("  flushed: {named:?}"));
    for name in [
        "record.json",
        "config",
        "disk.qcow2",
        "seed.img",
        "id_ed25519",
        "host_ed25519",
        "k3s",
    ] {
        assert!(named.contains(name), "{name} is not in {named:?}");
    }
}
