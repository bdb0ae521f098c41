//! Shells, scripts, manuals and other projects around a VM. Nothing here needs a guest.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::UNIX_EPOCH};

use serde_json::Value;

use crate::{
    stopped_vm::{NAME, add_stopped_vm, add_vm},
    support::{VERSION, code, mode, names},
    transcript::{Story, chapter},
};

#[test]
fn env_selects_the_cluster() {
    let story = Story::begin("it's a \"$shop\"");
    add_stopped_vm(&story);
    let project = fs::canonicalize(&story.env.project).expect("there");
    let kubeconfig = project.join(".kube/config").display().to_string();
    story
        .run("k3s-vm kubeconfig")
        .succeeds()
        .prints(&kubeconfig);
    story
        .run("k3s-vm kubeconfig --path")
        .succeeds()
        .prints(&kubeconfig);
    story
        .run("k3s-vm kubeconfig --print")
        .succeeds()
        .says("server: https://127.0.0.1:16443");
    // Twice is once, and nothing of it stays.
    let bin = project.join(".k3s-vm/bin").display().to_string();
    for shell in ["bash", "sh", "zsh"] {
        let told = story.run(&format!(
            "before=$PATH; for i in 1 2; do eval \"$(k3s-vm env --shell {shell})\"; done; \
             echo \"$KUBECONFIG\"; echo \"${{PATH%:\"$before\"}}\"; \
             eval \"$(k3s-vm env --unset)\"; echo \"${{KUBECONFIG-none}}\"; [ \"$PATH\" = \"$before\" ] && echo same"
        ));
        told.succeeds()
            .says("is stopped")
            .prints(&format!("{kubeconfig}\n{bin}\nnone\nsame"));
    }
    story
        .run(
            "before=$PATH; eval \"$(k3s-vm env -q)\"; cd /; eval \"$(k3s-vm env --unset)\"; \
             echo \"${KUBECONFIG-none}\"; [ \"$PATH\" = \"$before\" ] && echo same",
        )
        .succeeds()
        .prints("none\nsame");
    story
        .run("cd / && KUBECONFIG=/mine k3s-vm env --unset")
        .succeeds()
        .prints("");
    story
        .run("SHELL=/bin/fish k3s-vm env -q")
        .succeeds()
        .says("set -gx KUBECONFIG");
    story
        .run("SHELL=/bin/zsh k3s-vm env -q")
        .succeeds()
        .says("export KUBECONFIG");
    story
        .run("SHELL=/bin/nu k3s-vm env")
        .exits(2)
        .says("hint: ")
        .prints("");
    let colon = Story::begin("a:b");
    add_stopped_vm(&colon);
    colon
        .run("k3s-vm env")
        .exits(1)
        .says("has a colon")
        .prints("");
}

/// Registers the project's VM in the cache, as a start does.
fn register(story: &Story, project: &Path, name: &str) {
    let directory = project.join(".k3s-vm");
    let metadata = fs::metadata(&directory).expect("there");
    let made = metadata.created().expect("the file system knows");
    let made = made
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos();
    let id: String = name.bytes().map(|it| format!("{it:02x}")).collect();
    let id = &format!("{id:0<16}");
    let marks = format!("{id} {}-{made}\n", metadata.ino());
    fs::write(directory.join("id"), marks).expect("written");
    let users = story.env.cache.join("users");
    fs::create_dir_all(&users).expect("created");
    let note = serde_json::json!({"schema": 1, "project": project, "name": NAME, "needs": []});
    fs::write(users.join(id).with_extension("json"), note.to_string()).expect("written");
    let lock = project.join(".k3s-vm/lock");
    fs::write(&lock, "").expect("written");
    fs::hard_link(&lock, users.join(id).with_extension("lock")).expect("linked");
}

#[test]
fn list_shows_all_vms() {
    let story = Story::begin("shop");
    story
        .run("k3s-vm list")
        .succeeds()
        .says("no VMs; create one: k3s-vm setup")
        .prints("");
    let root = story.env.project.parent().expect("a parent").to_owned();
    let place = |name: &str| root.join(name);
    for name in ["shop", "moved", "gone", "torn", "odd", "empty"] {
        fs::create_dir_all(place(name)).expect("created");
        add_vm(&story.env, &place(name));
        register(&story, &place(name), name);
    }
    fs::rename(place("moved"), place("elsewhere")).expect("moved");
    fs::remove_dir_all(place("gone")).expect("removed");
    fs::write(place("torn/.k3s-vm/record.json"), "{").expect("written");
    fs::write(place("odd/.k3s-vm/config"), "cpus = 900\n").expect("written");
    fs::remove_file(place("empty/.k3s-vm/record.json")).expect("removed");
    fs::write(story.env.cache.join("users/bad.json"), "{").expect("written");
    fs::write(place("shop/.k3s-vm/config"), "cpus = 3\n").expect("written");
    let before = names(&story.env.cache.join("users"));

    let json = story.run("k3s-vm list --json").succeeds().ended.stdout;
    let list: Value = serde_json::from_str(&json).expect("one document");
    assert_eq!(list["schema"], 1);
    let seen = |key: &str| {
        let machines = list["machines"].as_array().expect("a list").iter();
        machines.map(|it| it[key].clone()).collect::<Vec<_>>()
    };
    let places = ["moved", "odd", "shop", "torn"].map(|name| place(name).display().to_string());
    assert_eq!(seen("project"), places);
    assert_eq!(seen("state"), ["moved", "damaged", "stopped", "damaged"]);
    assert_eq!(seen("name"), [NAME; 4]);
    assert_eq!(seen("cpus")[2], 3);
    assert_eq!(seen("api_port")[2], 16443);
    story
        .run("cd / && k3s-vm list")
        .succeeds()
        .says("NAME             STATE")
        .says("API 16443")
        .says("/torn (");
    assert_eq!(
        names(&story.env.cache.join("users")),
        before,
        "nothing is changed"
    );
}

#[test]
fn every_command_has_a_manual_page() {
    let story = Story::begin("shop");
    chapter("The pages, for everybody to read");
    story
        .run("k3s-vm man ../man/man1")
        .succeeds()
        .says("pages to ../man/man1")
        .prints("");
    let topics = names(&story.env.path("man/man7"));
    assert!(
        topics.iter().any(|it| it == "k3s-vm-network.7"),
        "{topics:?}"
    );
    let pages = names(&story.env.path("man/man1"));
    assert!(
        !pages.iter().any(|it| it.contains("idle-watch")),
        "{pages:?}"
    );
    for page in [
        "k3s-vm.1",
        "k3s-vm-setup.1",
        "k3s-vm-kubectl.1",
        "k3s-vm-cache-prune.1",
    ] {
        assert!(pages.iter().any(|it| it == page), "{pages:?}");
    }
    for page in &pages {
        let path = story.env.path("man/man1").join(page);
        assert_eq!(mode(&path), 0o644);
        let text = fs::read_to_string(&path).expect("read");
        assert!(text.contains(".SH NAME\n"), "{page}: {text}");
        let nested = ["cache", "image", "port", "snapshot"]
            .iter()
            .any(|it| page.starts_with(&format!("k3s-vm-{it}-")));
        assert!(
            nested || text.contains(".SH \"EXAMPLES\"\n"),
            "{page}: {text}"
        );
    }
    story
        .run("cd .. && k3s-vm man man/man1 && k3s-vm man | diff - man/man1/k3s-vm.1")
        .succeeds();
    let main = fs::read_to_string(story.env.path("man/man1/k3s-vm.1")).expect("read");
    assert!(main.contains("\nk3s\\-vm stop; k3s\\-vm start\n"), "{main}");
    story
        .run("k3s-vm man /dev/null/man1")
        .exits(1)
        .says("/dev/null/man1");
}

/// The documents of a command that prints one a line.
pub(crate) fn documents(stdout: &str) -> Vec<Value> {
    let read = |line: &str| {
        let document: Value = serde_json::from_str(line).expect("a JSON document a line");
        assert_eq!(document["schema"], 1, "{line}");
        document
    };
    stdout.lines().map(read).collect()
}

#[test]
fn setup_prints_json_events() {
    let story = Story::begin("shop");
    let absent = story.run("k3s-vm start --json").exits(4).says("error: ");
    let events = documents(&absent.ended.stdout);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(
        (&events[0]["event"], &events[0]["code"]),
        (&"error".into(), &4.into())
    );
    assert_eq!(events[0]["hints"][0], "create it: k3s-vm setup");

    chapter("Transfers, and an error with its way out");
    let mirror = story.env.mirror();
    let failed = story
        .run(&format!(
            "qemu-img create -q -f qcow2 ../big.qcow2 9G; \
             k3s-vm setup --json -q --accel tcg --image ../big.qcow2 --disk 4GiB \
             --k3s-version {VERSION} --k3s-mirror {mirror}"
        ))
        .exits(1);
    assert!(failed.ended.stderr.starts_with("error: "), "{failed:?}");
    let events = documents(&failed.ended.stdout);
    let image = |event: &&Value| event["event"] == "progress" && event["what"] == "big.qcow2";
    let progress: Vec<&Value> = events.iter().filter(image).collect();
    let (first, last) = (
        progress.first().expect("begun"),
        progress.last().expect("ended"),
    );
    assert_eq!(first["done"], 0);
    assert_eq!(last["done"], last["total"], "{events:?}");
    let error = events.last().expect("the last one");
    assert_eq!(error["event"], "error");
    assert!(
        error["hints"][0]
            .as_str()
            .is_some_and(|it| it.contains("--disk")),
        "{error}"
    );
    assert!(error["seconds"].as_f64().is_some_and(|it| it > 0.0));

    chapter("Whatever reports has a document");
    for verb in ["cache list", "list", "doctor"] {
        let told = story.run(&format!("k3s-vm {verb} --json")).succeeds();
        let document: Value = serde_json::from_str(&told.ended.stdout).expect("one document");
        assert_eq!(document["schema"], 1, "{verb}");
    }
    let cache = story.run("k3s-vm cache list --json").ended.stdout;
    let cache: Value = serde_json::from_str(&cache).expect("one document");
    assert_eq!(cache["items"][0]["kind"], "k3s release");
}

#[test]
fn status_watch_ends_with_ctrl_c() {
    let story = Story::begin("shop");
    add_stopped_vm(&story);
    story
        .run("k3s-vm status --watch")
        .exits(2)
        .says("hint: for a pipe, one document a line: k3s-vm status --watch --json")
        .prints("");
    let two = story.run("k3s-vm status --watch --json | head -n 2");
    let states: Vec<Value> = documents(&two.exits(3).ended.stdout)
        .iter()
        .map(|it| it["state"].clone())
        .collect();
    assert_eq!(states, ["stopped", "stopped"]);

    chapter("On a terminal, which is then as it was");
    let mut command = story
        .env
        .command(&["status", "--watch", "--color", "never"]);
    command.env("TERM", "xterm");
    let (code, screen) = interrupted_at(command, "\x1b[J\x1b[H");
    assert_eq!(code, 3, "{screen:?}");
    assert!(
        screen.starts_with("\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H"),
        "{screen:?}"
    );
    let (_, after) = screen
        .split_once("\x1b[?7h\x1b[?25h\x1b[?1049l")
        .expect("as before");
    assert!(
        after.starts_with("VM ") && after.contains("stopped"),
        "{after:?}"
    );
    assert!(!after.contains('\x1b'), "{after:?}");
}

/// Runs a command on a terminal until that is on the screen, interrupts it, and gives its exit code and the screen.
fn interrupted_at(mut command: std::process::Command, seen: &str) -> (i32, String) {
    use std::{io::Read, process::Stdio};
    let terminal = nix::pty::openpty(None, None).expect("a terminal");
    let side = || Stdio::from(terminal.slave.try_clone().expect("cloned"));
    command.stdin(side()).stdout(side()).stderr(side());
    let mut child = command.spawn().expect("the program runs");
    drop((command, terminal.slave));
    let mut master = fs::File::from(terminal.master);
    let (mut screen, mut some, mut told) = (String::new(), [0; 4096], false);
    while let Ok(read @ 1..) = master.read(&mut some) {
        screen += &String::from_utf8_lossy(&some[..read]);
        if screen.contains(seen) && !told {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("told");
            told = true;
        }
    }
    (code(child.wait().expect("it ends")), screen)
}
