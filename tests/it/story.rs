//! The main job from its beginning to its end, on a real guest: setup, kubectl, stop, start, a crash, reset, setup again.
//!
//! It is one test, for each boot of an emulated guest takes a minute or two, and it prints its steps:
//! `cargo test --test it story -- --nocapture`.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use k3s_vm::k3s::Kubeconfig;
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::json;

use crate::{
    guest::Guest,
    identity::{differs, identity, is_in_nothing_published},
    prepared::made,
    shared::Qemu,
    support::{VERSION, guest_image, mode, names},
    transcript::{Story, Told, chapter, found},
};

#[test]
fn from_nothing_to_a_cluster_and_back() {
    let qemu = Qemu::Host;
    let mut story = Story::begin("shop");
    let guest = Guest::stand_in(&story);
    nothing_is_there(&story);
    let lock = qemu.lock();
    if !qemu.is_prepared() {
        // Other tests begin from what this setup leaves.
        story.env.cache = qemu.cache();
    }
    setup_makes_a_cluster(&story, &guest);
    drop(lock);
    lives_and_goes(&story, &guest);
}

/// What follows a setup from nothing, with any guest. It ends with no machine, and with what that setup has left in the
/// cache.
pub(crate) fn lives_and_goes(story: &Story, guest: &Guest) {
    let identity = identity(story);
    its_files_are_private_and_out_of_the_way(story);
    kubectl_is_the_real_one(story, guest);
    tools_find_the_cluster(story);
    status_tells_what_is(story, guest);
    a_second_setup_has_nothing_to_do(story);
    ssh_is_a_pipe_into_the_guest(story);
    the_guest_keeps_its_secrets(story);
    logs_are_at_hand(story);
    only_loopback_listens(story);
    stop_is_orderly(story);
    is_in_nothing_published(story, &identity);
    start_finds_everything_as_it_was(story, guest);
    assert_eq!(self::identity(story), identity);
    a_killed_qemu_is_seen_and_survived(story);
    secrets_are_in_no_output(story);
    reset_takes_the_machine_and_leaves_the_choices(story);
    setup_again_fetches_nothing(story, guest);
    let mut again = self::identity(story);
    // Both are called after the project.
    again.remove("name");
    differs(&again, &identity);
    a_running_machine_is_stopped_by_reset(story);
}

/// The second QEMU that has to do, for users of newer distributions.
#[test]
#[ignore = "needs QEMU 10 under target/qemu10, where tests/run.sh unpacks it"]
fn the_same_on_qemu_10() {
    let qemu = Qemu::Newer;
    let lock = qemu.lock();
    let mut story = qemu.story("newer");
    if qemu.is_prepared() {
        story.env.cache = story.env.path("cache");
    }
    chapter("QEMU 10 does as well, and UEFI boots, too");
    story
        .run("qemu-system-x86_64 --version")
        .succeeds()
        .says("version 10.");
    let setup = format!("k3s-vm setup {}", qemu.flags(&story));
    made(&story, &setup).says("guest booted");
    drop(lock);
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    story.run("k3s-vm ssh test -d /sys/firmware/efi").succeeds();
    story
        .run("k3s-vm ssh 'echo kept >/run/mark' && k3s-vm stop --suspend")
        .succeeds()
        .says("suspended; to resume: k3s-vm start");
    story.run("k3s-vm status").exits(3).says("suspended");
    story
        .run("k3s-vm start")
        .succeeds()
        .says("resuming")
        .never_says("instead of resuming");
    story
        .run("k3s-vm ssh cat /run/mark")
        .succeeds()
        .prints("kept");
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    story.run("k3s-vm stop").succeeds().never_says("by force");
    story.run("k3s-vm reset --yes").succeeds();
    comes_again_at_once(&story, &setup);
}

/// From what the first setup has left in the cache.
fn comes_again_at_once(story: &Story, setup: &str) {
    story
        .run(setup)
        .succeeds()
        .says("from a template")
        .never_says("boot");
    story.run("k3s-vm ssh hostname").prints(&name(story));
    story.run("k3s-vm reset --yes").succeeds();
}

/// Guests whose systemd takes no units from the firmware: QEMU does not hand them over.
#[test]
fn an_older_guest_comes_up_by_cloud_init() {
    let story = Story::begin("older").with_changed_qemu("set -- \"${@/#type=11,*/type=11}\"");
    chapter("An older systemd, and cloud-init does the same");
    let (image, mirror) = (guest_image().display(), story.env.mirror());
    let setup = format!(
        "k3s-vm setup --image {image} --k3s-version {VERSION} --k3s-mirror {mirror} --memory 2GiB"
    );
    story.run(&setup).succeeds();
    story
        .run("k3s-vm ssh grep -c bootcmd /var/log/cloud-init.log")
        .succeeds();
    story.run("k3s-vm ssh hostname").prints(&name(&story));
    // IPv6's is made of the card's address.
    let addresses = || {
        let told = story.run("k3s-vm ssh hostname -I").succeeds();
        told.says("10.0.2.15").says("fec0::").ended.stdout
    };
    let before = addresses();
    story.run("k3s-vm stop").succeeds().never_says("by force");
    story.run("k3s-vm start").succeeds().never_says("installed");
    assert_eq!(addresses(), before, "the node's addresses stay");
    story.run("k3s-vm reset --yes").succeeds();
    comes_again_at_once(&story, &setup);
}

pub(crate) fn nothing_is_there(story: &Story) {
    chapter("A project, and no VM yet");
    story.run("git init --quiet").succeeds();
    story.run("k3s-vm status").exits(4).says("none in");
    story
        .run("k3s-vm kubectl get nodes")
        .exits(4)
        .says("hint: create it: k3s-vm setup");
    assert_eq!(names(&story.env.project), [".git"]);
    found("looking has left nothing behind");
}

pub(crate) fn setup_makes_a_cluster(story: &Story, guest: &Guest) -> Told {
    chapter("From nothing to a node that is Ready");
    let kubeconfig = story.env.project.join(".kube/config");
    made(story, &format!("k3s-vm setup {} --timings", guest.flags()))
        .prints(&kubeconfig.to_string_lossy())
        .says("guest booted")
        .says(&format!("k3s {} installed", guest.version(story)))
        .never_says("cannot read the stable channel of k3s; using")
        .says("is Ready")
        .says("of it k3s-vm's own")
}

fn its_files_are_private_and_out_of_the_way(story: &Story) {
    chapter("The VM's files are private, and git does not see them");
    let machine = story.file("");
    let kube = story.env.project.join(".kube");
    for directory in [&machine, &machine.join("bin"), &kube] {
        assert_eq!(mode(directory), 0o700, "{}", directory.display());
    }
    let expected = [
        "config",
        "console.log",
        "disk.qcow2",
        "host_ed25519",
        "id_ed25519",
        "qemu.log",
        "qemu.pid",
        "record.json",
        "seed.img",
        "stages.log",
    ];
    for name in expected {
        assert!(machine.join(name).is_file(), "{name}");
    }
    for directory in [&machine, &kube] {
        for path in names(directory).iter().map(|name| directory.join(name)) {
            assert!(
                path.is_dir() || mode(&path) & 0o077 == 0,
                "{}",
                path.display()
            );
        }
        let ignore = fs::read_to_string(directory.join(".gitignore"));
        assert_eq!(ignore.expect("a .gitignore"), "*\n");
    }
    found("directories are 0700, files are 0600, .gitignore says *");
    story.run("git status --porcelain").succeeds().prints("");
    assert!(!story.env.path("home/.kube/config").exists());
    found("~/.kube/config was not touched");
}

fn kubectl_is_the_real_one(story: &Story, guest: &Guest) {
    chapter("The real kubectl, on this cluster");
    let version = guest.version(story);
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ")
        .says(&version);
    story
        .run("k3s-vm kubectl version")
        .succeeds()
        .says(&version);
    story
        .run("k3s-vm kubectl create configmap proof --from-literal=a=b")
        .succeeds();
    story
        .run("k3s-vm kubectl get configmap proof -o 'jsonpath={.data.a}'")
        .succeeds()
        .prints("b");
    story.run("k3s-vm kubectl get nosuch").exits(1);
    let name = name(story);
    story
        .run("k3s-vm kubectl config view")
        .succeeds()
        .says(&format!("current-context: {name}"))
        .says(&format!("cluster: {name}"))
        .says(&format!("user: {name}"))
        .says("server: https://127.0.0.1:")
        .never_says("default");
}

fn tools_find_the_cluster(story: &Story) {
    chapter("Links that are kubectl and k9s, for tools that look for programs of these names");
    story
        .run(".k3s-vm/bin/kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    story
        .run("PATH=$PWD/.k3s-vm/bin:$PATH kubectl get nodes --no-headers | wc -l")
        .succeeds()
        .prints("1");
    story
        .run("PATH=/nowhere .k3s-vm/bin/kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    found("without a kubectl on the PATH, the cached k3s is one");
    story
        .run("PATH=/nowhere .k3s-vm/bin/k9s")
        .exits(127)
        .says("k9s is not on the PATH")
        .says("hint: ");
    let tools = story.env.path("tools");
    fs::create_dir(&tools).expect("created");
    fs::write(
        tools.join("k9s"),
        "#!/bin/sh\necho \"k9s $* on $KUBECONFIG\"\nexit 5\n",
    )
    .expect("written");
    fs::set_permissions(tools.join("k9s"), fs::Permissions::from_mode(0o755)).expect("executable");
    let kubeconfig = story.env.project.join(".kube/config");
    story
        .run(&format!(
            "PATH={}:$PATH k3s-vm k9s --readonly -n kube-system",
            tools.display()
        ))
        .exits(5)
        .prints(&format!(
            "k9s --readonly -n kube-system on {}",
            kubeconfig.display()
        ));
}

fn status_tells_what_is(story: &Story, guest: &Guest) {
    chapter("Status: one screen, all details, or JSON");
    let version = guest.version(story);
    story
        .run("k3s-vm status")
        .succeeds()
        .says("running, healthy")
        .says(&format!(
            "2 CPUs, {} memory, 20 GiB disk",
            guest.memory.approximate()
        ))
        .says("API ")
        .says(&version);
    let pid = story.qemu();
    let accelerator = guest.accelerator(story);
    story
        .run("k3s-vm status --verbose")
        .succeeds()
        .says(&format!("process      {pid}"))
        .says(&format!("accel        {accelerator}"))
        .says("uptime")
        .says("qmp.sock")
        .says("10.0.2.15");
    let told = story.run("k3s-vm status --json").succeeds();
    let status: serde_json::Value =
        serde_json::from_str(&told.ended.stdout).expect("one JSON document");
    for (pointer, value) in [
        ("/schema", json!(1)),
        ("/state", json!("running")),
        ("/healthy", json!(true)),
        ("/machine/k3s", json!(version)),
        ("/machine/cpus", json!(2)),
        ("/machine/memory", json!(guest.memory.as_bytes())),
        ("/machine/disk", json!(20_u64 << 30)),
        ("/process/pid", json!(pid)),
        ("/process/run_state", json!("running")),
        ("/process/accelerator", json!(accelerator)),
        ("/cluster/ready", json!(true)),
        ("/cluster/nodes/0/name", status["machine"]["name"].clone()),
        ("/cluster/nodes/0/ready", json!(true)),
    ] {
        assert_eq!(status.pointer(pointer), Some(&value), "{pointer}");
    }
}

fn a_second_setup_has_nothing_to_do(story: &Story) {
    chapter("A second setup, and choices that contradict the VM");
    let (pid, config) = (story.qemu(), config(story));
    let kubeconfig = story.env.project.join(".kube/config");
    story
        .run("k3s-vm setup")
        .succeeds()
        .prints(&kubeconfig.to_string_lossy())
        .says("nothing to do");
    story.run("k3s-vm start").succeeds().says("nothing to do");
    story
        .run("k3s-vm setup --disk 10GiB")
        .exits(2)
        .says("20GiB")
        .says("10GiB")
        .says("hint: ");
    story
        .run("VM_NAME=other k3s-vm setup")
        .exits(2)
        .says(&name(story))
        .says("other");
    assert_eq!(
        (story.qemu(), self::config(story)),
        (pid, config),
        "nothing has changed"
    );
}

fn ssh_is_a_pipe_into_the_guest(story: &Story) {
    chapter("SSH without an ssh client: exit codes, pipes, and a disk that has grown");
    story
        .run("k3s-vm ssh hostname")
        .succeeds()
        .prints(&name(story));
    story
        .run("k3s-vm ssh 'test -e /var/log/cloud-init.log'")
        .exits(i32::from(takes_units(story)));
    story.run("k3s-vm ssh exit 7").exits(7);
    story
        .run("k3s-vm ssh 'echo to stderr >&2' 2>/dev/null")
        .succeeds()
        .prints("");
    story
        .run("echo hello from the host | k3s-vm ssh tr a-z A-Z")
        .succeeds()
        .prints("HELLO FROM THE HOST");
    story
        .run("cp .k3s-vm/host_ed25519 pinned && cp .k3s-vm/id_ed25519 .k3s-vm/host_ed25519")
        .succeeds();
    story
        .run("k3s-vm ssh true")
        .exits(1)
        .says("answers with another host key than this VM's");
    story.run("mv pinned .k3s-vm/host_ed25519").succeeds();
    let told = story.run(
        "head -c 4M /dev/urandom >bytes && sha256sum <bytes && k3s-vm ssh sha256sum <bytes; rm bytes",
    );
    let sums: BTreeSet<&str> = told.ended.stdout.lines().collect();
    assert_eq!((told.ended.stdout.lines().count(), sums.len()), (2, 1));
    let told = story
        .run("k3s-vm ssh df --output=size,used,target -BG /")
        .succeeds();
    let line = told.ended.stdout.lines().nth(1).expect("a file system");
    let size = line.split_whitespace().next().expect("its size");
    let size: u32 = size.trim_end_matches('G').parse().expect("a number");
    assert!((18..=20).contains(&size), "the disk has grown: {size}G");
}

fn the_guest_keeps_its_secrets(story: &Story) {
    chapter("What is secret in the guest is root's alone, and no password opens it");
    let search = "grep -rlsI 'BEGIN OPENSSH PRIVATE KEY' \
        /run/k3s-vm /run/cloud-init /var/lib/cloud /etc/ssh /dev/disk/by-id/virtio-seed";
    story
        .run(&format!("k3s-vm ssh \"{search}\""))
        .never_says("/run/k3s-vm/seed")
        .says("/etc/ssh/ssh_host_ed25519_key");
    let told = story
        .run(&format!(
            "k3s-vm ssh \"setpriv --reuid=nobody --regid=nogroup --clear-groups {search}\""
        ))
        .prints("");
    assert_ne!(told.ended.code, 0, "another user finds no key");
    story
        .run("k3s-vm ssh \"su nobody -s /bin/sh -c 'cat /dev/disk/by-id/virtio-seed'\"")
        .exits(1)
        .says("Permission denied");
    story
        .run("k3s-vm ssh \"sshd -T | grep -E '^(password|kbdinteractive)authentication'\"")
        .succeeds()
        .prints("passwordauthentication no\nkbdinteractiveauthentication no");
    story
        .run("k3s-vm ssh \"passwd --status --all | awk '\\$2 != \\\"L\\\"'\"")
        .succeeds()
        .prints("");
    found("every account's password is locked");
}

fn logs_are_at_hand(story: &Story) {
    chapter("Logs, where a failed start would be explained");
    story
        .run("k3s-vm logs console | grep k3s-vm:")
        .succeeds()
        .says("k3s-started");
    story
        .run("k3s-vm logs k3s | grep 'k3s is up and running'")
        .succeeds();
    story.run("k3s-vm logs qemu").succeeds();
    story
        .run("k3s-vm ssh 'systemctl --failed --plain --no-legend'")
        .succeeds()
        .prints("");
}

fn only_loopback_listens(story: &Story) {
    chapter("Only this host reaches the VM");
    let status = story.status();
    let ports = ["api_port", "ssh_port"].map(|port| {
        let port = status["process"][port].as_u64().expect("a port");
        format!("127.0.0.1:{port}")
    });
    let told = story.env.ok(&["port", "list", "--json"]).stdout;
    let document: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let all = document["ports"].as_array().expect("a list").iter();
    let open = all.filter(|port| port["open"] == true);
    let open: BTreeSet<String> = open
        .filter_map(|port| port["address"].as_str().map(str::to_owned))
        .collect();
    assert!(ports.iter().all(|port| open.contains(port)), "{open:?}");
    assert_eq!(listening(story.qemu()), open, "as `port list` says");
    found(&format!(
        "QEMU listens on {} and nowhere else",
        open.into_iter().collect::<Vec<_>>().join(", ")
    ));
}

fn stop_is_orderly(story: &Story) {
    chapter("Stop: k3s first, then the power button");
    let pid = story.qemu();
    // Like many a process that is the first in its container.
    story
        .run("k3s-vm ssh systemd-run --quiet --unit=deaf --slice=kubepods.slice env --ignore-signal=TERM sleep infinity")
        .succeeds();
    story
        .run("k3s-vm stop")
        .succeeds()
        .says("stopping k3s")
        .says("shutting down the guest")
        .never_says("by force");
    assert!(!is_qemu(pid), "QEMU is gone");
    assert!(!story.file("qemu.pid").exists(), "so is its pidfile");
    assert!(
        names(&story.env.path("run/k3s-vm")).is_empty(),
        "and its socket's directory"
    );
    found("QEMU, its pidfile and its socket are gone");
    story.run("k3s-vm status").exits(3).says("stopped");
    for line in [
        "k3s-vm kubectl get nodes",
        ".k3s-vm/bin/kubectl get nodes",
        "k3s-vm ssh true",
        "k3s-vm logs k3s",
    ] {
        story
            .run(line)
            .exits(3)
            .says("is stopped")
            .says("hint: start it: k3s-vm start");
    }
    story
        .run("k3s-vm logs console | tail -n 2")
        .succeeds()
        .says("Power down");
    story.run("k3s-vm stop").succeeds().says("already");
}

fn start_finds_everything_as_it_was(story: &Story, guest: &Guest) {
    chapter("Start: everything is as it was, but for what the config says now");
    let kubeconfig = story.env.project.join(".kube/config");
    let less = guest.less_memory;
    let line = format!("memory = \"{less}\" # less is enough");
    story
        .run(&format!("sed -i 's/^memory = .*/{line}/' .k3s-vm/config"))
        .succeeds();
    story
        .run("k3s-vm start")
        .succeeds()
        .prints(&kubeconfig.to_string_lossy())
        .says(&format!("{less} of memory"))
        .never_says("installed");
    story
        .run("k3s-vm kubectl get configmap proof -o 'jsonpath={.data.a}'")
        .succeeds()
        .prints("b");
    story
        .run("k3s-vm ssh journalctl --boot=-1 --unit=deaf")
        .succeeds()
        .says("Failed with result 'signal'")
        .never_says("timed out");
    story
        .run("k3s-vm status")
        .says(&format!("{} memory", less.approximate()));
    assert_eq!(story.status()["machine"]["memory"], json!(less.as_bytes()));
    assert!(config(story).contains(&line));
    found("the config is as it was edited");
}

fn a_killed_qemu_is_seen_and_survived(story: &Story) {
    chapter("QEMU is killed: status sees it, start recovers");
    let pid = story.qemu();
    let process = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let process = process.expect("QEMU's process");
    story.run(&format!("kill -KILL {pid}")).succeeds();
    poll(&mut [PollFd::new(&process, PollFlags::IN)], None).expect("it ends");
    assert!(story.file("qemu.pid").exists(), "the pidfile is stale");
    story.run("k3s-vm status").exits(3).says("stopped");
    story
        .run("LOG_FILE=../everything.log k3s-vm start --debug")
        .succeeds();
    story
        .run("k3s-vm kubectl get configmap proof -o 'jsonpath={.data.a}'")
        .succeeds()
        .prints("b");
}

fn secrets_are_in_no_output(story: &Story) {
    chapter("What is secret is in no log at any level, in no line of ps, and not in the status");
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).expect("there")).into_owned();
    let kubeconfig = read(&story.env.project.join(".kube/config"));
    let keys = ["id_ed25519", "host_ed25519"].map(|name| read(&story.file(name)));
    let token = ["ssh", "cat", "/var/lib/rancher/k3s/server/token"];
    let admin = Kubeconfig::parse(&kubeconfig).and_then(|it| it.credentials());
    let admin = String::from_utf8(admin.expect("sound").identity).expect("PEM");
    // The key comes behind the certificate.
    let key = &admin[admin.rfind("-----BEGIN ").expect("a key")..];
    let mut secrets = vec![
        story.env.ok(&token).stdout.trim().to_owned(),
        BASE64.encode(key),
    ];
    secrets.extend(
        key.lines()
            .filter(|line| line.len() == 64)
            .map(str::to_owned),
    );
    let squeezed: String = kubeconfig.split_whitespace().collect();
    assert!(squeezed.contains(&secrets[1]), "as the kubeconfig has it");
    // The first line is the same in all keys, the last one is short.
    let lines = keys.iter().flat_map(|pem| pem.lines().skip(2));
    secrets.extend(lines.filter(|line| line.len() == 70).map(str::to_owned));
    assert!(secrets.len() >= 8 && secrets.iter().all(|secret| secret.len() > 16));

    let mut told = vec![
        story.env.path("everything.log"),
        format!("/proc/{}/cmdline", story.qemu()).into(),
        format!("/proc/{}/environ", story.qemu()).into(),
    ];
    let names = [
        "config",
        "record.json",
        "console.log",
        "stages.log",
        "qemu.log",
    ];
    told.extend(names.map(|name| story.file(name)));
    let mut texts: Vec<String> = told.iter().map(|path| read(path)).collect();
    texts.push(story.status().to_string());
    assert!(texts[0].contains("qemu-system-x86_64") && texts[0].contains("DEBUG"));
    for secret in &secrets {
        assert!(!texts.iter().any(|text| text.contains(secret)));
    }
    found(&format!(
        "{} secrets, {} places, none in any",
        secrets.len(),
        texts.len()
    ));
}

fn reset_takes_the_machine_and_leaves_the_choices(story: &Story) {
    chapter("Stop by force, and reset");
    let (pid, config, cached) = (story.qemu(), config(story), names(&story.env.cache));
    story
        .run("k3s-vm stop --force")
        .succeeds()
        .says("stopped by force");
    assert!(!is_qemu(pid), "QEMU is gone");
    story.run("k3s-vm status").exits(3);
    story
        .run("k3s-vm reset")
        .exits(2)
        .says("stdin is not a terminal")
        .says("hint: to go ahead without asking: k3s-vm reset --yes");
    story.run("k3s-vm reset --yes").succeeds();
    story.run("k3s-vm status").exits(4).says("none in");
    assert_eq!(
        names(&story.file("")),
        [".gitignore", "approved", "config", "id", "lock"]
    );
    assert!(!story.env.project.join(".kube").exists());
    assert_eq!(self::config(story), config);
    assert_eq!(names(&story.env.cache), cached);
    found("the VM and its kubeconfig are gone; the config and the cache are not");
    story.run("git status --porcelain").succeeds().prints("");
}

fn setup_again_fetches_nothing(story: &Story, guest: &Guest) {
    chapter("Setup again: the config remembers the choices, the cache has the files");
    let mirror = story.env.path("mirror");
    if mirror.exists() {
        fs::remove_dir_all(mirror).expect("removed");
    }
    story
        .run(&format!(
            "k3s-vm setup --accel auto --memory {} &
             wait_until 'grep -qs disk-grown .k3s-vm/stages.log'
             kill -KILL $!; wait $!",
            guest.memory
        ))
        .exits(137)
        .never_says("fetching");
    story
        .run("k3s-vm setup")
        .succeeds()
        .says("is already running")
        .never_says("fetching");
    found("a setup that is killed in the middle is finished by the next one");
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
    story.run("k3s-vm kubectl get configmap proof").exits(1);
    found("it is a new VM");
}

fn a_running_machine_is_stopped_by_reset(story: &Story) {
    let pid = story.qemu();
    story.run("k3s-vm reset --yes").succeeds();
    assert!(!is_qemu(pid), "a running VM is stopped first");
    story.run("k3s-vm status").exits(4);
}

fn name(story: &Story) -> String {
    let status = story.status();
    status["machine"]["name"].as_str().expect("a name").into()
}

/// Whether the guest's systemd takes units from the firmware. Older guests come up by cloud-init.
fn takes_units(story: &Story) -> bool {
    let told = story
        .run("k3s-vm ssh \"systemctl --version | sed -E '1s/^systemd ([0-9]+).*/\\1/;q'\"")
        .succeeds();
    let version: u32 = told.ended.stdout.trim().parse().expect("a number");
    version >= 256
}

fn config(story: &Story) -> String {
    fs::read_to_string(story.file("config")).expect("a config")
}

/// Whether the process lives and is a QEMU; a number may belong to another process by now.
fn is_qemu(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.contains("(qemu") && !stat.contains(") Z ")
}

/// The addresses on which a process listens, from proc(5): its sockets, and the kernel's tables of TCP sockets.
fn listening(pid: i32) -> BTreeSet<String> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("our own process");
    let sockets: BTreeSet<String> = descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            let link = link.to_string_lossy().into_owned();
            Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let tables = ["tcp", "tcp6"]
        .map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[3] == LISTEN && sockets.contains(fields[9]))
        .map(|fields| readable(fields[1]))
        .collect()
}

/// The kernel's TCP_LISTEN in hexadecimal.
const LISTEN: &str = "0A";

/// `0100007F:192B` is 127.0.0.1:6443; what is not IPv4 stays as it is.
fn readable(address: &str) -> String {
    let parts = address.split_once(':').and_then(|(host, port)| {
        let host = u32::from_str_radix(host, 16).ok()?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some((std::net::Ipv4Addr::from(host.to_ne_bytes()), port))
    });
    parts.map_or_else(
        || address.to_owned(),
        |(host, port)| format!("{host}:{port}"),
    )
}
