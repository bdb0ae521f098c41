//! `kubeconfig --merge` and `--unmerge`. Nothing here needs a guest.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
};

use crate::{
    stopped_vm::{NAME, add_stopped_vm, add_vm},
    support::{mode, names},
    transcript::{Story, chapter},
};

fn home(story: &Story, name: &str) -> PathBuf {
    story.env.path("home").join(name)
}

/// A user's own kubeconfig.
const OWN: &str = "# mine\napiVersion: v1\nkind: Config\nclusters:\n- name: office\n  cluster:\n    \
    server: https://10.0.0.1:6443   # do not touch\nusers:\n- name: office\n  user:\n    token: t\ncontexts:\n\
    - name: office\n  context:\n    cluster: office\n    user: office\ncurrent-context: office\n";

#[test]
fn merge_and_unmerge() {
    let story = Story::begin("shop");
    add_stopped_vm(&story);
    chapter("A home without a kubeconfig");
    let own = home(&story, ".kube/config");
    story
        .run("k3s-vm kubeconfig --unmerge")
        .succeeds()
        .says("is up to date");
    assert!(!own.exists());
    let merged = story.run("k3s-vm kubeconfig --merge").succeeds();
    merged
        .says("no current context")
        .prints(own.to_str().expect("Unicode"));
    assert_eq!(mode(&own), 0o600);
    assert_eq!(names(&home(&story, ".kube")), ["config"]);
    let contexts = "kubectl config get-contexts -o name";
    story.run(contexts).succeeds().prints(NAME);
    story
        .run("kubectl config current-context")
        .exits(1)
        .says("current-context is not set");

    chapter("One of years");
    fs::write(&own, OWN).expect("written");
    fs::set_permissions(&own, PermissionsExt::from_mode(0o640)).expect("set");
    story
        .run("k3s-vm kubeconfig --merge")
        .succeeds()
        .says("its current context is still office");
    assert_eq!(mode(&own), 0o640, "modes stay");
    let text = fs::read_to_string(&own).expect("read");
    assert!(OWN.lines().all(|line| text.contains(line)), "{text}");
    story
        .run(contexts)
        .succeeds()
        .prints(&format!("{NAME}\noffice"));
    story.run("kubectl config current-context").prints("office");
    let backups: Vec<String> = names(&home(&story, ".kube"))
        .into_iter()
        .filter(|name| name.starts_with("config.k3s-vm-backup-"))
        .collect();
    assert_eq!(backups.len(), 1, "{backups:?}");
    let backup = home(&story, ".kube").join(&backups[0]);
    assert_eq!(
        (mode(&backup), fs::read_to_string(&backup).expect("read")),
        (0o600, OWN.to_owned())
    );
    story
        .run("k3s-vm kubeconfig --merge")
        .succeeds()
        .says("is up to date");
    assert_eq!(names(&home(&story, ".kube")).len(), 2, "no second copy");

    chapter("A reset tells of it, and it can still be taken out");
    story
        .run(&format!(
            "kubectl config use-context {NAME} && k3s-vm reset --yes"
        ))
        .succeeds()
        .says("k3s-vm kubeconfig --unmerge");
    story
        .run("k3s-vm kubeconfig --unmerge")
        .succeeds()
        .says("was the current context");
    story.run(contexts).succeeds().prints("office");
    story.run("kubectl config current-context").exits(1);
    story
        .run("kubectl config view -o jsonpath='{.clusters[*].name} {.users[*].name}'")
        .prints("office office");
}

#[test]
fn merge_keeps_foreign_entries() {
    let story = Story::begin("shop");
    add_stopped_vm(&story);
    fs::create_dir(home(&story, ".kube")).expect("created");
    let own = home(&story, ".kube/config");
    for (text, says) in [
        (
            OWN.replace("office", NAME),
            "its cluster k3s-shop-1a2b3c does not belong to this VM",
        ),
        ("a: b: c".to_owned(), "invalid kubeconfig"),
        (
            "clusters: [{name: a, cluster: {server: b}}]\n".to_owned(),
            "does not edit",
        ),
    ] {
        fs::write(&own, &text).expect("written");
        story
            .run("k3s-vm kubeconfig --merge")
            .exits(1)
            .says(says)
            .says("hint: ");
        assert_eq!(fs::read_to_string(&own).expect("read"), text);
        assert_eq!(
            names(&home(&story, ".kube")),
            ["config"],
            "no lock, no copy"
        );
    }

    chapter("A copy of the project has a VM of the same name");
    fs::write(&own, OWN).expect("written");
    story.run("k3s-vm kubeconfig --merge").succeeds();
    let copy = story.env.path("copy");
    fs::create_dir(&copy).expect("created");
    add_vm(&story.env, &copy);
    story
        .run("cd ../copy && k3s-vm kubeconfig --merge")
        .exits(1)
        .says("which has the same name")
        .says("kubeconfig --unmerge");

    chapter("A lock that stays, as of a kubectl that died");
    fs::write(home(&story, ".kube/config.lock"), "").expect("written");
    story
        .run("k3s-vm kubeconfig --unmerge")
        .exits(1)
        .says("config.lock still exists after 5s")
        .says("hint: if no program is using it, remove the lock: rm -f");
    fs::remove_file(home(&story, ".kube/config.lock")).expect("removed");

    chapter("A link is followed, and one that leads nowhere is said");
    let kept = home(&story, "dotfiles");
    fs::rename(&own, &kept).expect("moved");
    symlink("../dotfiles", &own).expect("linked");
    story.run("k3s-vm kubeconfig --unmerge").succeeds();
    assert!(own.is_symlink());
    assert_eq!(
        fs::read_to_string(&kept).expect("read"),
        OWN,
        "byte for byte"
    );
    fs::remove_file(&kept).expect("removed");
    story
        .run("k3s-vm kubeconfig --merge")
        .exits(1)
        .says("is a dangling symbolic link");
}

#[test]
fn merge_follows_kubectls_rule() {
    let story = Story::begin("shop");
    add_stopped_vm(&story);
    let path = |name: &str| story.env.path(name).display().to_string();
    fs::write(path("second"), OWN).expect("written");
    let [first, second] = [path("first"), path("second")];
    let merge = "k3s-vm kubeconfig --merge -q";
    story
        .run(&format!("KUBECONFIG={first}:{second} {merge}"))
        .succeeds()
        .prints(&second);
    story
        .run(&format!("KUBECONFIG={first}:{first}x {merge}"))
        .succeeds()
        .prints(&format!("{first}x"));
    story
        .run(&format!("KUBECONFIG={first} {merge}"))
        .succeeds()
        .prints(&first);
    // What `env` has set is the machine's own, and not the user's.
    let own = home(&story, ".kube/config").display().to_string();
    story
        .run(&format!("eval \"$(k3s-vm env -q)\"; {merge}"))
        .succeeds()
        .prints(&own);
    story
        .run("k3s-vm kubeconfig --merge --print")
        .exits(2)
        .says("cannot be used with");
}
