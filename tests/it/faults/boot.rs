//! The machine starts, and does not come to where it should.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    time::Duration,
};

use rustix::process::Signal;

use super::{
    sandbox::{Background, Sandbox, eventually, send, within},
    table::{record_running_fault, record_stopped_fault},
};
use crate::support::{NOTHING, finish};

#[test]
fn an_image_that_does_not_boot() {
    let sandbox = Sandbox::new();
    let words = [
        "the VM was not ready within 4s (last stage: none)",
        "k3s-vm/console.log",
        "hint: run the same command again to try once more",
    ];
    let setup = || sandbox.setup(&["--timeout", "4s"]);
    sandbox.fails("a guest that does nothing", setup(), 1, &words);
    // Nothing is lost: the machine is as it was made, and is begun again.
    let uuid = sandbox.status()["machine"]["uuid"].clone();
    sandbox.continues(setup());
    assert_eq!(sandbox.status()["machine"]["uuid"], uuid);
}

#[test]
fn an_image_without_cloud_init() {
    let sandbox = Sandbox::new();
    let image = speaking_image(
        &sandbox.env.path("plain.img"),
        "Welcome to Plain Linux 1.0\r\nlocalhost login: ",
    );
    let words = [
        "the VM was not ready within 4s (last stage: none)",
        "  | Welcome to Plain Linux 1.0",
        "  | localhost login:",
        "cloud-init",
        "k3s-vm/console.log",
    ];
    let setup = sandbox.setup(&["--image", &image, "--timeout", "4s"]);
    sandbox.fails("a guest without cloud-init", setup, 1, &words);
}

/// It is refused in seconds, long before the deadline of five minutes.
#[test]
fn an_image_without_systemd() {
    let sandbox = Sandbox::new();
    let said = "\r\n   \x1b[32;01mOpenRC \x1b[36;01m0.55.1\x1b[0m is starting up \x1b[34;01mLinux 6.12.13-0-virt\x1b[0m\r\n";
    let image = speaking_image(&sandbox.env.path("openrc.img"), said);
    let words = [
        "this image has no systemd (Alpine?) (last stage: none)",
        "  |    OpenRC 0.55.1 is starting up Linux 6.12.13-0-virt",
        "k3s-vm/console.log",
        "--image debian-13",
    ];
    let setup = sandbox.setup(&["--image", &image]);
    sandbox.fails("a guest without systemd", setup, 1, &words);
}

/// The wait for the device is reported while it lasts, and the shell ends it.
#[test]
fn an_image_whose_fstab_names_a_disk_that_is_not_there() {
    let sandbox = Sandbox::new();
    let spinner = "\x1b[K[\x1b[0;31m*\x1b[0m     ] A start job is running for /dev/disk/by-label/DATA (7s / 1min 30s)\r";
    let said = format!(
        "{spinner}{spinner}[ TIME ] Timed out waiting for device /dev/disk/by-label/DATA.\r\n\
         [DEPEND] Dependency failed for /data.\r\nYou are in emergency mode.\r\n"
    );
    let image = speaking_image(&sandbox.env.path("fstab.img"), &said);
    let words = [
        "the guest is waiting for /dev/disk/by-label/DATA\n",
        "the guest stopped in emergency mode; waiting up to 20s for a report\n",
        "the guest stopped in emergency mode: timed out waiting for /dev/disk/by-label/DATA (last stage: none)",
        "  | [DEPEND] Dependency failed for /data.",
        "/etc/fstab",
    ];
    let setup = sandbox.setup(&["--image", &image]);
    let ended = sandbox.fails("a guest in emergency mode", setup, 1, &words);
    let said = &ended.stderr;
    assert!(!said.contains("A start job is running"), "{said}");
    assert_eq!(said.matches("is waiting for").count(), 1, "{said}");
}

/// What the guest would report. Reasons differ in their numbers only.
#[test]
fn k3s_that_ends_with_the_same_error_three_times() {
    let sandbox = Sandbox::new();
    let setup = sandbox.booting();
    let mut stages = OpenOptions::new()
        .append(true)
        .open(sandbox.file("stages.log"))
        .expect("QEMU has made it");
    for second in [10, 20, 30] {
        let reports = format!(
            "{second}.1 k3s-starting\n{second}.9 k3s-exited exit-code 1: no default routes found after {second}s\n"
        );
        stages.write_all(reports.as_bytes()).expect("written");
        setup.says(&format!(
            "k3s ended (exit-code 1): no default routes found after {second}s"
        ));
    }
    let ended = setup.end();
    record_stopped_fault(&sandbox, "k3s without a default route", &ended);
    assert_eq!(ended.code, 1);
    for words in [
        "k3s cannot start: no default routes found after 30s (exit-code 1, 3 times in a row) (last stage: k3s ended (exit-code 1))",
        "k3s-vm logs k3s",
    ] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}

#[test]
fn a_kernel_that_panics() {
    let sandbox = Sandbox::new();
    let last_words = "[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n";
    let image = speaking_image(&sandbox.env.path("panic.img"), last_words);
    let words = [
        "the guest's kernel panicked (last stage: none)",
        "  | [    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs",
        "k3s-vm/console.log",
    ];
    sandbox.fails(
        "a kernel panic",
        sandbox.setup(&["--image", &image]),
        1,
        &words,
    );
}

/// The breakpoint is the emulator's fault, and may not come another time.
#[test]
fn a_kernel_with_a_spurious_breakpoint() {
    let sandbox = Sandbox::new();
    let last_words = "Oops: int3: 0000 [#1] SMP\r\nKernel panic - not syncing: Fatal exception\r\n";
    let image = speaking_image(&sandbox.env.path("stumbles.img"), last_words);
    let ended = sandbox.fails(
        "a kernel panic of the emulator's",
        sandbox.setup(&["--image", &image]),
        1,
        &["the guest's kernel panicked (last stage: none)"],
    );
    let tries = ended.stderr.matches("starting the guest again").count();
    assert_eq!(tries, 2, "{}", ended.stderr);
}

/// The time limit is one for all tries.
#[test]
fn a_timeout_is_not_reset() {
    let sandbox = Sandbox::new();
    let last_words = "Oops: int3: 0000 [#1] SMP\r\nKernel panic - not syncing: Fatal exception\r\n";
    let image = speaking_image(&sandbox.env.path("stumbles.img"), last_words);
    // A try takes half a second at least.
    sandbox.fails(
        "a kernel panic of the emulator's again and again, --timeout 1s",
        sandbox.setup(&["--image", &image, "--timeout", "1s"]),
        1,
        &["the VM was not ready within 1s"],
    );
}

/// A guest to which the emulator does not deliver its timer's interrupts says so every 21 s, and does nothing else.
#[test]
fn a_kernel_whose_timer_has_stopped() {
    let sandbox = Sandbox::new();
    let lines = "rcu: rcu_preempt kthread starved for 5252 jiffies!\r\n".repeat(6);
    let image = speaking_image(&sandbox.env.path("stalls.img"), &lines);
    let ended = sandbox.fails(
        "a guest without timer interrupts",
        sandbox.setup(&["--image", &image]),
        1,
        &["error: the guest's kernel has stalled (last stage: none)"],
    );
    let tries = ended.stderr.matches("starting the guest again").count();
    assert_eq!(tries, 2, "{}", ended.stderr);
}

/// Its systemd gives up, and waits for nothing.
#[test]
fn a_systemd_that_has_stopped() {
    let sandbox = Sandbox::new();
    let lines =
        "[!!!!!!] Failed to start up manager.\r\n[  232.8] systemd[1]: Freezing execution.\r\n";
    let image = speaking_image(&sandbox.env.path("freezes.img"), lines);
    let ended = sandbox.fails(
        "a guest whose systemd has stopped",
        sandbox.setup(&["--image", &image]),
        1,
        &[
            "error: the guest's systemd has stopped (last stage: none)",
            "Failed to start up manager",
        ],
    );
    let tries = ended.stderr.matches("starting the guest again").count();
    assert_eq!(tries, 2, "{}", ended.stderr);
}

/// An emulated serial port writes 4 MiB in half a minute on an idle machine.
const FLOOD_TIMEOUT: Duration = Duration::from_secs(300);

#[test]
fn a_console_that_floods() {
    const MOST: u64 = 8 << 20;
    let sandbox = Sandbox::new();
    let image = speaking_image(&sandbox.env.path("flood.img"), "all is well\r\n");
    let mut bytes = fs::read(&image).expect("written before");
    bytes[18..20].copy_from_slice(&[0xeb, 0xf0]); // wait: jmp to where si is set
    fs::write(&image, bytes).expect("written");
    let setup = Background::start(&sandbox, sandbox.setup(&["--image", &image]));
    let mut longest = 0;
    within(FLOOD_TIMEOUT, "the log is cut", || {
        assert!(setup.is_running(), "{}", setup.said());
        let console = fs::read(sandbox.file("console.log")).unwrap_or_default();
        longest = longest.max(console.len() as u64);
        console.starts_with(b"[k3s-vm: the guest flooded this log")
    });
    assert!(longest < MOST, "{longest} bytes on disk");
    setup.signal(Signal::KILL);
    setup.end();
    let setup = sandbox.setup(&["--image", &image, "--timeout", "1s"]);
    let ended = finish(setup);
    record_running_fault(&sandbox, "a console that floods", &ended);
    assert_eq!(ended.code, 1);
    for words in ["not ready within 1s (last stage: none)", "  | all is well"] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
    sandbox.env.ok(&["stop", "--force"]);
    let logs = sandbox.env.ok(&["logs"]).stdout;
    assert!(
        logs.contains("[k3s-vm: the guest flooded this log; what stood here was cut]"),
        "{}",
        &logs[..200]
    );
    assert!(logs.len() > 1 << 20, "the end of it");
}

#[test]
fn qemu_dies_while_it_boots() {
    let sandbox = Sandbox::new();
    let log = sandbox.env.path("log");
    let mut setup = sandbox.setup(&[]);
    setup.env("LOG_FILE", &log);
    let setup = Background::start(&sandbox, setup);
    eventually("the wait for the guest", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("phase=\"start QEMU\""))
    });
    let qemu = sandbox.env.pid().expect("it runs").cast_unsigned();
    send(Signal::KILL, qemu);
    // Its own limit is later than this one's.
    let ended = setup.end();
    record_stopped_fault(&sandbox, "QEMU is killed", &ended);
    assert_eq!(ended.code, 1);
    for word in [
        "QEMU ended (last stage: none)",
        "k3s-vm/qemu.log",
        "hint: run the same command again",
    ] {
        assert!(ended.stderr.contains(word), "{}", ended.stderr);
    }
    sandbox.nothing_runs();
    sandbox.continues(sandbox.setup(&[]));
}

#[test]
fn ctrl_c_and_sigterm_and_a_closed_terminal() {
    let sandbox = Sandbox::new();
    for (signal, name, code) in [
        (Signal::INT, "SIGINT", 130),
        (Signal::TERM, "SIGTERM", 143),
        (Signal::HUP, "SIGHUP", 129),
    ] {
        let setup = sandbox.booting();
        setup.signal(signal);
        let ended = setup.end();
        record_stopped_fault(&sandbox, &format!("{name} during the boot"), &ended);
        assert_eq!(ended.code, code);
        assert!(
            ended.stderr.contains("error: interrupted"),
            "{}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains("hint: run the same command again"),
            "{}",
            ended.stderr
        );
        sandbox.nothing_runs();
    }
    sandbox.continues(sandbox.setup(&[]));
}

/// Each of them comes to a running QEMU, with all the files that it is given.
#[test]
fn project_paths_of_all_kinds() {
    let long = "deep".repeat(50);
    for name in [
        "two words",
        "a,b=c,,d",
        "it's \"quoted\"",
        "ünï-çødé-日本",
        "$(HOME) `x`; #%",
        "-n",
        long.as_str(),
    ] {
        let sandbox = Sandbox::named(name);
        sandbox.continues(sandbox.setup(&[]));
        assert!(sandbox.file("disk.qcow2").exists());
    }
    let sandbox = Sandbox::named("two\nlines");
    let words = ["QEMU needs UTF-8 without line breaks", "two\\nlines"];
    sandbox.fails("a line break in the path", sandbox.setup(&[]), 2, &words);
}

#[test]
fn a_rollback_with_a_timeout() {
    let sandbox = Sandbox::new();
    sandbox.finished(".kube/config".as_ref());
    sandbox.env.ok(&["snapshot", "create", "one"]);
    let restore = ["snapshot", "restore", "one", "--yes", "--start"];
    let mut words = restore.to_vec();
    words.extend(["--timeout", "1s"]);
    let restored = sandbox.env.command(&words);
    let words = ["the VM was not ready within 1s"];
    sandbox.fails(
        "a rollback that does not come up, --timeout 1s",
        restored,
        1,
        &words,
    );
    sandbox.env.ok(&["configure", "--timeout", "2s"]);
    let restored = sandbox.env.command(&restore);
    let words = ["the VM was not ready within 2s"];
    sandbox.fails(
        "a rollback that does not come up, timeout of the config",
        restored,
        1,
        &words,
    );
}

#[test]
fn a_k3s_disk_that_is_gone() {
    let sandbox = Sandbox::new();
    sandbox.stopped();
    for (file, what) in [("disk.qcow2", "disk"), ("seed.img", "seed")] {
        let (path, away) = (sandbox.file(file), sandbox.env.path("away"));
        fs::rename(&path, &away).expect("moved");
        eventually(what, || !path.exists());
        sandbox.continues(sandbox.setup(&[]));
        assert!(path.exists(), "an unfinished VM gets its {what} again");
    }
}

/// A boot sector that writes `text` to the first serial port and then does nothing.
fn speaking_image(path: &Path, text: &str) -> String {
    let code = [
        &[0x31, 0xc0][..],   // xor ax, ax
        &[0x8e, 0xd8],       // mov ds, ax
        &[0xbe, 0x15, 0x7c], // mov si, 0x7c15, where the text is
        &[0xba, 0xf8, 0x03], // mov dx, 0x3f8
        &[0xac],             // next: lodsb
        &[0x84, 0xc0],       // test al, al
        &[0x74, 0x03],       // jz wait
        &[0xee],             // out dx, al
        &[0xeb, 0xf8],       // jmp next
        &NOTHING,            // wait:
        text.as_bytes(),
    ]
    .concat();
    let mut bytes = vec![0; 2 << 20];
    bytes[..code.len()].copy_from_slice(&code);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(path, bytes).expect("written");
    path.display().to_string()
}
