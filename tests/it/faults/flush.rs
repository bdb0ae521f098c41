//! What has to survive a power cut is on the disk before it has its name, and has its name before the command continues:
//! strace shows the order of the flushes.

use std::{collections::BTreeSet, path::Path, process::Command};

use super::{
    sandbox::{Sandbox, say},
    steps::{Step, Traced},
};

#[test]
fn renamed_files_and_their_directories_are_flushed() {
    let sandbox = Sandbox::new();
    let setup = sandbox.setup(&["--timeout", "1s"]);
    let (_, _, steps) = Traced::start(&sandbox, &setup, None).finish();
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

/// A VM is suspended when its memory is on the disk, and QEMU ends only then; it continues only when no power cut can
/// bring the memory back, for its disk changes with it.
#[test]
fn saved_memory_is_durable() {
    let sandbox = Sandbox::new();
    sandbox.runs();
    let [directory, memory, note] = ["", "memory", "suspended.json"].map(|name| sandbox.file(name));
    let directory = directory.components().as_path();
    let named = |step: &Step| step.renames().is_some_and(|(_, to)| to == note);
    in_this_order(
        &sandbox,
        &sandbox.env.command(&["stop", "--suspend"]),
        &[
            ("stopped", &|step| step.to_string() == "sendto stop"),
            ("saved", &|step| step.to_string() == "sendto migrate"),
            ("flushed", &|step| step.flushes(&memory)),
            ("suspended", &named),
            ("flushed as well", &|step| step.flushes(directory)),
            ("ended", &|step| step.to_string() == "sendto quit"),
        ],
    );
    let removed = format!("unlink {}", note.display());
    in_this_order(
        &sandbox,
        &sandbox.resume(),
        &[
            ("loaded", &|step| {
                step.to_string() == "sendto migrate-incoming"
            }),
            ("removed", &|step| step.to_string() == removed),
            ("flushed", &|step| step.flushes(directory)),
            ("released", &|step| step.to_string() == "sendto cont"),
        ],
    );
}

type IsIt<'a> = &'a dyn Fn(&Step) -> bool;

/// Each of them comes, and behind the one before it.
#[track_caller]
fn in_this_order(sandbox: &Sandbox, command: &Command, expected: &[(&str, IsIt<'_>)]) {
    let (_, said, steps) = Traced::start(sandbox, command, None).finish();
    let mut rest = steps.iter();
    for (what, is_it) in expected {
        assert!(rest.any(is_it), "{what}: {steps:#?}\n{said}");
    }
}
