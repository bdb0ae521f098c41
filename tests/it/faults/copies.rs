//! A real cluster whose project is moved while it runs, and copied; a kubeconfig that is damaged or leads to the other
//! copy. Two boots of a real guest at once; the test prints its steps.
//! `cargo test --test it copies -- --nocapture`

use std::fs;

use super::{
    machines::Elsewhere,
    table::{first_line, row},
};
use crate::{
    everyday::story_of,
    support::names,
    transcript::{Story, Told, chapter, found},
};

#[test]
fn a_cluster_is_moved_and_copied() {
    let mut story = story_of("shop-before");
    another_place_for_the_kubeconfig(&story);
    moved_while_it_runs(&mut story);
    let copy = Elsewhere {
        env: &story.env,
        project: story.env.path("shop-copy"),
    };
    two_copies_at_once(&story, &copy);
    a_kubeconfig_of_the_other(&story);
    the_copy_is_reset(&story, &copy);
    a_damaged_kubeconfig(&story);
    a_runtime_directory_that_is_gone(&story);
}

fn another_place_for_the_kubeconfig(story: &Story) {
    chapter("Other choices while it runs");
    let place = story.env.project.join("kube.yaml");
    story
        .run("k3s-vm setup --memory 1280MiB --kubeconfig kube.yaml")
        .succeeds()
        .says("memory = 1280MiB instead of 1536MiB: from the next start on (k3s-vm restart)")
        .says("nothing to do")
        .prints(&place.to_string_lossy());
    assert!(!story.env.project.join(".kube").exists());
    found("the kubeconfig at the former place is gone");
    story
        .run("k3s-vm kubectl create configmap whose --from-literal=a=original")
        .succeeds();
}

fn moved_while_it_runs(story: &mut Story) {
    chapter("The project is moved while its VM runs");
    let new = story.env.path("shop");
    let old = std::mem::replace(&mut story.env.project, new);
    fs::rename(&old, &story.env.project).expect("moved");
    story
        .run("k3s-vm status")
        .succeeds()
        .says("running, healthy");
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    story.run("k3s-vm ssh true").succeeds();
    let told = story.run("k3s-vm stop").succeeds().never_says("by force");
    record_fault(story, "moved while the cluster runs, stop", &told);
    assert!(!story.file("qemu.pid").exists() && !old.exists());
    assert!(names(&story.env.path("run/k3s-vm")).is_empty());
    found("nothing of it is left at the old place");
}

fn two_copies_at_once(story: &Story, copy: &Elsewhere) {
    chapter("A copy of the project, and both VMs at once");
    story.run("cp -a ../shop ../shop-copy").succeeds();
    let told = story
        .run("k3s-vm start >first 2>&1 & (cd ../shop-copy && k3s-vm start) && wait $! || { cat first; exit 1; }")
        .succeeds();
    record_fault(story, "two copies of a project start at once", &told);
    let (first, second) = (story.status(), copy.status());
    for own in ["pid", "api_port", "ssh_port", "monitor"] {
        assert_ne!(first["process"][own], second["process"][own], "{own}");
    }
    assert_eq!(
        (&first["healthy"], &second["healthy"]),
        (&true.into(), &true.into())
    );
    assert_eq!(first["machine"]["name"], second["machine"]["name"]);
    found("two healthy VMs of one name");
    story
        .run("cd ../shop-copy && k3s-vm kubectl create configmap only-in-the-copy")
        .succeeds();
}

fn a_kubeconfig_of_the_other(story: &Story) {
    chapter("The original's kubeconfig in the copy");
    story.run("cp kube.yaml ../shop-copy/").succeeds();
    story
        .run("cd ../shop-copy && k3s-vm status")
        .exits(5)
        .says("which is not this VM");
    let told = story
        .run("cd ../shop-copy && k3s-vm kubectl get nodes")
        .exits(1)
        .says("shop-copy/kube.yaml is not usable: it points to https://127.0.0.1:")
        .says("hint: write a new kubeconfig: k3s-vm setup");
    record_fault(
        story,
        "a kubeconfig that leads to the other copy, kubectl",
        &told,
    );
    story
        .run("cd ../shop-copy && k3s-vm setup && k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
}

fn the_copy_is_reset(story: &Story, copy: &Elsewhere) {
    chapter("The copy is reset, and the original does not notice");
    let before = story.status()["process"]["pid"].clone();
    let told = story
        .run("cd ../shop-copy && k3s-vm reset --yes")
        .succeeds();
    record_fault(story, "reset of a copy while the original runs", &told);
    assert_eq!(copy.status()["state"], "absent");
    assert_eq!(story.status()["process"]["pid"], before);
    story
        .run("k3s-vm status")
        .succeeds()
        .says("running, healthy");
    story
        .run("k3s-vm kubectl get configmap whose -o 'jsonpath={.data.a}'")
        .succeeds()
        .prints("original");
    story
        .run("k3s-vm kubectl get configmap only-in-the-copy")
        .exits(1);
}

fn a_damaged_kubeconfig(story: &Story) {
    chapter("A kubeconfig that is empty, torn or gone");
    for (fault, damage, mend) in [
        ("an empty kubeconfig", ": >kube.yaml", "true"),
        (
            "a torn kubeconfig",
            "truncate -s 200 kube.yaml",
            "mv kube.yaml kube.yaml.bak",
        ),
        ("a kubeconfig that is gone", "rm kube.yaml", "true"),
    ] {
        story.run(damage).succeeds();
        story
            .run("k3s-vm status")
            .exits(5)
            .says("kube.yaml is not usable: ");
        let told = story
            .run("k3s-vm kubectl get nodes")
            .exits(1)
            .says("kube.yaml is not usable: ")
            .says("hint: write a new kubeconfig: k3s-vm setup");
        record_fault(story, &format!("{fault}, kubectl"), &told);
        if mend != "true" {
            story
                .run("k3s-vm setup")
                .exits(1)
                .says("hint: move it: mv ");
            story.run(mend).succeeds();
        }
        story.run("k3s-vm setup").succeeds();
        story
            .run("k3s-vm kubectl get nodes")
            .succeeds()
            .says(" Ready ");
    }
}

fn a_runtime_directory_that_is_gone(story: &Story) {
    chapter("The runtime directory is removed while the VM runs");
    fs::remove_dir_all(story.env.path("run/k3s-vm")).expect("removed");
    story
        .run("k3s-vm status")
        .exits(5)
        .says("running (unresponsive)");
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    // SSH's port is on record.
    story.run("k3s-vm ssh true").succeeds();
    let told = story
        .run("k3s-vm stop")
        .succeeds()
        .says("over SSH")
        .never_says("by force");
    record_fault(
        story,
        "no runtime directory while the cluster runs, stop",
        &told,
    );
    story.run("k3s-vm status").exits(3);
    story.run("k3s-vm reset --yes").succeeds();
}

/// A row of the table. The VMs keep running here, so nothing is said about what is left.
#[track_caller]
fn record_fault(story: &Story, fault: &str, told: &Told) {
    let said = first_line(&story.env, &told.ended.stderr);
    row(fault, told.ended.code, &said, &[]);
}
