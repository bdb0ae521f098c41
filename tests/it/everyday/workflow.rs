//! A real machine in the shells, kubeconfigs and scripts of its user.

use serde_json::Value;

use super::story_of;
use crate::{
    bundle::unpacked,
    transcript::{Story, chapter},
    workflow::documents,
};

#[test]
fn a_vm_and_the_tools_around_it() {
    let story = story_of("desk");
    let name = story.status()["machine"]["name"]
        .as_str()
        .expect("a name")
        .to_owned();

    shells_know_the_cluster(&story, &name);
    list_shows_the_vm(&story, &name);
    merge_into_the_users_kubeconfig(&story, &name);
    bundle_has_no_secrets(&story);
    json_events_of_all_commands(&story, &name);

    story.run("k3s-vm reset --yes").succeeds();
    story.run("k3s-vm list").succeeds().never_says("/desk");
}

fn shells_know_the_cluster(story: &Story, name: &str) {
    chapter("A shell that knows the cluster, in whatever directory");
    story
        .run("eval \"$(k3s-vm env)\"; cd /; kubectl get nodes -o name; type -P kubectl")
        .succeeds()
        .says(&format!("node/{name}"))
        .says("/desk/.k3s-vm/bin/kubectl");
    story
        .run("eval \"$(k3s-vm env)\"; eval \"$(k3s-vm env --unset)\"; echo \"${KUBECONFIG-none}\"")
        .succeeds()
        .prints("none");
    story
        .run("kubectl --kubeconfig \"$(k3s-vm kubeconfig)\" get nodes -o name")
        .succeeds()
        .prints(&format!("node/{name}"));
}

fn list_shows_the_vm(story: &Story, name: &str) {
    chapter("One among all VMs");
    let port = story.status()["process"]["ssh_port"].to_string();
    story
        .run("k3s-vm -C / list")
        .succeeds()
        .says(&format!("{name}  running  2     1.5 GiB"))
        .says(&format!("SSH {port}"));
    story
        .run("kill -STOP $(cat .k3s-vm/qemu.pid); k3s-vm list; kill -CONT $(cat .k3s-vm/qemu.pid)")
        .succeeds()
        .says("/desk (QEMU does not answer)");
}

fn merge_into_the_users_kubeconfig(story: &Story, name: &str) {
    chapter("In a kubeconfig that kubectl has written");
    story
        .run("kubectl config set-cluster office --server https://10.0.0.1 && kubectl config set-context office --cluster office && kubectl config use-context office")
        .succeeds();
    story
        .run("kubectl config view > before && k3s-vm kubeconfig --merge")
        .succeeds();
    story.run("kubectl config current-context").prints("office");
    story
        .run(&format!("kubectl --context {name} get nodes -o name"))
        .succeeds()
        .prints(&format!("node/{name}"));
    story
        .run("kubectl --kubeconfig ~/.kube/config config view -o jsonpath='{.contexts[*].name}'")
        .succeeds()
        .says("office")
        .says(name);
    // kubectl writes it again in its own way; our entries are still recognised.
    story
        .run(&format!(
            "kubectl config set-context {name} --namespace kube-system && k3s-vm kubeconfig --merge"
        ))
        .succeeds();
    story
        .run(&format!("kubectl config view -o jsonpath='{{.contexts[?(@.name==\"{name}\")].context.namespace}}'"))
        .prints("kube-system");
    story
        .run("k3s-vm kubeconfig --unmerge && kubectl config view | diff before -")
        .succeeds();
}

fn json_events_of_all_commands(story: &Story, name: &str) {
    chapter("A program that runs it and reads what happens");
    let setup = story.run("k3s-vm setup --json -q").succeeds();
    let events = documents(&setup.ended.stdout);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["event"], "done");
    assert_eq!(events[0]["nothing_to_do"], true);
    let watched = story
        .run("k3s-vm status --watch --json | head -n 2")
        .succeeds();
    for status in documents(&watched.ended.stdout) {
        assert_eq!(status["healthy"], true, "{status}");
    }
    story
        .run("k3s-vm stop --suspend && k3s-vm list")
        .succeeds()
        .says("suspended");
    let started = story
        .run("k3s-vm start --json")
        .succeeds()
        .says("API is ready");
    let events = documents(&started.ended.stdout);
    let ready = |event: &Value| event["event"] == "stage" && event["message"] == "API is ready";
    assert!(events.iter().any(ready), "{events:?}");
    let done = events.last().expect("the last one");
    assert_eq!(
        (&done["event"], &done["name"]),
        (&"done".into(), &name.into())
    );
    assert!(
        done["phases"].as_array().is_some_and(|it| !it.is_empty()),
        "{done}"
    );
    let kubeconfig = done["kubeconfig"].as_str().expect("a path");
    story
        .run(&format!(
            "kubectl --kubeconfig {kubeconfig} get nodes -o name"
        ))
        .succeeds()
        .prints(&format!("node/{name}"));
}

fn bundle_has_no_secrets(story: &Story) {
    chapter("What goes with a report of a fault");
    let kubeconfig = story
        .run("k3s-vm kubeconfig --print")
        .succeeds()
        .ended
        .stdout;
    let key = std::fs::read_to_string(story.file("id_ed25519")).expect("a key");
    let long = |word: &&str| word.len() > 60;
    let own: Vec<&str> = kubeconfig
        .split_whitespace()
        .chain(key.lines())
        .filter(long)
        .collect();
    assert!(own.len() >= 4, "{}", own.len());
    // A unit of the guest tells all of them.
    let says = format!("password=opensesame {}", own.join(" "));
    story
        .run(&format!(
            "k3s-vm ssh \"systemd-run --quiet --wait --unit k3s-vm-talk echo '{says}'\" && \
             k3s-vm ssh journalctl --sync"
        ))
        .succeeds();
    story
        .run("k3s-vm doctor --bundle ../bundle.tar.gz")
        .succeeds();
    let text = unpacked(&story.env.path("bundle.tar.gz"));
    for secret in own.into_iter().chain(["opensesame"]) {
        assert!(!text.contains(secret), "{secret}");
    }
    for kept in [
        "password=[removed]",
        "guest/k3s.journal",
        "machine/record.json",
        "\"healthy\": true",
    ] {
        assert!(text.contains(kept), "{kept}: {text}");
    }
}
