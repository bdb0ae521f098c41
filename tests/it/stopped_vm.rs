//! VMs that were never booted, written by hand: for tests without a guest.

use std::{fs, path::Path};

use crate::{support::TestEnv, transcript::Story};

pub(crate) const NAME: &str = "k3s-shop-1a2b3c";

/// Gives the project a stopped VM that was never booted.
pub(crate) fn add_stopped_vm(story: &Story) {
    add_vm(&story.env, &story.env.project);
}

pub(crate) fn add_vm(env: &TestEnv, project: &Path) {
    let directory = project.join(".k3s-vm");
    crate::support::private_dir(&directory);
    write_record(project, &directory, NAME, ".kube/config");
    trust(env, project, "");
}

/// Approves what the test has written.
pub(crate) fn trust(env: &TestEnv, project: &Path, name: &str) {
    let project = project.to_string_lossy();
    env.ok(&["-C", &project, "--name", name, "trust", "--yes"]);
}

/// Writes the record and the kubeconfig of a VM called `name`, whose files are in `directory`.
pub(crate) fn write_record(project: &Path, directory: &Path, name: &str, kubeconfig: &str) {
    let record = format!(
        r#"{{"schema":3,"name":"{name}","uuid":"4bcc0bb8-8d54-455f-90ad-1de650375771",
            "disk":"20GiB","image":{{"source":"debian-13","path":"/nowhere/debian.img","digest":"{digest}"}},
            "release":{{"version":"v1.33.5+k3s1","binary":"/nowhere/k3s","airgap":null}},"firmware":"bios",
            "api_port":16443,"kubeconfig":"{kubeconfig}","provisioned":true}}"#,
        digest = "0".repeat(64),
    );
    fs::write(directory.join("record.json"), record).expect("written");
    fs::create_dir_all(project.join(".kube")).expect("created");
    let own = directory.ends_with(".k3s-vm");
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: {name}\n  cluster:\n    server: https://127.0.0.1:16443\n    \
         certificate-authority-data: Q0E=\nusers:\n- name: {name}\n  user:\n    client-certificate-data: Q0VSVA==\n    \
         client-key-data: S0VZS0VZ\ncontexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n    \
         extensions:\n    - name: k3s-vm\n      extension:\n        project: {}\ncurrent-context: {name}\n",
        if own { project } else { directory }.display()
    );
    fs::write(project.join(kubeconfig), text).expect("written");
}
