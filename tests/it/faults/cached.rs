//! The cache is cleared of what no machine needs, and of nothing else, wherever the machines were moved to.

use std::fs;

use rustix::process::Signal;

use super::{
    scene::Scene,
    table::{first_line, row, tell},
};
use crate::support::{Ended, names};

fn prune(scene: &Scene) -> Ended {
    scene.env.run(&["cache", "prune", "--yes"])
}

#[test]
fn what_a_machine_needs_is_not_pruned() {
    let mut scene = Scene::new();
    assert_eq!(scene.env.ok(&["cache", "list"]).stdout, "", "no cache yet");
    scene.finished(".kube/config".as_ref());
    let list = scene.env.ok(&["cache", "list"]).stdout;
    let needed = format!("needed by {}", scene.env.project.display());
    assert_eq!(list.matches(&needed).count(), 3, "{list}");
    for kind in ["base image ", "k3s release ", "prepared disk "] {
        assert_eq!(list.matches(kind).count(), 1, "{list}");
    }
    let words = ["no terminal to ask on", "hint: to go ahead without asking"];
    let asked = scene.env.command(&["cache", "prune"]);
    scene.fails("prune without a terminal", asked, 2, &words);
    let pruned = prune(&scene);
    tell(&scene, "prune of what a machine needs", &pruned);
    assert!(pruned.stderr.contains("nothing to do"), "{pruned:?}");

    // The second machine stands on the same image and release, and takes its own disk with it.
    let away = scene.env.path("away");
    fs::rename(&scene.env.project, &away).expect("moved");
    fs::create_dir(&scene.env.project).expect("created");
    scene.stopped();
    let prepared = || names(&scene.env.cache.join("prepared")).len();
    assert_eq!(prepared(), 2);
    assert_eq!(scene.env.ok(&["reset", "--yes"]).code, 0);
    assert_eq!(prepared(), 1);
    let pruned = prune(&scene);
    tell(&scene, "prune while a project is elsewhere", &pruned);
    assert!(pruned.stderr.contains("nothing to do"), "{pruned:?}");
    scene.env.project.clone_from(&away);
    scene.goes_on(scene.env.command(&["start"]));

    fs::remove_dir_all(&away).expect("removed");
    fs::create_dir(&away).expect("created");
    let pruned = prune(&scene);
    tell(&scene, "prune after a project was removed by hand", &pruned);
    assert!(pruned.stderr.contains("3 files are removed"), "{pruned:?}");
    assert_eq!(scene.env.ok(&["cache", "list"]).stdout, "");
    scene.goes_on(scene.setup(&[]));
}

#[test]
fn a_cache_that_is_about_to_be_needed() {
    let scene = Scene::new();
    let setup = scene.booting();
    let words = [
        "a command is at work on the machine of",
        "hint: wait until it has ended",
    ];
    let pruned = prune(&scene);
    let said = first_line(&scene.env, &pruned.stderr);
    row("prune while a setup is under way", pruned.code, &said, &[]);
    assert_eq!(pruned.code, 1, "{pruned:?}");
    for word in words {
        assert!(pruned.stderr.contains(word), "{word:?}: {pruned:?}");
    }
    setup.signal(Signal::INT);
    assert_eq!(setup.end().code, 130);
    let users = scene.env.cache.join("users");
    let note = names(&users)
        .into_iter()
        .find(|name| name.ends_with(".json"));
    fs::write(users.join(note.expect("a note")), "{").expect("written");
    let words = ["the machine's note in the cache", "hint: remove it"];
    let command = scene.env.command(&["cache", "prune", "--yes"]);
    scene.fails(
        "a machine's note in the cache is torn, prune",
        command,
        1,
        &words,
    );
    scene.goes_on(scene.env.command(&["start"]));
    assert_eq!(prune(&scene).code, 0);
}
