//! Commands about snapshots that die on the way: no half of a snapshot is left, and no mix of two machines.

use std::{fs, path::Path};

use k3s_vm::{
    base::sparse,
    project::{
        Project, Record, Suspended,
        suspended::{FileStamp, MachineAbi, Memory},
    },
};
use serde_json::json;

use super::{
    snapshots::{BOOT, boot, has, make, names_of},
    story_of,
};
use crate::{
    support::names,
    transcript::{Story, chapter, found},
};

/// The line, killed when it is about to make such a call for the `nth` time.
fn killed_at(call: &str, nth: usize, line: &str) -> String {
    format!(
        "strace -f -qq -o ../trace -e trace={call} -e inject={call}:signal=KILL:when={nth} {line}"
    )
}

/// The line, sent the signal when it is about to make such a call on that file.
fn signalled_on(call: &str, file: &Path, signal: &str, line: &str) -> String {
    let file = file.display();
    format!(
        "strace -f -qq -o ../trace -P '{file}' -e trace={call} -e inject={call}:signal={signal} {line}"
    )
}

#[test]
fn of_a_running_vm() {
    let story = story_of("killed");
    make(&story, "before");
    let boot = boot(&story);
    chapter("A create that is killed");
    let create = "k3s-vm snapshot create cut";
    let [memory, disk] =
        ["memory", "disk.qcow2"].map(|name| story.file("snapshots/.new").join(name));
    // While QEMU writes the memory: what stands still before the disk is copied cannot be too late for that.
    let held = signalled_on("openat", &disk, "STOP", create);
    let while_written = format!(
        "{held} & wait_until '[ -s {} ]'; kill -KILL $(pgrep -P $!); wait $!",
        memory.display()
    );
    for line in [
        signalled_on("openat", &memory, "KILL", create),
        while_written,
        signalled_on("ioctl", &disk, "KILL", create),
    ] {
        story.run(&line).exits(137);
        no_snapshot_is_left(&story, &boot);
    }
    for call in ["renameat", "rename"] {
        let line = killed_at(call, 1, create);
        story.run(&line).exits(137);
        no_snapshot_is_left(&story, &boot);
    }
    story.run("k3s-vm snapshot create whole").succeeds();
    found("there is no half of a snapshot, and the VM continues");

    chapter("A restore that is killed");
    make(&story, "after");
    let line = killed_at("rename", 1, "k3s-vm snapshot restore whole --yes");
    story.run(&line).exits(137);
    assert_eq!(story.status()["state"], "stopped", "it was to be ended");
    assert!(!story.file("restoring").exists());
    let line = killed_at("rename", 3, "k3s-vm snapshot restore whole --yes");
    story.run(&line).exits(137);
    assert!(story.file("restoring").exists());
    story
        .run("k3s-vm start")
        .succeeds()
        .says("completing an interrupted command")
        .says("resuming ");
    has(&story, "configmap/before");
    story.run(BOOT).succeeds().prints(&boot);
    story.run("k3s-vm reset --yes").succeeds();
}

#[track_caller]
fn no_snapshot_is_left(story: &Story, boot: &str) {
    assert!(names_of(story).is_empty());
    story.run("k3s-vm start").succeeds().never_says("starting ");
    story.run(BOOT).succeeds().prints(boot);
    assert!(names(&story.file("snapshots")).is_empty());
}

/// What a machine is, as it is found on the disk.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    disk: Vec<u8>,
    variables: Vec<u8>,
    memory: Option<Vec<u8>>,
    release: String,
}

impl Found {
    #[track_caller]
    fn look(story: &Story) -> Self {
        let read = |name: &str| fs::read(story.file(name)).expect(name);
        let memory = fs::read_to_string(story.file("suspended.json")).map(|text| {
            let suspended = Suspended::parse(&text).expect("sound");
            let stamp = FileStamp::of(&story.file("disk.qcow2")).expect("there");
            assert_eq!(stamp, suspended.disk, "the memory is of this disk");
            read("memory")
        });
        let project = Project::at(&story.env.project);
        let record = Record::read(&project).expect("sound").expect("there").0;
        Self {
            disk: read("disk.qcow2"),
            variables: read("uefi-vars.fd"),
            memory: memory.ok(),
            release: record.release.version,
        }
    }
}

/// A machine that no QEMU has ever seen, all of it made of that byte; suspended, or stopped.
fn forge(story: &Story, byte: u8, suspended: bool) {
    let project = Project::at(&story.env.project);
    let record = json!({
        "schema": 3, "name": "k3s-forged", "uuid": "4f07ebcc-dafc-4ddf-9794-ba70655082e5",
        "disk": "4GiB",
        "image": { "source": "x", "path": "/nowhere/image", "digest": "0".repeat(64) },
        "release": { "version": format!("v1.{byte}.0+k3s1"), "binary": "/nowhere/k3s", "airgap": null },
        "firmware": "uefi", "api_port": 6443, "kubeconfig": ".kube/config", "provisioned": true,
    });
    fs::create_dir_all(project.directory()).expect("made");
    Suspended::discard(&project).expect("removed");
    fs::write(project.record(), record.to_string()).expect("written");
    fs::write(project.disk(), vec![byte; 300_000 + usize::from(byte)]).expect("written");
    fs::write(project.uefi_variables(), [byte; 1000]).expect("written");
    if suspended {
        fs::write(project.memory(), vec![byte; 500_000]).expect("written");
        let suspended = Suspended {
            schema: Suspended::schema(),
            since: byte.into(),
            disk: FileStamp::of(&project.disk()).expect("there"),
            memory: memory(&project.memory()),
            from: None,
        };
        let text = serde_json::to_string(&suspended).expect("a text");
        fs::write(project.suspended(), text).expect("written");
    }
    story.run("k3s-vm trust --yes").succeeds();
}

fn memory(path: &Path) -> Memory {
    let file = fs::File::open(path).expect("there");
    Memory {
        origin: MachineAbi {
            qemu: "7.2.0".to_owned(),
            arguments: Vec::new(),
            processor: None,
        },
        length: file.metadata().expect("there").len(),
        checksum: sparse::checksum(&file).expect("read"),
    }
}

/// At each step that changes which files there are; from and to a machine with and without memory.
#[test]
fn of_a_stopped_vm() {
    let story = Story::begin("forged");
    let mut all = Vec::new();
    for (name, byte, suspended) in [("one", 1, true), ("two", 2, true), ("three", 3, false)] {
        chapter(&format!("A create of {name} that is killed"));
        forge(&story, byte, suspended);
        let machine = Found::look(&story);
        let create = format!("k3s-vm snapshot create {name}");
        let kept = killed_everywhere(&story, &create, |kept| {
            let has = names_of(&story).contains(&name.to_owned());
            assert_eq!(has, kept, "{name}");
            assert_eq!(Found::look(&story), machine);
            if has {
                story
                    .run(&format!("k3s-vm snapshot delete {name}"))
                    .succeeds();
            }
            has
        });
        assert!(kept.iter().all(|kept| !kept), "{kept:?}");
        story.run(&create).succeeds();
        all.push((name, machine));
    }
    for (name, new) in &all {
        for (other, old) in all.iter().filter(|(other, _)| other != name) {
            chapter(&format!("A restore of {name} over {other} that is killed"));
            let back = format!("k3s-vm snapshot restore {other} --yes");
            story.run(&back).succeeds();
            let seen = killed_everywhere(
                &story,
                &format!("k3s-vm snapshot restore {name} --yes"),
                |_| {
                    let now = Found::look(&story);
                    assert!(now == *new || now == *old, "{}", now.release);
                    story.run(&back).succeeds();
                    assert_eq!(Found::look(&story), *old);
                    now == *new
                },
            );
            assert!(seen.contains(&true) && seen.contains(&false), "{seen:?}");
        }
    }
    chapter("A delete that is killed");
    for names in ["one", "two three"] {
        let line = format!("k3s-vm snapshot delete {names}");
        story.run(&killed_at("unlinkat", 1, &line)).exits(137);
        // Clears what is left of it.
        story.run("k3s-vm stop").succeeds();
    }
    assert_eq!(names_of(&story), ["three"], "none, and no half of one");
    story.run("k3s-vm snapshot delete three").succeeds();
    assert!(names(&story.file("snapshots")).is_empty());
    found("the old or the new machine, and whole snapshots");
}

/// Kills the line at each of its steps, has the next command put things right, and asks what there is then, until the line
/// comes to its end.
fn killed_everywhere(story: &Story, line: &str, look: impl Fn(bool) -> bool) -> Vec<bool> {
    let mut seen = Vec::new();
    for call in ["mkdir", "rename", "renameat", "linkat", "unlink", "rmdir"] {
        for nth in 1.. {
            let code = story.run(&killed_at(call, nth, line)).ended.code;
            assert!([0, 137].contains(&code), "{code}");
            let ended = code == 0;
            story.run("k3s-vm stop").succeeds();
            for left in ["restoring", "restoring.new", "snapshots/.new"] {
                assert!(!story.file(left).exists(), "{call} {nth}: {left}");
            }
            let is_new = look(ended);
            if ended {
                break;
            }
            seen.push(is_new);
        }
    }
    assert!(seen.len() > 4, "{seen:?}");
    seen
}
