//! The cache is cleared of what no machine needs, and of nothing else, wherever the machines were moved to.

use std::{fs, process::Command};

use rustix::process::Signal;

use super::{
    sandbox::Sandbox,
    table::{first_line, record_stopped_fault, row},
};
use crate::support::{Ended, names};

fn prune(sandbox: &Sandbox) -> Ended {
    sandbox.env.run(&["cache", "prune", "--yes"])
}

#[test]
fn prune_keeps_files_in_use() {
    let mut sandbox = Sandbox::new();
    assert_eq!(
        sandbox.env.ok(&["cache", "list"]).stdout,
        "",
        "no cache yet"
    );
    sandbox.finished(".kube/config".as_ref());
    let list = sandbox.env.ok(&["cache", "list"]).stdout;
    let needed = format!("needed by {}", sandbox.env.project.display());
    assert_eq!(list.matches(&needed).count(), 3, "{list}");
    for kind in ["base image ", "k3s release ", "template "] {
        assert_eq!(list.matches(kind).count(), 1, "{list}");
    }
    let origins = [
        format!("  from {}\n", sandbox.image.display()),
        format!("  from file://{}/", sandbox.mirror.display()),
    ];
    for origin in &origins {
        assert_eq!(list.matches(origin).count(), 1, "{list}");
    }
    let words = [
        "stdin is not a terminal",
        "hint: to go ahead without asking",
    ];
    let asked = sandbox.env.command(&["cache", "prune"]);
    sandbox.fails("prune without a terminal", asked, 2, &words);
    let pruned = prune(&sandbox);
    record_stopped_fault(&sandbox, "prune of what a VM needs", &pruned);
    assert!(pruned.stderr.contains("nothing to do"), "{pruned:?}");

    // The second machine stands on the same image and release, and takes its own disk with it.
    let away = sandbox.env.path("away");
    fs::rename(&sandbox.env.project, &away).expect("moved");
    fs::create_dir(&sandbox.env.project).expect("created");
    sandbox.stopped();
    let prepared = || {
        let mut all = names(&sandbox.env.cache.join("prepared"));
        all.retain(|it| it.ends_with(".qcow2"));
        all.len()
    };
    assert_eq!(prepared(), 2);
    assert_eq!(sandbox.env.ok(&["reset", "--yes"]).code, 0);
    assert_eq!(prepared(), 1);
    let pruned = prune(&sandbox);
    record_stopped_fault(&sandbox, "prune while a project is elsewhere", &pruned);
    assert!(pruned.stderr.contains("nothing to do"), "{pruned:?}");
    sandbox.env.project.clone_from(&away);
    sandbox.continues(sandbox.env.command(&["start"]));

    // To another file system it is copied, and then removed here.
    let other = sandbox.env.path("other");
    let copied = Command::new("cp").arg("-a").args([&away, &other]).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp runs");
    fs::remove_dir_all(&away).expect("removed");
    fs::create_dir(&away).expect("created");
    let pruned = prune(&sandbox);
    record_stopped_fault(
        &sandbox,
        "prune after a project was moved to another file system",
        &pruned,
    );
    let kept = format!("for VMs that are not found in {}", away.display());
    assert!(pruned.stderr.contains(&kept), "{pruned:?}");
    sandbox.env.project.clone_from(&other);
    sandbox.continues(sandbox.env.command(&["start"]));
    let listed = sandbox.env.ok(&["list"]).stdout;
    assert_eq!(listed.matches("k3s-project-").count(), 1, "{listed}");

    fs::remove_dir_all(&other).expect("removed");
    fs::create_dir(&other).expect("created");
    let pruned = sandbox.env.run(&["cache", "prune", "--yes", "--missing"]);
    record_stopped_fault(
        &sandbox,
        "prune --missing after a project was removed by hand",
        &pruned,
    );
    assert!(pruned.stderr.contains("removed 3 files"), "{pruned:?}");
    assert_eq!(sandbox.env.ok(&["cache", "list"]).stdout, "");
    assert_eq!(names(&sandbox.env.cache.join("origins")), [""; 0]);
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn a_cache_that_is_about_to_be_needed() {
    let sandbox = Sandbox::new();
    let setup = sandbox.booting();
    let words = ["a command is running in", "hint: wait until it ends"];
    let pruned = prune(&sandbox);
    let said = first_line(&sandbox.env, &pruned.stderr);
    row("prune while a setup is under way", pruned.code, &said, &[]);
    assert_eq!(pruned.code, 1, "{pruned:?}");
    for word in words {
        assert!(pruned.stderr.contains(word), "{word:?}: {pruned:?}");
    }
    setup.signal(Signal::INT);
    assert_eq!(setup.end().code, 130);
    let users = sandbox.env.cache.join("users");
    let note = names(&users)
        .into_iter()
        .find(|name| name.ends_with(".json"));
    fs::write(users.join(note.expect("a note")), "{").expect("written");
    let words = ["the VM's registration in the cache", "hint: remove it"];
    let command = sandbox.env.command(&["cache", "prune", "--yes"]);
    sandbox.fails(
        "a VM's note in the cache is torn, prune",
        command,
        1,
        &words,
    );
    sandbox.continues(sandbox.env.command(&["start"]));
    assert_eq!(prune(&sandbox).code, 0);
}
