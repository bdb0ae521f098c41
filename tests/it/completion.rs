//! What real shells complete, with the scripts of `completions`.

use std::{fs, process::Command};

use crate::{
    support::{in_dialogue, names},
    transcript::{Story, chapter},
};

/// The words that the program completes, as a shell asks for them.
fn words(story: &Story, line: &str) -> String {
    let place = line.split(' ').count() - 1;
    let line: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
    let told = story.run(&format!(
        "K3S_VM_COMPLETE={place} k3s-vm -- {} | cut -f 1 | xargs",
        line.join(" ")
    ));
    assert_eq!(told.ended.stderr, "");
    told.succeeds().ended.stdout.trim_end().to_owned()
}

/// A project with two snapshots and a config, and no machine.
fn project() -> Story {
    let story = Story::begin("shells");
    for name in ["before-upgrade", "begun"] {
        fs::create_dir_all(story.file("snapshots").join(name)).expect("made");
    }
    fs::write(
        story.file("config"),
        "ports = [\"3000:80\", \"5353:53/udp\"]\n",
    )
    .expect("written");
    story
}

#[test]
fn every_command_completes_its_arguments() {
    let story = project();
    let before = names(&story.env.project.join(".k3s-vm"));
    let home = story.env.path("home");
    for (line, completed) in [
        ("k3s-vm st", "start stop status"),
        ("k3s-vm logs q", "qemu"),
        (
            "k3s-vm setup --image deb",
            "debian-13 debian-13-genericcloud debian-12",
        ),
        ("k3s-vm setup --image=debian-12", "--image=debian-12"),
        ("k3s-vm cache export --image ubuntu-26", "ubuntu-26.04"),
        ("k3s-vm setup --image ./", ""),
        ("k3s-vm kubeconfig --u", "--unmerge"),
        ("k3s-vm env --shell f", "fish"),
        ("k3s-vm status --w", "--watch"),
        ("k3s-vm snapshot restore ", "before-upgrade begun"),
        ("k3s-vm snapshot delete begun bef", "before-upgrade"),
        ("k3s-vm port rm ", "3000 5353/udp"),
        ("k3s-vm image rm ", ""),
        ("k3s-vm kubectl get po", ""),
        ("k3s-vm -C ../home snapshot restore ", ""),
        ("k3s-vm snapshot restore -C ../home ", ""),
        ("k3s-vm -C /nowhere snapshot restore ", ""),
        ("k3s-vm -C ../ho", "../home/"),
        ("k3s-vm nonsense --more", ""),
    ] {
        let found = words(&story, line);
        // Where nothing else is known, flags can be said.
        let flags = found.starts_with('-') && line.ends_with(' ');
        assert!(
            found == completed || (completed.is_empty() && flags),
            "{line}: {found}"
        );
    }
    story.run("cd ../home && K3S_VM_COMPLETE=5 k3s-vm -- k3s-vm -C ../shells snapshot restore be | cut -f 1 | xargs")
        .succeeds()
        .prints("before-upgrade begun");
    assert_eq!(names(&story.env.project.join(".k3s-vm")), before);
    assert!(names(&home).is_empty() && !story.env.cache.exists());

    fs::write(story.file("config"), "ports = 7\n").expect("written");
    assert_eq!(words(&story, "k3s-vm port rm 1"), "", "a damaged config");
    story
        .run("K3S_VM_COMPLETE=none k3s-vm status")
        .exits(4)
        .says("none in");
}

/// Types `line`, a tab and more in a shell of that project, and gives what the line has become. Keys that are typed before
/// the shell reads them are the terminal's own.
fn typed(story: &Story, mut shell: Command, prepared: &str, line: &str) -> String {
    let bin = story.env.path("bin");
    let path = format!(
        "{}:{}",
        bin.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    shell
        .env("PATH", path)
        .env("PS1", "begin: ")
        .env("INPUTRC", "/dev/null");
    // What a prompt is set to is not what is typed for it.
    let prepared = format!("{prepared}; PS1='rea''dy: '\n");
    // Ctrl-A goes to the begin of the line, which is shown then instead of run.
    let line = format!("{line}\t\x01echo 'it is' \n");
    let parts = [
        ("begin: ", prepared.as_str()),
        ("ready: ", &line),
        ("it is k3s-vm", "exit\n"),
    ];
    let (_, screen) = in_dialogue(shell, &parts);
    let shown = screen
        .lines()
        .rev()
        .find(|line| line.starts_with("it is k3s-vm"));
    shown
        .unwrap_or_else(|| panic!("{screen}"))
        .trim_end()
        .to_owned()
}

#[test]
fn bash_completes_on_a_terminal() {
    let story = project();
    chapter("bash");
    for (line, completed) in [
        ("k3s-vm snapshot restore bef", "before-upgrade"),
        ("k3s-vm  setup  --image=ubuntu-24", "--image=ubuntu-24.04"),
        ("k3s-vm setup --memory 4GiB --image debian-12", "debian-12"),
        ("k3s-vm port rm 53", "5353/udp"),
        ("k3s-vm cache import /etc/hostn", "/etc/hostname"),
        ("k3s-vm cp :/srv snap", "snapped"),
        ("k3s-vm setup --port=8080:80 --cpu-", "--cpu-model"),
    ] {
        fs::write(story.env.project.join("snapped"), "").expect("written");
        let mut bash = story.env.tool("bash");
        bash.args(["--norc", "--noprofile", "-i"]);
        let shown = typed(&story, bash, "source <(k3s-vm completions bash)", line);
        assert!(shown.ends_with(&format!(" {completed}")), "{line}: {shown}");
    }
}

#[test]
fn zsh_completes_on_a_terminal() {
    let story = project();
    for (line, completed) in [
        ("k3s-vm snapshot restore bef", "before-upgrade"),
        ("k3s-vm setup --image=ubuntu-24", "--image=ubuntu-24.04"),
        ("k3s-vm port rm 53", "5353/udp"),
        ("k3s-vm cache import /etc/hostn", "/etc/hostname"),
    ] {
        let mut zsh = story.env.tool("zsh");
        zsh.args(["-f", "-i"]);
        let prepared = "unsetopt zle_bracketed_paste; autoload -U compinit; compinit -u -D; source <(k3s-vm completions zsh)";
        let shown = typed(&story, zsh, prepared, line);
        assert!(shown.ends_with(&format!(" {completed}")), "{line}: {shown}");
    }
}

#[test]
fn fish_completes_what_is_written() {
    let story = project();
    for (line, completed) in [
        ("k3s-vm snapshot restore bef", "before-upgrade"),
        ("k3s-vm setup --image=ubuntu-24", "--image=ubuntu-24.04"),
        ("k3s-vm setup --image ubuntu-24", "ubuntu-24.04"),
        ("k3s-vm port rm 53", "5353/udp"),
        ("k3s-vm cache import /etc/hostn", "/etc/hostname"),
        ("k3s-vm sta", "start status"),
    ] {
        let told = story.run(&format!(
            "fish --no-config -c 'k3s-vm completions fish | source; complete --do-complete \"{line}\"' | cut -f 1 | xargs"
        ));
        told.succeeds().prints(completed);
    }
}

#[test]
fn completions_exist_for_three_shells() {
    let story = Story::begin("known");
    for shell in ["bash", "zsh", "fish"] {
        story
            .run(&format!("k3s-vm completions {shell} | {shell} -n"))
            .succeeds();
    }
    story
        .run("k3s-vm completions tcsh")
        .exits(2)
        .says("bash, zsh, fish");
}
