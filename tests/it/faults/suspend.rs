//! A suspend that fails on the way: the VM continues, and can be suspended when the cause is gone.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::process::Signal;

use super::{
    live::{monitor, qemu},
    sandbox::{Background, Sandbox, eventually, send},
    small::{PAGE, Small},
    steps::{Disturbance, Step, Traced},
    table::{record_running_fault, record_stopped_fault},
};
use crate::support::Ended;

/// More than a new project is asked to have room for.
const ENOUGH: u64 = 3 << 30;
/// What the guest of [`hungry_image`] touches.
const TOUCHED: u64 = 512 << 20;

/// The machine runs as if nothing had happened, in its old QEMU, and nothing is left of the attempt.
#[track_caller]
fn continues(sandbox: &Sandbox, qemu_before: u32) {
    let status = sandbox.status();
    assert_eq!(status["process"]["run_state"], "running", "{status}");
    assert_eq!(qemu(sandbox), qemu_before);
    sandbox.state_is_gone();
}

#[test]
fn a_disk_that_is_full() {
    let mut sandbox = Sandbox::new();
    sandbox.image = hungry_image(&sandbox.env.path("hungry.img"));
    let project = sandbox.env.project.clone();
    let small = Small::over(&mut sandbox, &project, ENOUGH);
    let setup = sandbox.booting();
    eventually("the guest has touched its memory", || {
        fs::read_to_string(sandbox.file("console.log")).is_ok_and(|text| text.contains('!'))
    });
    setup.signal(Signal::KILL);
    drop(setup);
    sandbox.provisioned(".kube/config".as_ref());
    let before = pid(&sandbox);
    // Without its key, no command waits for a guest that does not answer.
    let (key, away) = (sandbox.file("id_ed25519"), sandbox.file("away"));
    fs::rename(&key, &away).expect("moved");

    let words = [
        "/.k3s-vm: ",
        " free, the guest's memory needs 51",
        "hint: free space on the file system of",
        "k3s-vm stop --power-off",
    ];
    small.has_room_for(&sandbox, 16 << 20);
    let ended = sandbox.suspend();
    fails(&sandbox, "no space for the memory", &ended, &words);
    assert!(!ended.stderr.contains("saving the memory"), "{ended:?}");
    assert_eq!(pid(&sandbox), before);

    // There is room when the command looks, and none when QEMU writes: between the two an older file is removed.
    small.has_room_for(&sandbox, ENOUGH);
    let between = Step::to("unlink", &sandbox.env.project.join(".k3s-vm/memory"));
    let stop = Traced::start(
        &sandbox,
        &sandbox.env.command(&["stop", "--suspend"]),
        Some((&between, Disturbance::Signal(Signal::STOP))),
    );
    let stopped = stop.stopped();
    small.has_room_for(&sandbox, 128 << 20);
    send(Signal::CONT, stopped);
    let (code, stderr, _) = stop.finish();
    let ended = Ended {
        code,
        stdout: String::new(),
        stderr,
    };
    let fault = "the space is gone while the memory is saved";
    fails(&sandbox, fault, &ended, &words);
    assert!(ended.stderr.contains("saving the memory"), "{ended:?}");
    assert_eq!(pid(&sandbox), before);

    small.has_room_for(&sandbox, ENOUGH);
    assert_eq!(sandbox.suspend().code, 0);
    let memory = fs::metadata(sandbox.file("memory")).expect("there");
    let used = memory.blocks() * 512;
    // The first MiB is the firmware's, and mostly zeros.
    let expected = TOUCHED - (1 << 20)..TOUCHED + (64 << 20);
    assert!(expected.contains(&used), "{used}");
    fs::rename(&away, &key).expect("moved back");
    sandbox.resumes_from_memory(sandbox.resume());
}

/// Of the scene's QEMU, wherever its files are.
fn pid(sandbox: &Sandbox) -> u32 {
    let pidfile = fs::read_to_string(sandbox.file("qemu.pid")).expect("it runs");
    pidfile.trim().parse().expect("a number")
}

#[track_caller]
fn fails(sandbox: &Sandbox, fault: &str, ended: &Ended, words: &[&str]) {
    record_running_fault(sandbox, fault, ended);
    assert_eq!(ended.code, 1, "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?}: {}", ended.stderr);
    }
    let status = sandbox.status();
    assert_eq!(status["process"]["run_state"], "running", "{status}");
    sandbox.state_is_gone();
}

#[test]
fn interrupted() {
    let sandbox = Sandbox::new();
    sandbox.runs();
    let before = qemu(&sandbox);
    for (signal, name, code) in [
        (Signal::INT, "SIGINT", 130),
        (Signal::TERM, "SIGTERM", 143),
        (Signal::HUP, "SIGHUP", 129),
    ] {
        let stop = Background::start(&sandbox, sandbox.env.command(&["stop", "--suspend"]));
        // It waits for a guest that does not answer.
        stop.says("suspending ");
        stop.signal(signal);
        let ended = stop.end();
        record_running_fault(&sandbox, &format!("{name} during a suspend"), &ended);
        assert_eq!(ended.code, code);
        continues(&sandbox, before);
    }
}

#[test]
fn a_qemu_that_cannot_save_memory() {
    let sandbox = Sandbox::new();
    sandbox.runs();
    let before = qemu(&sandbox);
    send(Signal::STOP, before);
    let ended = sandbox.suspend();
    record_running_fault(&sandbox, "QEMU hangs, stop --suspend", &ended);
    assert_eq!(ended.code, 1);
    assert!(
        ended
            .stderr
            .contains("hint: end it by force: k3s-vm stop --force")
    );
    send(Signal::CONT, before);
    continues(&sandbox, before);

    // Commands that a person gave to the monitor do not matter.
    monitor(&sandbox, "stop");
    assert_eq!(sandbox.suspend().code, 0);
    sandbox.resumes_from_memory(sandbox.resume());

    let killed = Background::start(&sandbox, sandbox.env.command(&["stop", "--suspend"]));
    killed.says("suspending ");
    send(Signal::KILL, qemu(&sandbox));
    let ended = killed.end();
    record_stopped_fault(&sandbox, "QEMU is killed during a suspend", &ended);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("QEMU ended while"), "{ended:?}");
    sandbox.state_is_gone();
    assert_eq!(sandbox.status()["state"], "stopped");
}

/// A boot sector that writes to each page of the first half GiB, says so, and halts.
fn hungry_image(path: &Path) -> PathBuf {
    let pages = u32::try_from((TOUCHED - (1 << 20)) / PAGE).expect("few");
    let code = [
        &[0xfa][..],                     // cli
        &[0x31, 0xc0],                   // xor ax, ax
        &[0x8e, 0xd8],                   // mov ds, ax
        &[0x0f, 0x01, 0x16, 0x58, 0x7c], // lgdt [0x7c58]
        &[0x0f, 0x20, 0xc0],             // mov eax, cr0
        &[0x0c, 0x01],                   // or al, 1
        &[0x0f, 0x22, 0xc0],             // mov cr0, eax
        &[0xea, 0x17, 0x7c, 0x08, 0x00], // jmp 8:0x7c17, with 32 bits from here on
        &[0x66, 0xb8, 0x10, 0x00],       // mov ax, 16
        &[0x8e, 0xd8],                   // mov ds, ax
        &[0xbf, 0x00, 0x00, 0x10, 0x00], // mov edi, 1 MiB
        &[0xb9],                         // mov ecx, pages
        &pages.to_le_bytes(),            //
        &[0x89, 0x3f],                   // next: mov [edi], edi
        &[0x81, 0xc7, 0x00, 0x10, 0, 0], // add edi, 4096
        &[0xe2, 0xf6],                   // loop next
        &[0xba, 0xf8, 0x03, 0x00, 0x00], // mov edx, 0x3f8
        &[0xb0, b'!'],                   // mov al, '!'
        &[0xee],                         // out dx, al
        &[0xf4],                         // wait: hlt
        &[0xeb, 0xfd],                   // jmp wait
    ]
    .concat();
    let table = [
        &[0; 8][..],
        &[0xff, 0xff, 0, 0, 0, 0x9a, 0xcf, 0], // code: all 4 GiB
        &[0xff, 0xff, 0, 0, 0, 0x92, 0xcf, 0], // data: the same
        &[0x17, 0, 0x40, 0x7c, 0, 0],          // at 0x7c58: 24 bytes at 0x7c40
    ]
    .concat();
    let mut bytes = vec![0; 2 << 20];
    bytes[..code.len()].copy_from_slice(&code);
    bytes[0x40..0x40 + table.len()].copy_from_slice(&table);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(path, bytes).expect("written");
    path.to_owned()
}
