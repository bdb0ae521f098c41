//! The machine set otherwise: its size, k3s's settings, the [network] of a company, [folders](mounts) that its kernel cannot
//! mount. What is taken back is gone. It is one test, for each restart of an emulated guest takes its time.

use std::fs;

use super::{mounts, network::Company, story_of};
use crate::{
    shared::Qemu,
    transcript::{Story, chapter, found},
};

const MANIFEST: &str = "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: deployed
data:
  k: v
";
/// The directory from which k3s deploys manifests.
const MANIFESTS: &str = "/var/lib/rancher/k3s/server/manifests";

#[test]
fn configure_changes_the_vm() {
    let story = story_of("settings");
    story
        .run("k3s-vm kubectl create configmap kept --from-literal=k=v")
        .succeeds();
    rejects_invalid_settings(&story);
    let company = Company::of(&story);
    company.is_unknown_to(&story);
    applies_all_settings(&story, &company);
    unsets_settings(&story, &company);
    story.run("k3s-vm reset --yes").succeeds();
    a_new_vm_has_settings_from_its_first_boot(&story);
}

fn rejects_invalid_settings(story: &Story) {
    chapter("What cannot be is refused, and nothing is changed");
    let config = fs::read(story.file("config")).expect("there");
    story
        .run("k3s-vm configure")
        .exits(2)
        .says("there is nothing to change");
    fs::write(story.env.project.join("wrong.yaml"), "- no\n").expect("written");
    for (flags, code, word) in [
        ("--disk 3GiB", 2, "too small"),
        ("--disk 4095MiB", 2, "too small"),
        ("--memory 512MiB", 2, "too small"),
        (
            "--k3s-arg=--node-name=x",
            2,
            "k3s-vm sets it and relies on it",
        ),
        (
            "--k3s-arg '--a b'",
            2,
            "expected one word, e.g. --cluster-cidr=10.52.0.0/16",
        ),
        (
            "--node-label kubernetes.io/x=y",
            2,
            "Kubernetes does not allow",
        ),
        ("--registries none.yaml", 1, "none.yaml"),
        ("--registries wrong.yaml", 2, "no mirrors"),
        ("--manifest .kube", 2, "no .yaml, .yml or .json"),
        ("--ca-certificate wrong.yaml", 2, "no certificate"),
        ("--http-proxy ftp://me:secret@x", 2, "invalid proxy"),
        ("--dns example.com", 2, "example.com"),
        ("--unset nonsense", 1, "unknown key \"nonsense\""),
    ] {
        story
            .run(&format!("k3s-vm configure {flags}"))
            .exits(code)
            .says(word)
            .never_says("secret");
    }
    assert_eq!(fs::read(story.file("config")).expect("there"), config);
}

fn applies_all_settings(story: &Story, company: &Company) {
    chapter("The VM is set otherwise, at its next start");
    let deploy = story.env.project.join("deploy");
    fs::create_dir_all(deploy.join("more")).expect("made");
    fs::write(deploy.join("more/app.yaml"), MANIFEST).expect("written");
    fs::write(deploy.join("README.md"), "no manifest").expect("written");
    let size = disk(story);
    story
        .run(
            "k3s-vm configure --memory 1664MiB --disk 5GiB --disable traefik,servicelb \
             --k3s-arg=--kubelet-arg=max-pods=200 --k3s-arg disable=metrics-server --node-label tier=dev \
             --manifest deploy",
        )
        .succeeds()
        .prints("")
        .says("from the next start on:")
        .says("memory = 1664MiB instead of 1536MiB")
        .says("disk = 5GiB instead of 4GiB")
        .says("the settings of k3s")
        .says("to restart it: k3s-vm restart");
    story
        .run("cat .k3s-vm/config")
        .succeeds()
        .says("[k3s]\nargs = [\"--kubelet-arg=max-pods=200\", \"--disable=metrics-server\"]")
        .says("manifests = [\"deploy\"]");
    company
        .configures(story)
        .succeeds()
        .says("growing the disk to 5GiB");
    let config = "k3s-vm ssh cat /etc/rancher/k3s/config.yaml";
    let config = story.run(config).succeeds().ended.stdout;
    let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!(
        config["disable"],
        serde_json::json!(["traefik", "servicelb", "metrics-server"])
    );
    assert_eq!(config["node-label"], "tier=dev");
    assert_eq!(config["kubelet-arg"], "max-pods=200");
    story
        .run(&format!("k3s-vm ssh cat {MANIFESTS}/k3s-vm/more/app.yaml"))
        .succeeds()
        .prints(MANIFEST.trim_end());
    story
        .run(&format!("k3s-vm ssh ls {MANIFESTS}/k3s-vm"))
        .succeeds()
        .prints("more");
    assert!(disk(story) > size + (900 << 20), "{size}");
    assert_eq!(story.status()["machine"]["disk"], 5_u64 << 30);
    kept(story);
    story
        .run("k3s-vm configure --disk 4GiB")
        .exits(2)
        .says("cannot change the disk size from 5GiB to 4GiB");
    found("k3s, the guest and the disk are as they were asked to be, and nothing was lost");
    company.is_known_to(story);
    let before = story.qemu();
    story
        .run("k3s-vm configure --timeout 20m --restart")
        .succeeds()
        .says("saved to");
    assert_eq!(story.qemu(), before, "what needs no restart has none");
}

fn unsets_settings(story: &Story, company: &Company) {
    chapter("What is taken back is gone, from a suspended machine, too, which boots for it");
    story
        .run(
            "k3s-vm configure --unset k3s.args,k3s.disable --unset k3s.labels,k3s.manifests,k3s.registries \
             --unset network.http_proxy,network.https_proxy,network.no_proxy,network.ca,network.dns \
             --unset host_access --no-restart",
        )
        .succeeds()
        .says("to restart it: k3s-vm restart");
    mounts::one_is_asked_for(story);
    story.run("k3s-vm stop --suspend").succeeds();
    story
        .run("k3s-vm configure --cpus 2")
        .exits(3)
        .says("is suspended")
        .says("hint: resume it: k3s-vm start");
    let start = story
        .run("sed -i 's/^.k3s.$/&\\nlabels = [\"tier=late\"]/' .k3s-vm/config && k3s-vm start")
        .says(" instead of resuming: it was started differently");
    mounts::this_kernel_cannot(story, start);
    story
        .run("k3s-vm ssh 'cat /etc/rancher/k3s/config.yaml && ls /etc/rancher/k3s'")
        .succeeds()
        .says("tier=late")
        .never_says("disable")
        .never_says("registries.yaml");
    story
        .run(&format!("k3s-vm ssh 'find {MANIFESTS}/k3s-vm -type f'"))
        .succeeds()
        .prints("");
    company.is_unknown_to(story);
    kept(story);
}

/// The size of the guest's root file system in bytes.
fn disk(story: &Story) -> u64 {
    let told = story.run("k3s-vm ssh df --output=size -B1 /").succeeds();
    let size = told.ended.stdout.lines().last().unwrap_or_default();
    size.trim().parse().expect("a number")
}

fn kept(story: &Story) {
    story
        .run("k3s-vm kubectl get configmap kept -o jsonpath={.data.k}")
        .succeeds()
        .prints("v");
}

fn a_new_vm_has_settings_from_its_first_boot(story: &Story) {
    chapter("A new VM, from a template");
    let qemu = Qemu::newest();
    qemu.prepare();
    let setup = format!("k3s-vm setup {}", qemu.flags(story));
    story.run("rm .k3s-vm/config").succeeds();
    story
        .run(&format!(
            "HTTPS_PROXY=http://me:word@127.0.0.1:3128 NO_PROXY=corp.example,127.0.0.1 {setup} --node-label tier=new"
        ))
        .succeeds()
        .says("the guest uses the proxies of the environment");
    story
        .run("k3s-vm ssh 'tr \"\\0\" \"\\n\" </proc/$(pidof -s k3s)/environ'")
        .succeeds()
        .says("HTTPS_PROXY=http://me:word@10.0.2.2:3128")
        .says("10.43.0.0/16,.cluster.local,corp.example");
    let boot =
        "k3s-vm ssh 'cat /etc/k3s-vm/machine; ls --time-style=full-iso -l /etc/k3s-vm/machine'";
    let mark = story.run(boot).succeeds().ended.stdout;
    story.run("k3s-vm restart --force").succeeds();
    story.run(boot).succeeds().prints(mark.trim_end());
    found("an unchanged VM does not look at its settings again");
    story.run("k3s-vm stop --suspend").succeeds();
    story
        .run(
            "sed -i s/tier=new/tier=newer/ .k3s-vm/config; k3s-vm start 2>told & \
             wait_until \"! kill -0 $! || grep -qs 'starting ' told\"; \
             kill -INT $!; wait $!; code=$?; cat told; exit $code",
        )
        .exits(130)
        .says(" instead of resuming: its configuration has changed");
    story.run("k3s-vm reset --yes").succeeds();
}
