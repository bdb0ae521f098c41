//! What goes wrong with a guest that runs, tried on a real one. It is one test, for each boot takes a minute or two.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    kill::arriving_at_every_step,
    live::{
        fails_running, guest_asks, healthy, knows_the_time, monitor, qemu, run,
        service_of_the_host, ssh, unhealthy,
    },
    sandbox::{Sandbox, eventually, say, send},
    table::{record_running_fault, record_stopped_fault},
};
use crate::{
    shared::Qemu,
    support::{VERSION, guest_image, make_release},
    transcript::{LONG_PAUSE, is_the_time},
};

#[test]
fn a_guest_that_runs() {
    let mut sandbox = Sandbox::new();
    comes_up(&mut sandbox);
    an_unwatched_flood(&sandbox);
    arriving_at_every_step(&sandbox);
    a_machine_that_is_suspended(&sandbox);
    a_machine_that_is_paused(&sandbox);
    a_clock_that_is_hours_off(&sandbox);
    a_qemu_that_hangs(&sandbox);
    another_host_key(&sandbox);
    k3s_that_is_stopped(&sandbox);
    k3s_is_started_again_at_once(&sandbox);
    k3s_that_crash_loops(&sandbox);
    a_root_that_is_full(&sandbox);
    a_damaged_datastore(&sandbox);
    a_hang_that_outlasts_the_stop(&sandbox);
    the_copy_comes_back_isolated(&sandbox);
    fails_running(
        &sandbox,
        "a datastore put back under a running k3s",
        &["start", "--restore-datastore"],
        2,
        &[
            "cannot restore the datastore: the VM is running",
            "hint: stop it first",
        ],
    );
    assert!(!run(&sandbox, &["stop"]).stderr.contains("by force"));
    sandbox.nothing_runs();
}

/// A guest that does nothing is enough for that.
#[test]
fn a_stop_of_a_guest_that_cannot_hear() {
    let sandbox = Sandbox::new();
    for (fault, arguments) in [
        ("QEMU hangs, stop --force", &["stop", "--force"][..]),
        ("the VM is paused, stop", &["stop", "--timeout", "2s"]),
    ] {
        let setup = sandbox.booting();
        setup.signal(Signal::KILL);
        setup.end();
        if fault.starts_with("QEMU") {
            send(Signal::STOP, qemu(&sandbox));
        } else {
            monitor(&sandbox, "stop");
        }
        let stop = run(&sandbox, arguments);
        record_stopped_fault(&sandbox, fault, &stop);
        assert_eq!(stop.code, 0, "{stop:?}");
        assert!(stop.stderr.contains("stopped by force"), "{stop:?}");
    }
}

/// The least disk that a machine may have is too small for the files that are copied into it: a hole of 3.5 GiB.
#[test]
fn a_root_that_is_full_before_k3s_is_in_it() {
    let sandbox = Sandbox::new();
    let release = sandbox.env.path("stand-in").join(VERSION);
    make_release(&release, VERSION);
    let archive = "k3s-airgap-images-amd64.tar.zst";
    let hole = fs::File::create(release.join(archive)).expect("created");
    hole.set_len(7 << 29).expect("a sparse file");
    let sums = Command::new("sha256sum")
        .args(["k3s", archive])
        .current_dir(&release)
        .output()
        .expect("coreutils");
    fs::write(release.join("sha256sum-amd64.txt"), sums.stdout).expect("written");
    let setup = real_setup(&sandbox, &["--disk", "4GiB"]);
    let words = [
        "the guest cannot copy k3s and its images: they take 3",
        " MiB are free (a larger --disk may help)",
        "k3s-vm/console.log",
    ];
    sandbox.fails(
        "the guest's disk is full before k3s is in it",
        setup,
        1,
        &words,
    );
}

/// With the guest and the release that come up.
fn real_setup(sandbox: &Sandbox, flags: &[&str]) -> Command {
    let image = guest_image().display().to_string();
    let ours = ["--image", &image, "--memory", "1536MiB", "--timeout", "20m"];
    let mirror = format!("file://{}", sandbox.env.path("stand-in").display());
    sandbox.setup_from(&mirror, &[&ours, flags].concat())
}

/// As a copy of the everyday's template.
fn comes_up(sandbox: &mut Sandbox) {
    make_release(&sandbox.env.path("stand-in").join(VERSION), VERSION);
    let qemu = Qemu::newest();
    qemu.give(&mut sandbox.env);
    let lock = qemu.lock();
    let copy = [
        "--disk",
        "4GiB",
        "--firmware",
        qemu.firmware(),
        "--share-identity",
        "--host-access",
        "all",
    ];
    let setup = real_setup(sandbox, &copy).output();
    drop(lock);
    let setup = setup.expect("it runs");
    assert!(setup.status.success(), "{setup:?}");
    assert!(healthy(sandbox));
    // Not a fault, but what `isolated` is held against below.
    assert_eq!(guest_asks(sandbox, service_of_the_host()).stdout, "hello");
    run(sandbox, &["kubectl", "create", "configmap", "kept"]);
}

/// Nothing of this program runs meanwhile, and only the end is kept.
fn an_unwatched_flood(sandbox: &Sandbox) {
    const END: u64 = 1 << 20;
    let logs = ["console.log", "stages.log"].map(|name| sandbox.file(name));
    let sizes = || {
        logs.each_ref()
            .map(|log| fs::metadata(log).expect("a log").len())
    };
    let before = sizes();
    for port in ["ttyS0", "virtio-ports/org.k3s-vm.stages"] {
        let flood = "head -c 3M /dev/zero | tr '\\0' x";
        ssh(
            sandbox,
            &format!("{{ {flood}; echo; echo the end; }} >/dev/{port}"),
        );
    }
    assert_eq!(sizes(), before, "nothing reaches the disk");
    let shown = run(sandbox, &["logs"]);
    record_running_fault(
        sandbox,
        "a guest that floods its logs while nobody looks",
        &shown,
    );
    assert_eq!(shown.code, 0, "{shown:?}");
    let last: Vec<&str> = shown.stdout.lines().rev().take(5).collect();
    assert!(last.contains(&"the end"), "{last:?}");
    for (log, (before, now)) in logs.iter().zip(before.iter().zip(sizes())) {
        assert!(
            now > *before && now <= before + END,
            "{}: {now}",
            log.display()
        );
    }
    assert!(healthy(sandbox));
}

/// Twice, for the second time is from a QEMU that has not booted its guest. Before `start` returns, all is as if no one had
/// been away.
fn a_machine_that_is_suspended(sandbox: &Sandbox) {
    let boot = "cat /proc/sys/kernel/random/boot_id /run/mark";
    ssh(sandbox, "echo kept >/run/mark");
    let before = ssh(sandbox, boot);
    let reseeded = || {
        let told = "dmesg | grep -c 'crng reseeded due to virtual machine fork'; true";
        let count: u32 = ssh(sandbox, told).trim().parse().expect("a number");
        count
    };
    let forked = reseeded();
    for (nth, pause) in [(1, LONG_PAUSE), (2, Duration::ZERO)] {
        let began = Instant::now();
        let stop = run(sandbox, &["stop", "--suspend"]);
        say(&format!("  suspended in {:.1?}", began.elapsed()));
        record_stopped_fault(sandbox, "a cluster is suspended", &stop);
        assert_eq!((stop.code, sandbox.is_suspended()), (0, true), "{stop:?}");
        thread::sleep(pause);
        let began = Instant::now();
        let start = run(sandbox, &["start"]);
        say(&format!("  goes on after {:.1?}", began.elapsed()));
        assert!(healthy(sandbox));
        knows_the_time(sandbox);
        record_running_fault(sandbox, "a cluster goes on", &start);
        assert_eq!(start.code, 0, "{start:?}");
        assert!(start.stderr.contains("resuming ") && !start.stderr.contains("boots"));
        sandbox.is_in_memory();
        assert_eq!(ssh(sandbox, boot), before, "it has not booted");
        assert_eq!(reseeded(), forked + nth);
        // The emulated hardware's clock is the host's, and tells whole seconds.
        is_the_time(2, || ssh(sandbox, "cat /sys/class/rtc/rtc0/since_epoch"));
        assert_eq!(run(sandbox, &["kubectl", "get", "nodes"]).code, 0);
    }
    assert_eq!(
        run(sandbox, &["kubectl", "get", "configmap", "kept"]).code,
        0
    );
}

/// The pause is what a host that sleeps does to a guest.
fn a_machine_that_is_paused(sandbox: &Sandbox) {
    monitor(sandbox, "stop");
    let began = Instant::now();
    let status = unhealthy(sandbox, "the VM is paused", "running (paused)");
    assert_eq!(status["process"]["run_state"], "paused");
    thread::sleep(LONG_PAUSE.saturating_sub(began.elapsed()));
    let start = run(sandbox, &["start"]);
    record_running_fault(sandbox, "the VM is paused, start", &start);
    assert!(start.stderr.contains("resumed the paused VM"), "{start:?}");
    // Healthy is only who knows the time.
    knows_the_time(sandbox);
    assert!(healthy(sandbox));
}

fn a_clock_that_is_hours_off(sandbox: &Sandbox) {
    for (change, words) in [
        ("-2 hours", "behind the host's"),
        ("+1 day", "ahead of the host's"),
    ] {
        ssh(
            sandbox,
            &format!("systemctl stop k3s-vm-exec; date --set='{change}'"),
        );
        let fault = format!("the guest's clock is moved by {change}");
        let status = unhealthy(sandbox, &fault, "the guest's clock is ");
        let reason = status["cluster"]["reason"].as_str().unwrap_or_default();
        assert!(reason.ends_with(words), "{reason}");
        ssh(sandbox, "systemctl start k3s-vm-exec");
        eventually("the guest corrects its clock", || healthy(sandbox));
        knows_the_time(sandbox);
    }
}

fn a_qemu_that_hangs(sandbox: &Sandbox) {
    let qemu = qemu(sandbox);
    send(Signal::STOP, qemu);
    unhealthy(sandbox, "QEMU hangs", "running (unresponsive)");
    let words = [
        "error: QEMU did not answer",
        "hint: end it by force: k3s-vm stop --force",
    ];
    fails_running(sandbox, "QEMU hangs, start", &["start"], 1, &words);
    send(Signal::CONT, qemu);
    eventually("it is well again", || healthy(sandbox));
}

fn another_host_key(sandbox: &Sandbox) {
    let (pinned, away) = (sandbox.file("host_ed25519"), sandbox.env.path("pinned"));
    fs::rename(&pinned, &away).expect("moved");
    fs::copy(sandbox.file("id_ed25519"), &pinned).expect("another key");
    let words = [
        "answers with another host key than this VM's",
        "hint: restore the key that changed: .k3s-vm/host_ed25519 or the guest's",
    ];
    fails_running(sandbox, "another host key", &["ssh", "true"], 1, &words);
    fs::rename(&away, &pinned).expect("moved back");
    ssh(sandbox, "true");
}

/// As a stop leaves it that was interrupted between k3s and the power button.
fn k3s_that_is_stopped(sandbox: &Sandbox) {
    ssh(sandbox, "systemctl stop k3s");
    unhealthy(sandbox, "k3s is stopped", "not ready");
    let start = run(sandbox, &["start"]);
    record_running_fault(sandbox, "k3s is stopped, start", &start);
    assert_eq!(start.code, 0, "{start:?}");
    assert!(healthy(sandbox));
}

/// A crash loop waits five seconds before each start of k3s, and takes eight of them. Until the next boot.
fn k3s_is_started_again_at_once(sandbox: &Sandbox) {
    let unit = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestartSec=200ms\n";
    let directory = "/run/systemd/system/k3s.service.d";
    ssh(
        sandbox,
        &format!(
            "mkdir -p {directory}; printf '{unit}' >{directory}/test.conf; systemctl daemon-reload"
        ),
    );
}

fn k3s_that_crash_loops(sandbox: &Sandbox) {
    let config = "/etc/rancher/k3s/config.yaml";
    ssh(
        sandbox,
        &format!(
            "systemctl stop k3s; cp {config} /root/sound; echo 'data-dir: [' >{config}; systemctl start --no-block k3s"
        ),
    );
    let words = [
        "k3s cannot start: failed to load config file /etc/rancher/k3s/config.yaml",
        "3 times in a row",
        "  | k3s: time=",
        "k3s-vm logs k3s",
    ];
    fails_running(sandbox, "k3s crash-loops", &["start"], 1, &words);
    unhealthy(sandbox, "k3s crash-loops, status", "k3s cannot start: ");
    ssh(sandbox, &format!("mv /root/sound {config}"));
    assert_eq!(run(sandbox, &["start"]).code, 0);
}

/// The journal would make room again for its next entries, so it is kept in memory meanwhile.
fn a_root_that_is_full(sandbox: &Sandbox) {
    ssh(
        sandbox,
        "systemctl stop k3s; journalctl --relinquish-var; fallocate -l $(($(stat -f -c '%f * %S' /))) /filler; \
         cat /dev/zero >>/filler; systemctl start --no-block k3s",
    );
    let words = ["3 times in a row", "No space left on device"];
    fails_running(sandbox, "the guest's disk is full", &["start"], 1, &words);
    ssh(sandbox, "rm /filler; journalctl --flush");
    assert_eq!(run(sandbox, &["start"]).code, 0);
}

fn a_damaged_datastore(sandbox: &Sandbox) {
    let state = "/var/lib/rancher/k3s/server/db/state.json";
    ssh(sandbox, "systemctl stop k3s");
    ssh(
        sandbox,
        &format!("echo torn >{state}; systemctl start --no-block k3s"),
    );
    let words = [
        "k3s's datastore in the guest is damaged: file is not a database; a copy is of 20",
        "hint: restore the copy of the last clean shutdown: k3s-vm stop && k3s-vm start --restore-datastore",
        "k3s-vm stop && k3s-vm start --restore-datastore",
    ];
    fails_running(sandbox, "a damaged datastore", &["start"], 1, &words);
    unhealthy(
        sandbox,
        "a damaged datastore, status",
        "k3s's datastore in the guest is damaged",
    );
}

fn a_hang_that_outlasts_the_stop(sandbox: &Sandbox) {
    // As a power cut may leave the mark by which the guest knows whose it is.
    ssh(sandbox, ": >/etc/k3s-vm/machine && sync");
    send(Signal::STOP, qemu(sandbox));
    let stop = run(sandbox, &["stop"]);
    record_stopped_fault(sandbox, "QEMU hangs, stop", &stop);
    assert_eq!(stop.code, 0, "{stop:?}");
    assert!(stop.stderr.contains("stopped by force"), "{stop:?}");
}

fn the_copy_comes_back_isolated(sandbox: &Sandbox) {
    let port = service_of_the_host();
    let config = fs::read_to_string(sandbox.file("config")).expect("a config");
    fs::write(sandbox.file("config"), format!("{config}isolated = true\n")).expect("written");
    let start = run(sandbox, &["start", "--restore-datastore"]);
    record_running_fault(
        sandbox,
        "a damaged datastore and a hard power-off, start --restore-datastore",
        &start,
    );
    assert_eq!(start.code, 0, "{start:?}");
    assert!(start.stderr.contains("UTC is put back"), "{start:?}");
    assert_eq!(
        run(sandbox, &["kubectl", "get", "configmap", "kept"]).code,
        0
    );
    let mut asked = guest_asks(sandbox, port);
    asked.stderr = "no answer".to_owned();
    record_running_fault(
        sandbox,
        "a guest that asks the host's loopback, isolated",
        &asked,
    );
    assert!(asked.code != 0 && asked.stdout.is_empty(), "{asked:?}");
}
