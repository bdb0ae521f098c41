//! kubectl, SSH and logs in the story.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt};

use super::name;
use crate::{
    guest::Guest,
    transcript::{Story, chapter, found},
};

pub(super) fn kubectl_works(story: &Story, guest: &Guest) {
    chapter("The real kubectl, on this cluster");
    let version = guest.version(story);
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ")
        .says(&version);
    story
        .run("k3s-vm kubectl version")
        .succeeds()
        .says(&version);
    story
        .run("k3s-vm kubectl create configmap proof --from-literal=a=b")
        .succeeds();
    story
        .run("k3s-vm kubectl get configmap proof -o 'jsonpath={.data.a}'")
        .succeeds()
        .prints("b");
    story.run("k3s-vm kubectl get nosuch").exits(1);
    let name = name(story);
    story
        .run("k3s-vm kubectl config view")
        .succeeds()
        .says(&format!("current-context: {name}"))
        .says(&format!("cluster: {name}"))
        .says(&format!("user: {name}"))
        .says("server: https://127.0.0.1:")
        .never_says("default");
}

pub(super) fn links_work_as_kubectl_and_k9s(story: &Story) {
    chapter("Links that are kubectl and k9s, for tools that look for programs of these names");
    story
        .run(".k3s-vm/bin/kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    story
        .run("PATH=$PWD/.k3s-vm/bin:$PATH kubectl get nodes --no-headers | wc -l")
        .succeeds()
        .prints("1");
    story
        .run("PATH=/nowhere .k3s-vm/bin/kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    found("without a kubectl on the PATH, the cached k3s is one");
    story
        .run("PATH=/nowhere .k3s-vm/bin/k9s")
        .exits(127)
        .says("k9s is not on the PATH")
        .says("hint: ");
    let tools = story.env.path("tools");
    fs::create_dir(&tools).expect("created");
    fs::write(
        tools.join("k9s"),
        "#!/bin/sh\necho \"k9s $* on $KUBECONFIG\"\nexit 5\n",
    )
    .expect("written");
    fs::set_permissions(tools.join("k9s"), fs::Permissions::from_mode(0o755)).expect("executable");
    let kubeconfig = story.env.project.join(".kube/config");
    story
        .run(&format!(
            "PATH={}:$PATH k3s-vm k9s --readonly -n kube-system",
            tools.display()
        ))
        .exits(5)
        .prints(&format!(
            "k9s --readonly -n kube-system on {}",
            kubeconfig.display()
        ));
}

pub(super) fn ssh_runs_commands(story: &Story) {
    chapter("SSH without an ssh client: exit codes, pipes, and a disk that has grown");
    story
        .run("k3s-vm ssh hostname")
        .succeeds()
        .prints(&name(story));
    story
        .run("k3s-vm ssh 'test -e /var/log/cloud-init.log'")
        .exits(i32::from(takes_units(story)));
    story.run("k3s-vm ssh exit 7").exits(7);
    story
        .run("k3s-vm ssh 'echo to stderr >&2' 2>/dev/null")
        .succeeds()
        .prints("");
    story
        .run("echo hello from the host | k3s-vm ssh tr a-z A-Z")
        .succeeds()
        .prints("HELLO FROM THE HOST");
    story
        .run("cp .k3s-vm/host_ed25519 pinned && cp .k3s-vm/id_ed25519 .k3s-vm/host_ed25519")
        .succeeds();
    story
        .run("k3s-vm ssh true")
        .exits(1)
        .says("answers with another host key than this VM's");
    story.run("mv pinned .k3s-vm/host_ed25519").succeeds();
    let told = story.run(
        "head -c 4M /dev/urandom >bytes && sha256sum <bytes && k3s-vm ssh sha256sum <bytes; rm bytes",
    );
    let sums: BTreeSet<&str> = told.ended.stdout.lines().collect();
    assert_eq!((told.ended.stdout.lines().count(), sums.len()), (2, 1));
    let told = story
        .run("k3s-vm ssh df --output=size,used,target -BG /")
        .succeeds();
    let line = told.ended.stdout.lines().nth(1).expect("a file system");
    let size = line.split_whitespace().next().expect("its size");
    let size: u32 = size.trim_end_matches('G').parse().expect("a number");
    assert!((18..=20).contains(&size), "the disk has grown: {size}G");
}

/// Whether the guest's systemd takes units from the firmware. Older guests come up by cloud-init.
fn takes_units(story: &Story) -> bool {
    let told = story
        .run("k3s-vm ssh \"systemctl --version | sed -E '1s/^systemd ([0-9]+).*/\\1/;q'\"")
        .succeeds();
    let version: u32 = told.ended.stdout.trim().parse().expect("a number");
    version >= 256
}

pub(super) fn logs_show_the_start(story: &Story) {
    chapter("Logs, where a failed start would be explained");
    story
        .run("k3s-vm logs console | grep k3s-vm:")
        .succeeds()
        .says("k3s-started");
    story
        .run("k3s-vm logs k3s | grep 'k3s is up and running'")
        .succeeds();
    story.run("k3s-vm logs qemu").succeeds();
    story
        .run("k3s-vm ssh 'systemctl --failed --plain --no-legend'")
        .succeeds()
        .prints("");
}
