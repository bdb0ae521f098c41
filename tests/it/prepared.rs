//! A second project of the same user: its machine stands on the disk that the first one's setup has prepared, and is
//! nevertheless a machine of its own. The first one's part is in [`crate::story`].
//! On real guests; `cargo test --test it prepared -- --nocapture`.

use std::fs;

use crate::{
    identity::{differs, identity},
    shared::Qemu,
    support::{names, retried},
    transcript::{Story, Told, chapter, found},
};

#[test]
fn a_second_vm_uses_the_template() {
    let qemu = Qemu::Host;
    qemu.prepare();
    chapter("The second setup continues from there, and boots nothing");
    let second = qemu.story("second");
    qemu.setup(&second, "")
        .succeeds()
        .says("from a template")
        .never_says("booted");
    let one = identity(&second);
    second.knows_the_time();

    chapter("Another one continues from the same memory, with random numbers of its own");
    let third = qemu.story("third");
    qemu.setup(&third, "").succeeds().never_says("booted");
    differs(&one, &identity(&third));
    third.run("k3s-vm reset --yes").succeeds();

    chapter("One of another shape boots from the disk alone");
    qemu.setup(&third, "--cpus 1")
        .succeeds()
        .says("it was started differently: -smp 2 then, -smp 1 now")
        .never_says("installed");
    differs(&one, &identity(&third));
    third
        .run("k3s-vm ssh 'systemctl is-system-running; test ! -e /dev/disk/by-id/virtio-k3s'")
        .succeeds();
    let told = third.run("k3s-vm ssh df --output=size -BM / | tail -n 1");
    let size: u32 = told
        .ended
        .stdout
        .trim()
        .trim_end_matches('M')
        .parse()
        .expect("a number");
    assert!((3500..4096).contains(&size), "the disk has grown: {size}M");
    third.run("k3s-vm reset --yes").succeeds();
    second.run("k3s-vm reset --yes").succeeds();
}

/// A setup that boots instead of resuming a template, and says why. It is not waited for.
#[track_caller]
fn boots_for(story: &Story, flag: &str, why: &str) {
    let flags = Qemu::Host.flags(story);
    story
        .run(&format!(
            "rm -f told; k3s-vm setup {flags} {flag} 2>told & wait_until \"! kill -0 $! || grep -qs 'starting ' told\"; \
             kill -INT $!; wait $!; code=$?; cat told; exit $code"
        ))
        .exits(130)
        .says(why);
}

/// A template, and machines that are the same as it and each other, until each goes its own way.
#[test]
fn a_cloned_cluster() {
    chapter("The first one is kept as a template, and continues");
    let first = Story::begin("first");
    setup(&first, SHARE).says("as a template");
    let one = identity(&first);
    first
        .run("k3s-vm kubectl create configmap proof --from-literal=a=first")
        .succeeds();

    chapter("The second one is there at once, and the same");
    let mut second = Story::begin("second");
    second.env.cache.clone_from(&first.env.cache);
    setup(&second, SHARE).never_says("booted");
    assert_eq!(identity(&second), one);
    found("name, number, keys, certificates, token: those of the template");
    second.run("k3s-vm kubectl get configmap proof").exits(1);
    second
        .run("k3s-vm kubectl create configmap proof --from-literal=a=second")
        .succeeds();
    second.knows_the_time();
    let value = "kubectl get configmap proof -o 'jsonpath={.data.a}'";
    first.run(&format!("k3s-vm {value}")).prints("first");

    chapter("Each goes its own way");
    first.run("k3s-vm reset --yes").succeeds();
    second.run("k3s-vm stop --suspend").succeeds();
    second.run("k3s-vm cache prune --yes").succeeds();
    second.run("k3s-vm start").succeeds().says("resuming ");
    second.run(&format!("k3s-vm {value}")).prints("second");
    second.run("k3s-vm reset --yes").succeeds();

    chapter("The cache is packed, carried to another host, and unpacked");
    let cache = second.env.cache.display();
    // Of the times only seconds are left.
    let carry = format!("tar -C {cache} --format=gnu -cf ../carried.tar . && rm -rf {cache}/*");
    second.run(&carry).succeeds();
    second
        .run(&format!(
            "tar -C {cache} -xf ../carried.tar && rm ../carried.tar"
        ))
        .succeeds();
    setup(&second, SHARE).never_says("booted");
    second.run("k3s-vm reset --yes").succeeds();

    chapter("Without its memory, or with a damaged one, the template boots");
    let folder = second.env.cache.join("prepared");
    let memory = names(&folder)
        .into_iter()
        .find(|it| it.ends_with(".memory"));
    let memory = folder.join(memory.expect("it was kept"));
    let mut bytes = fs::read(&memory).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0x5a);
    fs::remove_file(&memory).expect("removed");
    boots_for(&second, SHARE, ".memory is missing");
    second.run("k3s-vm reset --yes").succeeds();
    fs::write(&memory, bytes).expect("written");
    boots_for(&second, SHARE, ".memory is damaged");
    second.run("k3s-vm reset --yes").succeeds();
    second.run("k3s-vm cache prune --yes").succeeds();
    assert!(!folder.exists(), "nothing is left of it");
}

#[test]
fn a_setup_killed_during_capture() {
    let story = Story::begin("killed");
    chapter("Killed before the guest waits for the disk to be kept, and run again then");
    let flags = Qemu::Host.flags(&story);
    let until_booted = "wait_until \"grep -qs ' booted' .k3s-vm/stages.log\"";
    story
        .run(&format!(
            "k3s-vm setup {flags} >/dev/null 2>&1 & {until_booted}; kill -KILL $!; wait $!"
        ))
        .exits(137);
    story.until("grep -qs ' prepared' .k3s-vm/stages.log");
    // The guest continues without a command, and the VM is complete.
    self::setup(&story, "");
    story.run("k3s-vm ssh hostname").succeeds();
    story.run("k3s-vm stop").succeeds().never_says("by force");
    story.run("qemu-img check .k3s-vm/disk.qcow2").succeeds();
    story.run("k3s-vm reset --yes").succeeds();

    chapter("Killed when the guest continues from the memory, and has no identity yet");
    Qemu::Host.prepare();
    let story = Qemu::Host.story("killed");
    // Its identity begins with the keys, which nothing has read until then.
    let [running, suspended, key] =
        ["qemu.pid", "suspended.json", "id_ed25519"].map(|name| story.file(name));
    story
        .run(&format!(
            "strace -f -b execve -qq -o ../trace -P '{}' -e trace=openat -e inject=openat:signal=KILL k3s-vm setup {}",
            key.display(),
            Qemu::Host.flags(&story)
        ))
        .exits(137);
    assert!(running.exists() && !suspended.exists());
    self::setup(&story, "").never_says("booted");
    story.run("k3s-vm ssh hostname").succeeds();
    story.run("k3s-vm reset --yes").succeeds();
}

/// Makes a machine a template, or a copy of one.
const SHARE: &str = "--share-identity";

#[track_caller]
fn setup(story: &Story, flags: &str) -> Told {
    let usual = Qemu::Host.flags(story);
    made(story, &format!("k3s-vm setup {usual} {flags}"))
}

/// An emulator that lets its guest die (see `machine::lifecycle::boot`) leaves nothing to others: the machine is made again then.
#[track_caller]
pub(crate) fn made(story: &Story, setup: &str) -> Told {
    let told = story.run(setup).succeeds();
    if !told.ended.stderr.contains("starting the guest again") {
        return told;
    }
    retried("the emulator let the guest of a first setup die");
    story.run("k3s-vm reset --yes").succeeds();
    story.run(setup).succeeds()
}
