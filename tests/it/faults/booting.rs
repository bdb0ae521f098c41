//! Guests that do not come to where they should.

use std::{fs, path::PathBuf};

use super::{dead_setup, end, failed, nothing_is_left, spawn, until, waiting_setup};
use crate::support::TestEnv;

#[test]
fn the_image_boots_nothing() {
    let env = TestEnv::new();
    let ended = env.run(&dead_setup(&env, &["--timeout", "3s"]));
    failed(
        "an image that boots nothing",
        &ended,
        1,
        &["not ready within 3s", "last stage: none", "console.log"],
    );
    nothing_is_left(&env);
    assert_eq!(env.run(&["status"]).code, 3);
    let ended = env.run(&["status"]);
    assert!(
        ended.stdout.contains("setup not finished"),
        "{}",
        ended.stdout
    );
}

#[test]
fn the_kernel_panics() {
    let env = TestEnv::new();
    let words = "Kernel panic - not syncing: Attempted to kill init!";
    let image = image_that_prints(&env, words);
    let mut setup = dead_setup(&env, &[]);
    let place = setup
        .iter()
        .position(|it| it.ends_with("dead.img"))
        .expect("an image");
    setup[place] = image.display().to_string();
    let ended = env.run(&setup);
    failed(
        "the guest's kernel panics",
        &ended,
        1,
        &["the guest's kernel panicked", words],
    );
    nothing_is_left(&env);
}

/// A disk whose boot sector writes a line to the first serial port and stops.
fn image_that_prints(env: &TestEnv, words: &str) -> PathBuf {
    let code = [
        0xfc, // cld
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xbe, 0x13, 0x7c, // mov si, 0x7c13: the text
        0xba, 0xf8, 0x03, // mov dx, 0x3f8: the data register of the first UART
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0xfe, // jz $: the end
        0xee, // out dx, al
        0xeb, 0xf8, // jmp next
    ];
    let mut disk = vec![0; 2 << 20];
    disk[..code.len()].copy_from_slice(&code);
    disk[code.len()..code.len() + words.len()].copy_from_slice(words.as_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let path = env.path("panics.img");
    fs::write(&path, disk).expect("written");
    path
}

#[test]
fn qemu_dies_during_the_boot() {
    let env = TestEnv::new();
    let (setup, pid) = waiting_setup(&env);
    kill(pid, "KILL");
    let ended = end(setup);
    failed(
        "QEMU dies during the boot",
        &ended,
        1,
        &["QEMU ended", "hint: "],
    );
    nothing_is_left(&env);
}

#[test]
fn ctrl_c_and_its_kin() {
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let env = TestEnv::new();
        let (setup, _) = waiting_setup(&env);
        kill(i32::try_from(setup.id()).expect("a process id"), signal);
        failed(
            &format!("SIG{signal} during the boot"),
            &end(setup),
            code,
            &["interrupted", "goes on where it stopped"],
        );
        nothing_is_left(&env);
        assert_eq!(env.run(&["status"]).code, 3);
    }
}

#[test]
fn a_second_command_waits_and_status_does_not() {
    let env = TestEnv::new();
    let (setup, _) = waiting_setup(&env);
    let log = env.path("stop.log");
    let mut stop = env.command(&["stop", "--force"]);
    stop.env("LOG_FILE", &log);
    let stop = spawn(stop);
    let told = format!("waiting for k3s-vm setup (process {})", setup.id());
    until("a word about the wait", || {
        fs::read_to_string(&log)
            .ok()
            .filter(|text| text.contains(&told))
    });
    let status = env.run(&["status"]);
    assert!(
        status.code == 5 && status.stdout.contains("running"),
        "{status:?}"
    );
    kill(i32::try_from(setup.id()).expect("a process id"), "INT");
    assert_eq!(end(setup).code, 130);
    let stopped = end(stop);
    assert_eq!(stopped.code, 0, "{}", stopped.stderr);
    nothing_is_left(&env);
}

#[test]
fn awkward_paths_reach_qemu() {
    let long = "d".repeat(200);
    for name in [
        "two words",
        "a,comma,,two",
        "it's \"quoted\"",
        "ünïcödé 漢字",
        "$HOME;`id`&|<>*?",
        &long,
    ] {
        let env = TestEnv::named(name);
        let (setup, _) = waiting_setup(&env);
        assert_eq!(env.run(&["stop", "--help"]).code, 0);
        kill(i32::try_from(setup.id()).expect("a process id"), "INT");
        failed(
            &format!("a project called {name:.20}"),
            &end(setup),
            130,
            &[],
        );
        env.ok(&["reset", "--yes"]);
        nothing_is_left(&env);
    }
}

#[test]
fn a_path_with_a_line_break_is_refused() {
    let env = TestEnv::named("two\nlines");
    failed(
        "a project with a line break",
        &env.run(&dead_setup(&env, &[])),
        2,
        &["line breaks"],
    );
    nothing_is_left(&env);
}

pub(super) fn kill(pid: i32, signal: &str) {
    let status = std::process::Command::new("kill")
        .args([&format!("-{signal}"), &pid.to_string()])
        .status();
    assert!(status.expect("kill runs").success());
}
