//! What each command answers where it cannot do its work: a machine that is absent, stopped, suspended, broken or busy. The
//! answers are kept beside this file, a line each: the command, its exit code, and the first words for people.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    process::{Child, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::story_of;
use crate::{
    screens::masked,
    support::{code, program},
    transcript::{Story, chapter},
};

/// Commands that would change nothing, or that nothing is lost by.
const ASK: [&str; 34] = [
    "stop",
    "pause",
    "status -q",
    "status --json",
    "snapshot create now",
    "snapshot list",
    "snapshot restore none --yes",
    "snapshot delete none",
    "trim",
    "kubectl get nodes",
    "port list",
    "port rm 4711",
    "port add svc/nobody",
    "image load none.tar",
    "image list",
    "image rm none",
    "ssh true",
    "ssh-config",
    "cp README :/root",
    "cp :/root/none .",
    "logs",
    "logs k3s",
    "logs all",
    "kubeconfig",
    "kubeconfig --unmerge",
    "env",
    "list",
    "configure",
    "configure --memory 2GiB",
    "configure --disk 1GiB",
    "upgrade --k3s-version v1.2.3+k3s1",
    "autostart",
    "cache list",
    "reset",
];
/// Those that bring a machine up.
const BEGIN: [&str; 4] = ["setup", "start", "restart", "resume"];

#[test]
fn answers_of_every_command() {
    let story = story_of("answers");
    fs::write(story.env.project.join("README"), "x").expect("written");
    let absent = Story::begin("answers");
    fs::write(absent.env.project.join("README"), "x").expect("written");
    answers(&absent, "absent", ASK.iter().chain(&BEGIN[1..]));

    chapter("A VM that another command is at work on");
    let lock = File::open(story.file("lock")).expect("there");
    lock.lock().expect("free");
    // Who only looks does not wait, and has a test of its own.
    let looks = ["kubectl", "image", "ssh", "cp", "logs", "status"];
    let waits = |line: &&&str| !looks.iter().any(|it| line.starts_with(it));
    answers(&story, "busy", ASK.iter().chain(&BEGIN).filter(waits));
    drop(lock);

    story.run("k3s-vm stop --suspend").succeeds();
    answers(&story, "suspended", ASK.iter().filter(|it| **it != "stop"));
    story.run("k3s-vm stop --power-off").succeeds();
    answers(&story, "stopped", &ASK);

    chapter("A VM whose record is torn");
    let record = story.file("record.json");
    let sound = fs::read(&record).expect("there");
    fs::write(&record, &sound[..1]).expect("written");
    answers(&story, "broken", ASK.iter().chain(&BEGIN));
    fs::write(&record, sound).expect("written");

    chapter("A config that was edited into nonsense");
    fs::write(story.file("config"), "cpus = 2\nmemory = \"much\"\n").expect("written");
    answers(&story, "nonsense", ASK.iter().chain(&BEGIN));
    story.run("k3s-vm reset --yes").succeeds();
}

fn answers<'a>(story: &Story, state: &str, lines: impl IntoIterator<Item = &'a &'a str>) {
    let begun = |line: &&'a str| {
        // Each ends; one that does not is killed, so that this does.
        let mut limited = story.env.tool("timeout");
        limited
            .args(["-s", "KILL", "120"])
            .arg(program())
            .args(line.split(' '));
        limited.stdout(Stdio::null()).stderr(Stdio::piped());
        (*line, limited.spawn().expect("it runs"))
    };
    let finished = |(line, child): (&str, Child)| answer(line, child);
    let lines = lines.into_iter().map(begun);
    // Those that wait do so together, and the others would come in each other's way.
    let told: Vec<_> = if state == "busy" {
        let waiting: Vec<_> = lines.collect();
        waiting.into_iter().map(finished).collect()
    } else {
        lines.map(finished).collect()
    };
    insta::assert_snapshot!(format!("answers-{state}"), anybodys(&told.join("\n")));
}

/// The template's maker, number and size do not matter.
fn anybodys(text: &str) -> String {
    let mut text = masked(text);
    for (pattern, mask) in [
        ("k3s-[0-9A-Za-z-]+-([0-9a-f]{6}|x{6})", "NAME"),
        (r"\(process [0-9]+\)", "(process N)"),
        (r"\([0-9.]+ [KMG]iB\)", "(SIZE)"),
    ] {
        let pattern = regex::Regex::new(pattern).expect("a sound pattern");
        text = pattern.replace_all(&text, mask).into_owned();
    }
    text
}

/// Who waits for another command says so first of all. It would wait for ever, and is interrupted then.
fn answer(line: &str, mut child: Child) -> String {
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut told = String::new();
    stderr.read_line(&mut told).expect("text");
    if told.contains("waiting for k3s-vm ") {
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::INT).expect("`timeout` passes it on");
    }
    stderr.read_to_string(&mut told).expect("text");
    let code = code(child.wait().expect("it ends"));
    assert!(!told.contains("panicked"), "{line}: {told}");
    let first = told.lines().next().unwrap_or_default();
    format!("{line:<34} {code:>3}  {first}")
}
