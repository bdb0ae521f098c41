//! Folders of the host in the guest, on a kernel that can mount them and on one that cannot.

use std::{fs, os::unix::fs::MetadataExt};

use crate::{
    shared::Qemu,
    transcript::{Story, Told, chapter, found},
};

#[test]
fn host_directories_are_mounted() {
    let qemu = Qemu::newest();
    qemu.prepare();
    let story = qemu.story("mounts");
    let setup = format!("k3s-vm setup {}", qemu.flags(&story));

    chapter("a folder that is not there");
    story
        .run(&format!("{setup} --mount ./src:/src"))
        .exits(1)
        .says("/mounts/src: No such file or directory")
        .says("hint: create it: mkdir -p /")
        .never_says("fetch");
    assert!(!story.file("record.json").exists());
    what_cannot_be(&story);

    chapter("one that the guest writes to, and one with an odd name that it reads");
    story
        .run("mkdir -p src '../my, data' && echo from the host >src/file && echo read me >'../my, data/file'")
        .succeeds();
    story
        .run(&format!(
            "{setup} --mount ./src:/src --mount '../my, data:/srv/my-data:ro'"
        ))
        .succeeds()
        .says("using a template")
        .says("booting the guest instead of resuming a template");
    story
        .run("k3s-vm ssh cat /src/file /srv/my-data/file")
        .prints("from the host\nread me");
    story
        .run("k3s-vm ssh 'echo from the guest >/src/new && ln -s file /src/link'")
        .succeeds();
    let new = story.env.project.join("src/new");
    assert_eq!(fs::read(&new).expect("there"), b"from the guest\n");
    let (owner, user) = (
        fs::metadata(&new).expect("there").uid(),
        nix::unistd::getuid(),
    );
    assert!(user.is_root() || owner == user.as_raw(), "{owner}");
    found("what the guest writes is the user's on the host");
    story.run("readlink src/link").prints("file");
    for mode in ["4755", "2755"] {
        story
            .run(&format!("k3s-vm ssh chmod {mode} /src/new"))
            .exits(1)
            .says("Operation not permitted");
    }
    story
        .run("k3s-vm ssh chmod 755 /src/new && stat -c %a src/new")
        .prints("755");
    found("no file of the guest is setuid on the host");
    story
        .run("echo changed >src/file && k3s-vm ssh cat /src/file")
        .prints("changed");
    story
        .run("k3s-vm ssh touch /srv/my-data/new")
        .exits(1)
        .says("Read-only file system");
    story
        .run("grep ^mounts .k3s-vm/config")
        .prints(r#"mounts = ["./src:/src", "../my, data:/srv/my-data:ro"]"#);

    nothing_is_saved(&story);
    others(&story);
    story.run("k3s-vm reset --yes").succeeds();
    story.run("cat src/file src/new").says("from the guest");
}

fn what_cannot_be(story: &Story) {
    chapter("what cannot be a folder, or not there");
    for (mount, why) in [
        ("src", "expected HOST:GUEST"),
        ("./src:src", "expected HOST:GUEST"),
        ("./src:/etc/x", "cannot mount at /etc/x:"),
        ("./src:/", "cannot mount at /:"),
        ("./src:/a/../b", "expected HOST:GUEST"),
    ] {
        story
            .run(&format!("k3s-vm setup --mount {mount}"))
            .exits(2)
            .says(why);
    }
    story
        .run("k3s-vm setup --mount ./a:/src --mount ./b:/src/")
        .exits(2)
        .says("--mount ./b:/src: another mount has that path in the guest");
    story
        .run("mkdir -p .k3s-vm; echo 'mounts = [\"src:/usr\"]' >.k3s-vm/config; k3s-vm setup; code=$?; rm .k3s-vm/config; exit $code")
        .exits(1)
        .says("line 1")
        .says("cannot mount at /usr");
}

fn nothing_is_saved(story: &Story) {
    chapter("QEMU saves no memory of such a guest, and says so");
    story
        .run("k3s-vm stop --suspend")
        .exits(1)
        .says("cannot suspend the VM: it has mounts, which QEMU cannot save")
        .says("k3s-vm stop --power-off");
    story
        .run("k3s-vm snapshot create")
        .exits(1)
        .says("cannot create a snapshot: it has mounts, which QEMU cannot save")
        .says("k3s-vm stop --power-off && k3s-vm snapshot create");
    story.run("k3s-vm ssh cat /src/file").prints("changed");
    story.run("k3s-vm pause && k3s-vm resume").succeeds();
    story.run("k3s-vm ssh cat /src/file").prints("changed");
    story
        .run("echo 'suspend = true' >>.k3s-vm/config")
        .succeeds();
    story
        .run("k3s-vm stop")
        .succeeds()
        .says("powering off instead of suspending: QEMU cannot suspend a VM with mounts");
    story
        .run("k3s-vm snapshot create disk && k3s-vm snapshot list")
        .succeeds()
        .says("disk");
}

fn others(story: &Story) {
    chapter("one that is gone, and then others");
    story
        .run("mv src away && k3s-vm start")
        .exits(1)
        .says("mkdir -p");
    story
        .run("mv away src && k3s-vm configure --mount ./src:/code")
        .succeeds();
    story.run("k3s-vm start").succeeds();
    story
        .run("k3s-vm ssh cat /code/new")
        .prints("from the guest");
    story
        .run("k3s-vm ssh 'ls /src /srv/my-data | wc -w; cat /etc/systemd/system/src.mount'")
        .exits(1)
        .says("No such file");
    story
        .run("k3s-vm configure --unset mounts --no-restart")
        .succeeds()
        .says("from the next start on");
}

/// On a kernel without 9p, as clouds have it.
pub(super) fn one_is_asked_for(story: &Story) {
    story
        .run("k3s-vm ssh 'find /lib/modules -name \"9p*\" -delete; depmod; ! modprobe 9p'")
        .succeeds();
    story
        .run("k3s-vm configure --mount ./src:/src")
        .exits(1)
        .says("hint: create it: mkdir -p");
    story
        .run("mkdir src && k3s-vm configure --mount ./src:/src --no-restart")
        .succeeds()
        .says("mounts");
    story
        .run("k3s-vm start")
        .succeeds()
        .says("from the next start on");
}

pub(super) fn this_kernel_cannot(story: &Story, start: Told) {
    start
        .exits(1)
        .says("the guest has not mounted /src: its kernel 6.")
        .says("cannot mount directories of the host (9p)")
        .says("hint: or copy its content: k3s-vm cp ./src/. :/src");
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    found("the VM runs all the same");
    story.run("k3s-vm start").exits(1).says("cannot mount");
    story
        .run("k3s-vm configure --unset mounts --no-restart")
        .succeeds()
        .says("from the next start on");
}
