//! A second project of the same user: its machine stands on the disk that the first one's setup has prepared, and is
//! nevertheless a machine of its own. On real guests; `cargo test --test it prepared -- --nocapture`.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use k3s_vm::cluster::Kubeconfig;

use crate::{
    support::{VERSION, guest_image, names},
    telling::{Story, chapter, found},
};

#[test]
fn a_second_machine_stands_on_what_the_first_has_prepared() {
    let first = Story::begin("first");
    chapter("The first setup prepares the disk on its way");
    // Larger than the second one's, which cannot shrink.
    setup(&first, "6GiB").never_says("prepared already");
    let one = identity(&first);
    assert_eq!(names(&first.env.cache.join("prepared")).len(), 3);
    first
        .run("k3s-vm ssh sync && k3s-vm stop --suspend")
        .succeeds();
    it_is_nobodys(&first, &one);

    chapter("The second setup goes on from there, and boots nothing");
    let mut second = Story::begin("second");
    second.env.cache.clone_from(&first.env.cache);
    setup(&second, "4GiB")
        .says("goes on from a prepared memory")
        .never_says("booted");
    let other = identity(&second);
    differs(&one, &other);
    knows_the_time(&second);
    second.run("k3s-vm stop --force").succeeds();
    second.run("k3s-vm start").succeeds();
    assert_eq!(identity(&second), other);
    second.run("k3s-vm reset --yes").succeeds();

    chapter("Another one goes on from the same memory, with random numbers of its own");
    let mut third = Story::begin("third");
    third.env.cache.clone_from(&first.env.cache);
    setup(&third, "4GiB").never_says("booted");
    differs(&other, &identity(&third));
    third.run("k3s-vm reset --yes").succeeds();

    chapter("A memory that is damaged is not believed");
    let prepared = first.env.cache.join("prepared");
    let memory = names(&prepared)
        .into_iter()
        .find(|it| it.ends_with(".memory"));
    let memory = prepared.join(memory.expect("it is kept"));
    let mut bytes = fs::read(&memory).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0x5a);
    fs::remove_file(&memory).expect("removed");
    fs::write(&memory, bytes).expect("written");
    boots_for(&third, "", ".memory is damaged");
    third.run("k3s-vm reset --yes").succeeds();

    chapter("One of another shape boots from the disk alone");
    setup_with(&third, "4GiB", &["--cpus", "1"])
        .says("it was started otherwise: -smp 2 then, -smp 1 now")
        .never_says("installed");
    let shaped = identity(&third);
    differs(&one, &shaped);
    differs(&other, &shaped);
    third
        .run("k3s-vm ssh 'systemctl is-system-running; test ! -e /dev/disk/by-id/virtio-k3s'")
        .succeeds();
    let told = third.run("k3s-vm ssh df --output=size -BM / | tail -n 1");
    let size: u32 = told
        .ended
        .stdout
        .trim()
        .trim_end_matches('M')
        .parse()
        .expect("a number");
    assert!((3500..4096).contains(&size), "the disk has grown: {size}M");
    third.run("k3s-vm reset --yes").succeeds();

    chapter("The first goes on");
    first
        .run("k3s-vm start")
        .succeeds()
        .says("resuming ")
        .never_says("boots");
    assert_eq!(identity(&first), one);
    first.run("k3s-vm reset --yes").succeeds();
}

/// A setup that boots instead of going on from a memory, and says why. It is not waited for.
#[track_caller]
fn boots_for(story: &Story, flag: &str, why: &str) {
    let flags = flags(story, "4GiB").join(" ");
    story
        .run(&format!(
            "k3s-vm setup {flags} {flag} 2>told & while kill -0 $! && ! grep -q 'starting ' told; do sleep 0.1; done; \
             kill -INT $!; wait $!; code=$?; cat told; exit $code"
        ))
        .exits(130)
        .says(why);
}

#[track_caller]
fn knows_the_time(story: &Story) {
    let now = || {
        SystemTime::UNIX_EPOCH
            .elapsed()
            .expect("after 1970")
            .as_secs()
    };
    let asked = now();
    let told = story.run("k3s-vm ssh date +%s").succeeds();
    let guest: u64 = told.ended.stdout.trim().parse().expect("seconds");
    let answered = now();
    assert!(
        (asked - 2..=answered + 2).contains(&guest),
        "{asked}, {guest}, {answered}"
    );
    found("the guest knows the time");
}

#[track_caller]
fn differs(one: &BTreeMap<&'static str, String>, other: &BTreeMap<&'static str, String>) {
    for (what, value) in one {
        assert_ne!(other[what], *value, "{what}");
    }
    found("name, number, keys, certificates, token: all its own");
}

/// A template, and machines that are the same as it and each other, until each goes its own way.
#[test]
fn a_cluster_that_is_cloned() {
    let share = &["--share-identity"];
    chapter("The first one is kept as a template, and goes on");
    let first = Story::begin("first");
    setup_with(&first, "4GiB", share).says("as a template");
    let one = identity(&first);
    first
        .run("k3s-vm kubectl create configmap proof --from-literal=a=first")
        .succeeds();

    chapter("The second one is there at once, and the same");
    let mut second = Story::begin("second");
    second.env.cache.clone_from(&first.env.cache);
    setup_with(&second, "4GiB", share).never_says("booted");
    assert_eq!(identity(&second), one);
    found("name, number, keys, certificates, token: those of the template");
    second.run("k3s-vm kubectl get configmap proof").exits(1);
    second
        .run("k3s-vm kubectl create configmap proof --from-literal=a=second")
        .succeeds();
    knows_the_time(&second);
    let value = "kubectl get configmap proof -o 'jsonpath={.data.a}'";
    first.run(&format!("k3s-vm {value}")).prints("first");

    chapter("Each goes its own way");
    first.run("k3s-vm reset --yes").succeeds();
    second.run("k3s-vm stop").succeeds().never_says("by force");
    second.run("k3s-vm cache prune --yes").succeeds();
    second.run("k3s-vm start").succeeds();
    second.run(&format!("k3s-vm {value}")).prints("second");
    second.run("k3s-vm reset --yes").succeeds();

    chapter("The cache is packed, carried to another host, and unpacked");
    let cache = second.env.cache.display();
    // Of the times only seconds are left.
    let carry = format!("tar -C {cache} --format=gnu -cf ../carried.tar . && rm -rf {cache}/*");
    second.run(&carry).succeeds();
    second
        .run(&format!(
            "tar -C {cache} -xf ../carried.tar && rm ../carried.tar"
        ))
        .succeeds();
    setup_with(&second, "4GiB", share).never_says("booted");
    second.run("k3s-vm reset --yes").succeeds();

    chapter("Without its memory the template boots");
    let folder = second.env.cache.join("prepared");
    let memory = names(&folder)
        .into_iter()
        .find(|it| it.ends_with(".memory"));
    fs::remove_file(folder.join(memory.expect("it was kept"))).expect("removed");
    boots_for(&second, "--share-identity", ".memory is gone");
    second.run("k3s-vm reset --yes").succeeds();
    second.run("k3s-vm cache prune --yes").succeeds();
    assert!(!folder.exists(), "nothing is left of it");
}

/// A setup that is not to come to its end.
struct Setup {
    process: std::process::Child,
}

impl Setup {
    fn begin(story: &Story) -> Self {
        let mut setup = story.env.command(&["setup"]);
        setup
            .args(flags(story, "4GiB"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = setup.spawn().expect("it runs");
        Self { process }
    }

    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            let waited = began.elapsed();
            assert!(waited < Duration::from_secs(900), "in vain waited: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn kill(mut self) {
        self.process.kill().expect("killed");
        let ended = self.process.wait().expect("reaped");
        assert_eq!(ended.code(), None, "it came to its end before");
    }
}

#[test]
fn a_setup_that_is_killed_while_the_disk_is_kept() {
    let story = Story::begin("killed");
    chapter("Killed when the guest waits for the disk to be kept, and run again");
    let setup = Setup::begin(&story);
    let stages = story.file("stages.log");
    setup.until("prepared", || {
        fs::read_to_string(&stages).is_ok_and(|text| text.contains(" prepared"))
    });
    setup.kill();
    // The guest goes on by itself, and the machine is whole.
    self::setup(&story, "4GiB");
    story.run("k3s-vm ssh hostname").succeeds();
    story.run("k3s-vm stop").succeeds().never_says("by force");
    story.run("qemu-img check .k3s-vm/disk.qcow2").succeeds();
    story.run("k3s-vm reset --yes").succeeds();
    fs::remove_dir_all(story.env.cache.join("prepared")).expect("removed");

    chapter("Killed when the guest goes on from the memory, and has not been told who it is");
    self::setup(&story, "4GiB").says("the disk is prepared");
    story.run("k3s-vm reset --yes").succeeds();
    let [running, suspended] = ["qemu.pid", "suspended.json"].map(|name| story.file(name));
    let setup = Setup::begin(&story);
    setup.until("it goes on", || running.exists() && !suspended.exists());
    setup.kill();
    self::setup(&story, "4GiB").never_says("booted");
    story.run("k3s-vm ssh hostname").succeeds();
    story.run("k3s-vm reset --yes").succeeds();
}

fn flags(story: &Story, disk: &str) -> Vec<String> {
    let (image, mirror) = (guest_image().display().to_string(), story.env.mirror());
    let flags = [
        "--image",
        &image,
        "--k3s-version",
        VERSION,
        "--k3s-mirror",
        &mirror,
        "--memory",
        "1536MiB",
        "--accel",
        "tcg",
        "--disk",
        disk,
    ];
    flags.map(str::to_owned).to_vec()
}

#[track_caller]
fn setup(story: &Story, disk: &str) -> crate::telling::Told {
    setup_with(story, disk, &[])
}

/// An emulator that lets its guest die (see `machine::boot`) leaves nothing to others: the machine is made anew then.
#[track_caller]
fn setup_with(story: &Story, disk: &str, more: &[&str]) -> crate::telling::Told {
    let flags = flags(story, disk).join(" ");
    let setup = format!("k3s-vm setup {flags} {}", more.join(" "));
    let told = story.run(&setup).succeeds();
    if !told.ended.stderr.contains("it is started once more") {
        return told;
    }
    story.run("k3s-vm reset --yes").succeeds();
    story.run(&setup).succeeds()
}

/// What makes the machine this one and no other.
fn identity(story: &Story) -> BTreeMap<&'static str, String> {
    let read = |path: &Path| fs::read_to_string(path).expect("readable");
    let guest = |path: &str| story.env.ok(&["ssh", "cat", path]).stdout.trim().to_owned();
    let record: serde_json::Value =
        serde_json::from_str(&read(&story.file("record.json"))).expect("JSON");
    let text = |name: &str| record[name].as_str().expect("a text").to_owned();
    let kubeconfig =
        Kubeconfig::parse(&read(&story.env.project.join(".kube/config"))).expect("sound");
    let credentials = kubeconfig.credentials().expect("sound");
    let long = |text: &str| {
        text.lines()
            .rfind(|it| it.len() == 64 || it.len() == 70)
            .expect("a line of it")
            .to_owned()
    };
    BTreeMap::from([
        ("name", text("name")),
        ("uuid", text("uuid")),
        ("mac", text("mac")),
        ("machine-id", guest("/etc/machine-id")),
        (
            "host key",
            guest("/etc/ssh/ssh_host_ed25519_key.pub")
                .split(' ')
                .nth(1)
                .expect("a key")
                .to_owned(),
        ),
        ("private host key", long(&read(&story.file("host_ed25519")))),
        ("private key", long(&read(&story.file("id_ed25519")))),
        ("token", guest("/var/lib/rancher/k3s/server/token")),
        (
            "certificate",
            long(&String::from_utf8_lossy(&credentials.identity)),
        ),
    ])
}

/// All that the published disk shows to a guest, and all that the guest had in its memory, byte by byte.
fn it_is_nobodys(story: &Story, identity: &BTreeMap<&'static str, String>) {
    chapter("Nothing on the prepared disk and in the prepared memory is the first machine's");
    let folder = story.env.cache.join("prepared");
    let disk = names(&folder)
        .into_iter()
        .find(|name| name.ends_with(".qcow2"));
    let prepared = folder.join(disk.expect("a disk"));
    let needles: Vec<Vec<u8>> = identity.values().flat_map(|value| forms(value)).collect();
    assert!(needles.len() > 30, "{}", needles.len());
    let nothing = Vec::<String>::new();
    assert_eq!(on_disk(story, &prepared, &needles), nothing);
    let memory = prepared.with_extension("memory");
    assert_eq!(occurring(&memory, &needles), nothing);
    let kernel = vec![b"Linux version ".to_vec()];
    assert_eq!(occurring(&memory, &kernel).len(), 1, "memory is searched");
    let told = ["name", "machine-id", "host key"].map(|what| identity[what].clone().into_bytes());
    let own = on_disk(story, &story.file("disk.qcow2"), &told);
    assert_eq!(own.len(), told.len(), "they would be found: {own:?}");
}

/// As text, in base64 at any offset, and a number as its bytes.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![value.as_bytes().to_vec()];
    for skipped in 0..3.min(value.len()) {
        let encoded = BASE64.encode(&value.as_bytes()[skipped..]);
        // The end depends on what follows.
        let sure = (value.len() - skipped) / 3 * 4;
        if sure >= 8 {
            forms.push(encoded.as_bytes()[..sure].to_vec());
        }
    }
    let digits: String = value.chars().filter(|it| !"-:".contains(*it)).collect();
    if digits.len().is_multiple_of(2) && digits.chars().all(|it| it.is_ascii_hexdigit()) {
        let bytes = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
        let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().expect("digits");
        // Zeros end a line for those who search.
        let longest = bytes.split(|&byte| byte == 0).max_by_key(|part| part.len());
        forms.extend(longest.filter(|part| part.len() > 4).map(<[u8]>::to_vec));
        forms.push(digits.into_bytes());
    }
    forms
}

/// Which of them there are in what a guest would see of the disk.
fn on_disk(story: &Story, disk: &Path, needles: &[Vec<u8>]) -> Vec<String> {
    let raw = story.env.path("raw");
    let converted = Command::new("qemu-img")
        .args(["convert", "-U", "-O", "raw"])
        .args([disk, &raw])
        .status();
    assert!(converted.expect("qemu-img runs").success());
    let found = occurring(&raw, needles);
    fs::remove_file(raw).expect("removed");
    found
}

/// Which of them there are in a file.
fn occurring(file: &Path, needles: &[Vec<u8>]) -> Vec<String> {
    let patterns: Vec<String> = needles
        .iter()
        .map(|needle| needle.iter().map(|byte| format!("\\x{byte:02x}")).collect())
        .collect();
    let found = Command::new("grep")
        .env("LC_ALL", "C")
        // Lines end with zeros, so that a hole is no endless one.
        .args(["-zaoP", &patterns.join("|")])
        .arg(file)
        .output()
        .expect("grep runs");
    assert!(
        found.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&found.stderr)
    );
    let mut found: Vec<String> = found
        .stdout
        .split(|&byte| byte == 0)
        .filter(|it| !it.is_empty())
        .map(|it| String::from_utf8_lossy(it).into_owned())
        .collect();
    found.sort();
    found.dedup();
    found
}
