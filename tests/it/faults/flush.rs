//! What has to survive a power cut is on the disk before it has its name, and has its name before the command goes on:
//! strace shows the order of the flushes.

use std::{collections::BTreeSet, path::Path};

use super::{
    scene::{Scene, say},
    steps::{Step, Traced},
};

#[test]
fn everything_that_gets_a_name_is_flushed_before_and_its_directory_after() {
    let scene = Scene::new();
    let setup = scene.setup(&["--timeout", "1s"]);
    let (_, _, steps) = Traced::start(&scene, &setup, None).finish();
    let flushes = |steps: &[Step], path: &Path| steps.iter().any(|step| step.flushes(path));
    let mut named = BTreeSet::new();
    for (index, step) in steps.iter().enumerate() {
        let Some((from, to)) = step.renames() else {
            continue;
        };
        let (before, after) = steps.split_at(index);
        assert!(flushes(before, from), "{} was not flushed", to.display());
        let directory = to.parent().expect("a directory");
        assert!(
            flushes(after, directory),
            "the directory of {} was not flushed",
            to.display()
        );
        let name = to.file_name().expect("a name");
        named.insert(name.to_string_lossy().into_owned());
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
