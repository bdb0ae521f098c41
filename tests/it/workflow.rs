//! A VM and the tools around it: shells, other kubeconfigs, scripts, manuals. Nothing here needs a guest.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use serde_json::Value;

use crate::{
    support::{TestEnv, VERSION, code, mode, names},
    transcript::{Story, chapter},
};

const NAME: &str = "k3s-shop-1a2b3c";

/// A user whose project has a machine that is stopped; nothing of it was ever booted.
pub(crate) fn with_a_stopped_machine(story: &Story) {
    give_a_machine(&story.env, &story.env.project);
}

fn give_a_machine(env: &TestEnv, project: &Path) {
    let directory = project.join(".k3s-vm");
    crate::support::private_dir(&directory);
    give_a_record(project, &directory, NAME, ".kube/config");
    trust(env, project, "");
}

/// The user has no doubt about what the test has written.
pub(crate) fn trust(env: &TestEnv, project: &Path, name: &str) {
    let project = project.to_string_lossy();
    env.ok(&["-C", &project, "--name", name, "trust", "--yes"]);
}

/// A machine called `name`, whose files are in `directory`.
pub(crate) fn give_a_record(project: &Path, directory: &Path, name: &str, kubeconfig: &str) {
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

fn home(story: &Story, name: &str) -> PathBuf {
    story.env.path("home").join(name)
}

/// What the user has had for years.
const OWN: &str = "# mine\napiVersion: v1\nkind: Config\nclusters:\n- name: office\n  cluster:\n    \
    server: https://10.0.0.1:6443   # do not touch\nusers:\n- name: office\n  user:\n    token: t\ncontexts:\n\
    - name: office\n  context:\n    cluster: office\n    user: office\ncurrent-context: office\n";

#[test]
fn a_kubeconfig_of_ones_own_takes_the_machine_in_and_lets_it_go() {
    let story = Story::begin("shop");
    with_a_stopped_machine(&story);
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
fn what_is_not_ours_in_a_kubeconfig_stays() {
    let story = Story::begin("shop");
    with_a_stopped_machine(&story);
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
    give_a_machine(&story.env, &copy);
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
fn kubectls_rule_says_which_file_is_ones_own() {
    let story = Story::begin("shop");
    with_a_stopped_machine(&story);
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

#[test]
fn a_shell_gets_the_clusters_address() {
    let story = Story::begin("it's a \"$shop\"");
    with_a_stopped_machine(&story);
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
    with_a_stopped_machine(&colon);
    colon
        .run("k3s-vm env")
        .exits(1)
        .says("has a colon")
        .prints("");
}

/// Has the cache know of the project's machine, as a start does.
fn sign(story: &Story, project: &Path, name: &str) {
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
fn all_machines_are_listed_whatever_became_of_them() {
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
        give_a_machine(&story.env, &place(name));
        sign(&story, &place(name), name);
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
fn every_verb_has_a_page_in_the_manual() {
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
fn a_setup_tells_a_program_what_happens() {
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
fn a_status_is_watched_until_ctrl_c() {
    let story = Story::begin("shop");
    with_a_stopped_machine(&story);
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

/// All bytes of an archive, unpacked.
pub(crate) fn unpacked(archive: &Path) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(fs::File::open(archive).expect("opened"))
        .read_to_end(&mut bytes)
        .expect("gzip");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What no archive may have.
const SECRETS: [&str; 9] = [
    "opensesame",
    "b3BlbnNlc2FtZTEyMzQ1Njc4OTBvcGVuc2VzYW1lQUJDREVG",
    "AAAAC3NzaC1lZDI1NTE5AAAAIOpensesame0123456789",
    "eyJhbGciOiJSUzI1NiIsImtpZCI6Im9wZW5zZXNhbWUxMjMifQ",
    "K10aa11bb22::server:0pensesame",
    "Q0VSVA==",
    "S0VZS0VZ",
    "QyNTUxOQAAACAplainlowercase",
    "plainlowercasehostkey",
];

#[test]
fn a_bundle_has_no_secrets() {
    let story = Story::begin("shop");
    let file = |name: &str| story.env.project.join(".k3s-vm").join(name);
    chapter("No machine: the host alone");
    story
        .run("k3s-vm doctor --bundle ../none.tar.gz")
        .succeeds()
        .prints("../none.tar.gz");
    let none = unpacked(&story.env.path("none.tar.gz"));
    assert!(
        none.contains("QEMU") && none.contains("\"absent\""),
        "{none}"
    );

    chapter("Secrets in every file of the VM");
    with_a_stopped_machine(&story);
    let [word, base64, ssh, jwt, token, ..] = SECRETS;
    let all = format!(
        "it began\nregistry https://ada:{word}@mirror/x\npassword: {word}\nDB_PASSWORD=\"{word} {word}\"\n\
         key {base64} end\nssh-ed25519 {ssh} ada\nAuthorization: Bearer {jwt}.{jwt}.x\nserver --token {token}\n\
         -----BEGIN EC PRIVATE KEY-----\n{word}\n{base64}\n-----END EC PRIVATE KEY-----\nit ended\n"
    );
    for name in [
        "console.log",
        "qemu.log",
        "stages.log",
        "idle.log",
        "suspended.json",
        "odd",
    ] {
        fs::write(file(name), &all).expect("written");
    }
    for (name, key) in [("id_ed25519", SECRETS[7]), ("host_ed25519", SECRETS[8])] {
        let pem = "-----BEGIN OPENSSH PRIVATE KEY-----";
        fs::write(
            file(name),
            format!("{pem}\n{key}\n-----END OPENSSH PRIVATE KEY-----\n"),
        )
        .expect("written");
    }
    let leaked = SECRETS[5..].join(", ") + "\n";
    fs::write(file("console.log"), all.clone() + &leaked).expect("written");
    let config =
        format!("# {word}:{word}@x password={word}\nk3s_mirror = \"https://ada:{word}@mirror/\"\n");
    fs::write(
        file("config"),
        config.replace(&format!("{word}:{word}@x"), "mine"),
    )
    .expect("written");
    let told = story.run("k3s-vm doctor --bundle").succeeds();
    let name = told.ended.stdout.trim().to_owned();
    assert!(
        name.starts_with("k3s-vm-bundle-2") && name.ends_with("Z.tar.gz"),
        "{name}"
    );
    let archive = story.env.project.join(&name);
    assert_eq!(mode(&archive), 0o600);
    let text = unpacked(&archive);
    for secret in SECRETS {
        let at = text
            .find(secret)
            .map(|at| &text[at.saturating_sub(200)..at + 60]);
        assert_eq!(at, None, "{secret}");
    }
    // And what explains the fault is there.
    let parts = story
        .run(&format!("tar -tzf {name} | cut -d / -f 2-"))
        .succeeds();
    for part in [
        "doctor",
        "host",
        "status.json",
        "machine/config",
        "machine/record.json",
        "machine/console.log",
        "machine/qemu.log",
        "machine/stages.log",
        "machine/idle.log",
        "machine/suspended.json",
        "machine/files",
    ] {
        assert!(parts.ended.stdout.lines().any(|it| it == part), "{part}");
    }
    for kept in [
        "it began",
        "it ended",
        "id_ed25519",
        "# mine",
        NAME,
        "https://***@mirror",
    ] {
        assert!(text.contains(kept), "{kept}: {text}");
    }

    chapter("Nothing is overwritten");
    story
        .run(&format!("k3s-vm doctor --bundle {name}"))
        .exits(1)
        .says("hint: it is not overwritten");
    story
        .run("k3s-vm doctor --bundle --json")
        .exits(2)
        .says("cannot be used with");
}
