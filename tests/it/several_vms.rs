//! Several machines in one project, and the user's own choices for all of them, where no guest is needed.

use std::{fs, os::unix::fs::symlink};

use serde_json::Value;

use crate::{
    stopped_vm::{add_stopped_vm, trust, write_record},
    support::{names, program},
    transcript::{Story, chapter},
};

const NEXT: &str = "k3s-shop-next-1a2b3c";

/// A project with two machines that are stopped: its own one, and one that is called next.
fn with_two_machines() -> Story {
    let story = Story::begin("shop");
    add_stopped_vm(&story);
    let directory = story.file("machines/next");
    fs::create_dir_all(&directory).expect("created");
    write_record(&story.env.project, &directory, NEXT, ".kube/next");
    trust(&story.env, &story.env.project, "next");
    for bin in [".k3s-vm/bin", ".k3s-vm/machines/next/bin"] {
        let bin = story.env.project.join(bin);
        fs::create_dir(&bin).expect("created");
        symlink(program(), bin.join("kubectl")).expect("linked");
    }
    story
}

#[test]
fn names_are_checked_and_a_missing_vm_is_reported() {
    let story = Story::begin("shop");
    for name in ["Next", "a.b", "../x", "-x", "x-", &"x".repeat(33)] {
        story
            .run(&format!("k3s-vm status --name={name}"))
            .exits(2)
            .says("expected 1 to 32 of a-z, 0-9 and -");
    }
    story
        .run("k3s-vm --name config setup")
        .exits(2)
        .says("a file in .kube/ is called so already");
    story
        .run("K3S_VM_MACHINE=default k3s-vm start")
        .exits(2)
        .says("leave it out");
    story
        .run("k3s-vm start --name next")
        .exits(4)
        .says("there is no VM next in ")
        .says("hint: create it: k3s-vm --name next setup");
    story
        .run("k3s-vm --name next status")
        .exits(4)
        .says("none called next in ");
    story
        .run("k3s-vm reset --name next")
        .succeeds()
        .says("there is no VM next in ")
        .says("nothing to do");
    assert_eq!(names(&story.env.project), [""; 0], "nothing is left behind");
}

#[test]
fn every_command_uses_the_named_vm() {
    let story = with_two_machines();
    chapter("By the flag, before or behind the verb, and by the environment");
    for line in [
        "k3s-vm --name next kubeconfig",
        "k3s-vm kubeconfig --name next",
        "k3s-vm kubeconfig --machine next",
        "K3S_VM_MACHINE=next k3s-vm kubeconfig",
        "cd .k3s-vm/machines/next && k3s-vm kubeconfig --name next",
    ] {
        let kubeconfig = story.env.project.join(".kube/next");
        story
            .run(line)
            .succeeds()
            .prints(kubeconfig.to_str().expect("Unicode"));
    }
    story
        .run("K3S_VM_MACHINE=next k3s-vm kubeconfig --name=")
        .succeeds()
        .says("/.kube/config");
    let status = story.run("k3s-vm status --json --name next").exits(3);
    let status: Value = serde_json::from_str(&status.ended.stdout).expect("a document");
    assert_eq!(status["vm"], "next");
    assert_eq!(status["machine"]["name"], NEXT);
    assert_eq!(story.status().get("further"), None);
    story
        .run("k3s-vm --name next ssh-config --name host")
        .exits(3)
        .says(&format!("the VM {NEXT} is stopped"))
        .says("hint: start it: k3s-vm --name next start");
    story
        .run("k3s-vm image load --machine next --name app:dev app.tar")
        .exits(3)
        .says(NEXT);

    chapter("The links");
    story
        .run(".k3s-vm/machines/next/bin/kubectl get nodes")
        .exits(3)
        .says(NEXT)
        .says("k3s-vm --name next start");
    story
        .run("cd / && K3S_VM_MACHINE=next \"$OLDPWD\"/.k3s-vm/bin/kubectl get nodes")
        .exits(3)
        .says("the VM k3s-shop-1a2b3c is stopped")
        .says("start it: k3s-vm start");
    story
        .run("eval \"$(k3s-vm env)\"; eval \"$(k3s-vm env --name next)\"; echo $KUBECONFIG; type -P kubectl; grep -o bin/kubectl <<<$PATH || eval \"$(k3s-vm env --unset)\"; echo ${KUBECONFIG-none} ${PATH/.k3s-vm/}")
        .succeeds()
        .says("/.kube/next\n")
        .says("/.k3s-vm/machines/next/bin/kubectl\nnone ")
        .never_says("/machines/next/bin:");
}

#[test]
fn one_is_deleted_and_the_others_are_kept() {
    let story = with_two_machines();
    let contexts = "kubectl config get-contexts -o name";
    story
        .run("k3s-vm kubeconfig --merge && k3s-vm --name next kubeconfig --merge")
        .succeeds();
    story
        .run(contexts)
        .succeeds()
        .prints(&format!("k3s-shop-1a2b3c\n{NEXT}"));
    story.run("k3s-vm kubeconfig --unmerge").succeeds();
    story.run(contexts).succeeds().prints(NEXT);
    story
        .run("k3s-vm reset --yes")
        .succeeds()
        .says("the VM next is kept; to delete it: k3s-vm --name next reset");
    story.run("k3s-vm status").exits(4);
    story.run("k3s-vm --name next status").exits(3);
    assert_eq!(names(&story.env.project.join(".kube")), ["next"]);
    story
        .run("k3s-vm reset --yes --name next")
        .succeeds()
        .says("still has the VM's context; to remove it: k3s-vm --name next kubeconfig --unmerge");
    story.run("k3s-vm --name next status").exits(4);
    story
        .run("k3s-vm --name next kubeconfig --unmerge && k3s-vm reset --yes")
        .succeeds()
        .never_says("stays");
    assert_eq!(names(&story.env.project.join(".kube")), [""; 0]);
}

#[test]
fn user_defaults_apply_to_all_projects() {
    let story = with_two_machines();
    let config = story.env.path("home").join(".config/k3s-vm/config");
    fs::create_dir_all(config.parent().expect("a parent")).expect("created");
    let cpus = |told: &str| {
        let told = story.run(told).exits(3).ended.stdout;
        let status: Value = serde_json::from_str(&told).expect("a document");
        status["machine"]["cpus"].clone()
    };
    chapter("It holds for all VMs, and a project says otherwise");
    fs::write(&config, "cpus = 6 # many\nimage = \"debian-12\"\n").expect("written");
    fs::write(story.file("config"), "cpus = 3\n").expect("written");
    assert_eq!(cpus("k3s-vm status --json"), 3);
    assert_eq!(cpus("k3s-vm status --json --name next"), 6);
    story
        .run("k3s-vm start")
        .exits(1)
        .never_says("made with the image");
    chapter("A new VM is made by it, unless a flag says otherwise");
    fs::write(&config, "image = \"/nowhere/a.img\"\naccel = \"tcg\"\n").expect("written");
    story
        .run("k3s-vm setup --name new")
        .exits(1)
        .says("/nowhere/a.img");
    story
        .run("k3s-vm setup --name new --image /nowhere/b.img")
        .exits(1)
        .says("/nowhere/b.img")
        .never_says("a.img");
    fs::write(&config, "cpus = 6\n").expect("written");
    chapter("XDG_CONFIG_HOME is where it is");
    assert_eq!(
        cpus("K3S_VM_TRUSTED_PATHS=/ XDG_CONFIG_HOME=/nowhere k3s-vm status --json --name next"),
        2
    );
    chapter("The same checks, and what is of one project");
    for (text, says) in [
        ("cpus = 2\nmemry = \"4GiB\"\n", "memry"),
        (
            "\napi_port = 6443\n",
            "line 2: api_port cannot be the same for all projects",
        ),
        (
            "\nports = []\n",
            "line 2: ports cannot be the same for all projects",
        ),
        (
            "\nkubeconfig = \"k\"\n",
            "line 2: kubeconfig cannot be the same",
        ),
        (
            "\nimage = \"./a.img\"\n",
            "line 2: image has a relative path",
        ),
    ] {
        fs::write(&config, text).expect("written");
        for verb in ["status", "start", "setup"] {
            story
                .run(&format!("k3s-vm {verb}"))
                .exits(1)
                .says("/.config/k3s-vm/config: ")
                .says("line 2")
                .says(says)
                .says("hint: fix the line, or move the file");
        }
    }
}
