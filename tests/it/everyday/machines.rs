//! Two real machines in one project, and each verb about the one that is meant.

use serde_json::Value;

use super::{setup_of, story_of};
use crate::transcript::{Story, chapter, found};

#[test]
fn two_vms_in_one_project() {
    let story = story_of("several");
    let qemu = story.qemu();
    chapter("A further VM beside the project's own one");
    let port = |flag: &str| port_of(&story, flag);
    story
        .run(&format!("{} --name next", setup_of(&story)))
        .succeeds()
        .says("/several/.kube/next");
    assert_ne!(port(""), port("--name next"));
    story
        .run("k3s-vm list")
        .succeeds()
        .says("/several\n")
        .says("/several --name next\n");
    each_has_its_own_cluster(&story);
    one_is_suspended_alone(&story);
    a_copy_of_the_project_has_both(&story);
    assert_eq!(story.qemu(), qemu, "the first one is unchanged");

    chapter("One goes, the other stays");
    story
        .run("k3s-vm cache list")
        .succeeds()
        .says("/several/.k3s-vm/machines/next");
    story
        .run("k3s-vm reset --yes")
        .succeeds()
        .says("the VM next is kept");
    story
        .run("k3s-vm kubectl --name next get configmap of-next -o name")
        .succeeds()
        .prints("configmap/of-next");
    story.run("k3s-vm reset --yes --name next").succeeds();
    story.run("k3s-vm list").never_says("/several");
}

fn port_of(story: &Story, flag: &str) -> Value {
    let told = story
        .run(&format!("k3s-vm status --json {flag}"))
        .succeeds();
    let status: Value = serde_json::from_str(&told.ended.stdout).expect("a document");
    status["process"]["api_port"].clone()
}

fn each_has_its_own_cluster(story: &Story) {
    chapter("Each has its own cluster");
    story
        .run("k3s-vm --name next kubectl create configmap of-next")
        .succeeds();
    let get = "get configmap of-next -o name";
    for next in [
        "k3s-vm --name next kubectl",
        "K3S_VM_MACHINE=next k3s-vm kubectl",
        ".k3s-vm/machines/next/bin/kubectl",
        "eval \"$(k3s-vm env --name next)\"; cd /; kubectl",
        "kubectl --kubeconfig .kube/next",
    ] {
        story
            .run(&format!("{next} {get}"))
            .succeeds()
            .prints("configmap/of-next");
    }
    for own in [
        "k3s-vm kubectl",
        "K3S_VM_MACHINE=next .k3s-vm/bin/kubectl",
        "eval \"$(k3s-vm env)\"; kubectl",
    ] {
        story.run(&format!("{own} {get}")).exits(1).says("NotFound");
    }
}

fn one_is_suspended_alone(story: &Story) {
    chapter("Suspended, resumed, and kept in a snapshot of its own");
    story.run("k3s-vm --name next stop --suspend").succeeds();
    story
        .run(".k3s-vm/machines/next/bin/kubectl get nodes")
        .exits(3)
        .says("is suspended")
        .says("k3s-vm --name next start");
    story.run("k3s-vm status").succeeds();
    story
        .run("k3s-vm --name next snapshot create one && k3s-vm --name next start")
        .succeeds();
    story
        .run("k3s-vm snapshot list")
        .succeeds()
        .never_says("one");
    story
        .run("k3s-vm --name next kubectl delete configmap of-next && k3s-vm --name next snapshot restore one --yes && k3s-vm --name next start")
        .succeeds();
    story
        .run("k3s-vm --name next kubectl get configmap of-next -o name")
        .succeeds()
        .prints("configmap/of-next");
}

fn a_copy_of_the_project_has_both(story: &Story) {
    chapter("A copy of the project");
    story
        .run("k3s-vm --name next stop --suspend && cp -r . ../copy && k3s-vm --name next start")
        .succeeds();
    story
        .run("cd ../copy && .k3s-vm/machines/next/bin/kubectl get configmap of-next")
        .exits(3);
    story
        .run("cd ../copy && k3s-vm reset --yes && k3s-vm --name next reset --yes")
        .succeeds();
    story
        .run("k3s-vm --name next kubectl get configmap of-next -o name")
        .succeeds()
        .prints("configmap/of-next");
    found("they are two");
}
