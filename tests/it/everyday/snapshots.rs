//! What a machine was is kept, and comes back: running, paused, suspended and stopped ones.

use super::story_of;
use crate::{
    shared::Qemu,
    support::{mode, names, on_a_terminal},
    transcript::{Story, chapter, found},
};

/// What tells one boot of the guest from the next.
pub(super) const BOOT: &str = "k3s-vm ssh cat /proc/sys/kernel/random/boot_id";

pub(super) fn boot(story: &Story) -> String {
    let told = story.run(BOOT).succeeds();
    told.ended.stdout.trim().to_owned()
}

pub(super) fn make(story: &Story, name: &str) {
    story
        .run(&format!(
            "k3s-vm kubectl create configmap {name} --from-literal=k=v"
        ))
        .succeeds();
}

/// The configmaps that tests have made.
#[track_caller]
pub(super) fn has(story: &Story, expected: &str) {
    story
        .run("k3s-vm kubectl get configmaps -o name | grep -v kube-root-ca || true")
        .succeeds()
        .prints(expected);
}

fn listed(story: &Story) -> Vec<serde_json::Value> {
    let told = story.run("k3s-vm snapshot list --json").succeeds();
    let list: serde_json::Value = serde_json::from_str(&told.ended.stdout).expect("one document");
    assert_eq!(list["schema"], 1);
    list["snapshots"].as_array().expect("a list").clone()
}

pub(super) fn names_of(story: &Story) -> Vec<String> {
    let names = listed(story).into_iter();
    names
        .map(|it| it["name"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn create_and_restore() {
    let story = story_of("snapshots");
    wrong_names(&story);
    make(&story, "before");
    let boot = boot(&story);
    of_a_running_vm(&story, &boot);
    restore_while_running(&story, &boot);
    of_a_paused_vm(&story, &boot);
    of_a_suspended_vm(&story, &boot);
    of_a_stopped_vm(&story, &boot);
    damaged_and_deleted(&story);
    without_room(&story);
    by_another_qemu(&story, &boot);

    chapter("A reset says what goes with the VM");
    let (code, screen) = on_a_terminal(story.env.command(&["reset"]), "n\n");
    assert_eq!(code, 1, "{screen}");
    assert!(screen.contains(" and its 3 snapshots? [y/N]"), "{screen}");
    story.run("k3s-vm reset --yes").succeeds();
    assert!(!story.file("snapshots").exists());
}

fn wrong_names(story: &Story) {
    chapter("Names that cannot be");
    let longer = "a".repeat(65);
    for name in ["../up", "a/b", ".hidden", "''", "'a b'", "-- -x", &longer] {
        for verb in ["create", "restore", "delete"] {
            story
                .run(&format!("k3s-vm snapshot {verb} {name}"))
                .exits(2)
                .says("expected 1 to 64 of a-z");
        }
    }
    assert!(!story.file("snapshots").exists());
    story
        .run("k3s-vm snapshot list")
        .succeeds()
        .prints("")
        .says("no snapshots");
    assert!(listed(story).is_empty());
    for line in ["restore none --yes", "restore none", "delete none"] {
        story
            .run(&format!("k3s-vm snapshot {line}"))
            .exits(2)
            .says("error: the snapshot none does not exist")
            .says("hint: list them: k3s-vm snapshot list");
    }
    story
        .run("mkdir ../empty && k3s-vm -C ../empty snapshot list")
        .exits(4)
        .says("there is no VM");
    assert!(names(&story.env.path("empty")).is_empty());
}

fn of_a_running_vm(story: &Story, boot: &str) {
    chapter("A snapshot of a VM that runs");
    let qemu = story.qemu();
    story
        .run("k3s-vm snapshot create first")
        .succeeds()
        .prints("first")
        .says("created snapshot first: disk and memory, ");
    assert_eq!(story.qemu(), qemu);
    assert_eq!(story.status()["healthy"], true);
    story.run(BOOT).succeeds().prints(boot);
    let folder = story.file("snapshots/first");
    assert_eq!(mode(&story.file("snapshots")), 0o700);
    assert_eq!(mode(&folder), 0o700);
    let mut expected = vec!["config.tar", "disk.qcow2", "memory", "snapshot.json"];
    if Qemu::newest().firmware() == "uefi" {
        expected.push("uefi-vars.fd");
    }
    assert_eq!(names(&folder), expected);
    for name in names(&folder) {
        assert_eq!(mode(&folder.join(&name)), 0o600, "{name}");
    }
    make(story, "after");
    story
        .run("k3s-vm snapshot create first")
        .exits(2)
        .says("error: the snapshot first already exists")
        .says("k3s-vm snapshot delete first");
    let named = story.run("k3s-vm snapshot create").succeeds();
    let name = named.ended.stdout.trim().to_owned();
    let like_a_time = name.len() == 20 && name.starts_with("20") && name.ends_with('Z');
    assert!(like_a_time, "{name}");
    story
        .run("k3s-vm snapshot list")
        .succeeds()
        .says("NAME ")
        .says("disk and memory")
        .says(&name);
    let list = listed(story);
    assert_eq!(list[0]["name"], "first");
    assert_eq!(list[0]["memory"], true);
    assert!(list[0]["used"].as_u64() > Some(100 << 20), "{list:?}");
    assert!(list[0]["damaged"].is_null(), "{list:?}");
    assert_eq!(list[1]["name"], *name);
    story
        .run(&format!("k3s-vm snapshot delete {name}"))
        .succeeds();
    found("it continues, in the same QEMU");
}

fn restore_while_running(story: &Story, boot: &str) {
    chapter("Back to it");
    has(story, "configmap/after\nconfigmap/before");
    story
        .run("k3s-vm snapshot restore first")
        .exits(2)
        .says("stdin is not a terminal")
        .says("hint: to go ahead without asking: k3s-vm snapshot restore first --yes");
    let restore = story.env.command(&["snapshot", "restore", "first"]);
    let (code, screen) = on_a_terminal(restore, "n\n");
    assert_eq!(code, 1, "{screen}");
    let asks = "back to snapshot first? Later changes are lost. [y/N]";
    assert!(screen.contains(asks), "{screen}");
    assert!(screen.contains("nothing was changed"), "{screen}");
    has(story, "configmap/after\nconfigmap/before");
    for (line, number) in [("--yes", 1), ("--force", 2)] {
        story
            .run(&format!("k3s-vm snapshot restore first {line}"))
            .succeeds()
            .says("restored snapshot first")
            .says("resuming ")
            .prints(&story.env.project.join(".kube/config").to_string_lossy());
        has(story, "configmap/before");
        story.run(BOOT).succeeds().prints(boot);
        story.knows_the_time();
        make(story, &format!("later-{number}"));
    }
    found(
        "what was before is there, what was after is not, and a snapshot is of use more than once",
    );
}

fn of_a_paused_vm(story: &Story, boot: &str) {
    chapter("A paused VM");
    story.run("k3s-vm pause").succeeds();
    story
        .run("k3s-vm snapshot create still")
        .succeeds()
        .says("the VM is paused as before");
    assert_eq!(story.status()["process"]["run_state"], "paused");
    story.run("k3s-vm resume").succeeds();
    story.run(BOOT).succeeds().prints(boot);
}

fn of_a_suspended_vm(story: &Story, boot: &str) {
    chapter("A suspended VM");
    story.run("k3s-vm stop --suspend").succeeds();
    story
        .run("k3s-vm snapshot create asleep")
        .succeeds()
        .says("created snapshot asleep: disk and memory");
    story
        .run("k3s-vm snapshot restore first --yes")
        .succeeds()
        .prints("")
        .says("to start it: k3s-vm start");
    assert_eq!(story.status()["state"], "suspended");
    story.run("k3s-vm start").succeeds().says("resuming ");
    has(story, "configmap/before");
    story
        .run("k3s-vm snapshot restore asleep --yes")
        .succeeds()
        .says("resuming ");
    has(story, "configmap/before\nconfigmap/later-2");
    story.run(BOOT).succeeds().prints(boot);
    story
        .run("k3s-vm snapshot restore still --yes")
        .succeeds()
        .says("resuming ");
    has(story, "configmap/before\nconfigmap/later-2");
    found("the snapshots of a paused and of a suspended VM bring it back as well");
}

fn of_a_stopped_vm(story: &Story, boot: &str) {
    chapter("A stopped VM");
    story.run("k3s-vm stop --force").succeeds();
    story
        .run("k3s-vm snapshot create off")
        .succeeds()
        .says("created snapshot off: disk, ");
    let off = listed(story).pop().expect("the last one");
    assert_eq!(
        (&off["name"], &off["memory"]),
        (&"off".into(), &false.into())
    );
    story.run("k3s-vm snapshot restore first --yes").succeeds();
    story.run("k3s-vm snapshot restore off --yes").succeeds();
    assert_eq!(story.status()["state"], "stopped");
    assert!(!story.file("memory").exists(), "it belongs to another disk");
    story
        .run("k3s-vm snapshot restore first --yes --start")
        .succeeds()
        .says("resuming ");
    story.run(BOOT).succeeds().prints(boot);
    has(story, "configmap/before");
    found("disk alone, or all");
}

fn damaged_and_deleted(story: &Story) {
    chapter("Snapshots that are damaged");
    let disk = story.file("snapshots/off/disk.qcow2");
    story
        .run("printf x | dd of=.k3s-vm/snapshots/off/disk.qcow2 bs=1 seek=70000 conv=notrunc status=none")
        .succeeds();
    let qemu = story.qemu();
    story
        .run("k3s-vm snapshot restore off --yes")
        .exits(1)
        .says("error: the snapshot off is damaged: ")
        .says(&format!("{} has changed", disk.display()))
        .says("hint: nothing was changed; delete it");
    assert_eq!(story.qemu(), qemu);
    assert_eq!(story.status()["healthy"], true);
    story
        .run("echo '{' >.k3s-vm/snapshots/still/snapshot.json")
        .succeeds();
    story
        .run("k3s-vm snapshot list")
        .succeeds()
        .says("damaged: EOF");
    let damaged = listed(story).pop().expect("the last one");
    assert_eq!(damaged["name"], "still");
    assert!(damaged["created"].is_null() && !damaged["damaged"].is_null());
    story
        .run("k3s-vm snapshot restore still --yes")
        .exits(1)
        .says("error: the snapshot still is damaged: EOF");
    story
        .run("k3s-vm snapshot delete off none still")
        .exits(2)
        .says("error: the snapshot none does not exist");
    assert_eq!(names_of(story), ["first", "asleep", "off", "still"]);
    story
        .run("k3s-vm snapshot delete off still")
        .succeeds()
        .says("removed off")
        .says("removed still");
    assert_eq!(names_of(story), ["first", "asleep"]);
    assert_eq!(names(&story.file("snapshots")), ["asleep", "first"]);
    story
        .run("sed -i 's/\"uuid\": \"./\"uuid\": \"x/' .k3s-vm/snapshots/asleep/snapshot.json")
        .succeeds();
    story
        .run("k3s-vm snapshot restore asleep --yes")
        .exits(1)
        .says("error: the snapshot asleep is damaged: your k3s-vm on this host did not write it");
    story
        .run("K3S_VM_TRUSTED_PATHS=/ k3s-vm snapshot restore asleep --yes")
        .exits(1)
        .says("error: the snapshot asleep belongs to another VM");
    assert_eq!(story.qemu(), qemu);
}

/// A mount table of its own for this one command. In a user namespace, which who is not root needs for it, the host does not
/// tell how much memory the guest has touched.
const SMALL: &str = "unshare $(unshare --mount true || echo --map-root-user) --mount bash -c";

fn without_room(story: &Story) {
    chapter("No room");
    let boot = boot(story);
    let mount = "mount -t tmpfs -o mode=700,size";
    story
        .run(&format!(
            "{SMALL} '{mount}=200m none .k3s-vm/snapshots && k3s-vm snapshot create full'"
        ))
        .exits(1)
        .says("/snapshots has 200 MiB free, and ")
        .says("hint: free space on the file system of")
        .says("k3s-vm snapshot delete NAME");
    // It is gone while the memory is written, by a QEMU that sees the same mounts: newer ones open the file themselves. A
    // create that stands still before it copies the disk cannot be too quick for that.
    let held = "strace -f -qq -o ../trace -P $PWD/.k3s-vm/snapshots/.new/disk.qcow2 -e trace=openat \
                -e inject=openat:signal=STOP k3s-vm snapshot create full";
    story
        .run(&format!(
            "{SMALL} '{mount}=3g none .k3s-vm/snapshots || exit 9; \
             k3s-vm stop --suspend -q && k3s-vm start -q || exit 8; {held} & \
             wait_until \"[ -s .k3s-vm/snapshots/.new/memory ] || ! kill -0 $!\"; \
             for size in 20 50 100 200 400 600; do \
             mount -o remount,size=${{size}}m none .k3s-vm/snapshots 2>/dev/null && break; done; \
             wait_until \"! pkill -CONT -P $!\"; wait $!'"
        ))
        .exits(1)
        .says("error: ");
    assert_eq!(story.status()["process"]["run_state"], "running");
    story.run(BOOT).succeeds().prints(&boot);
    assert_eq!(names_of(story), ["first", "asleep"]);
    found("the VM runs on");
}

fn by_another_qemu(story: &Story, boot: &str) {
    chapter("A snapshot by another QEMU");
    story
        .run("cp -r .k3s-vm/snapshots/first .k3s-vm/snapshots/old && sed -i 's/\"qemu\": \"/&1/' .k3s-vm/snapshots/old/snapshot.json")
        .succeeds();
    make(story, "lost");
    story
        .run("K3S_VM_TRUSTED_PATHS=/ k3s-vm snapshot restore old --yes")
        .succeeds()
        .says(" instead of resuming: QEMU was 1");
    has(story, "configmap/before");
    assert_ne!(self::boot(story), boot);
    found("it boots, with all that it had on its disk");
}
