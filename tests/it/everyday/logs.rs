//! What the machine said: on its console, in its journal, at its first boot, and in one place.

use super::story_of;
use crate::transcript::{Story, chapter, found};

#[test]
fn logs_of_all_sources() {
    let story = story_of("said");
    each_has_its_own(&story);
    since_filters_lines_with_times(&story);
    all_are_merged(&story);
    all_are_followed(&story);
    a_stopped_vm_shows_host_logs(&story);
}

fn each_has_its_own(story: &Story) {
    chapter("what the guest did at its first boot");
    story
        .run("k3s-vm logs cloud-init")
        .succeeds()
        .says("Finished k3s-vm-provision.service");
    story
        .run("k3s-vm ssh 'echo \"what a script printed\" >/var/log/cloud-init-output.log' && k3s-vm logs cloud-init | head -n 2")
        .succeeds()
        .prints("==> /var/log/cloud-init-output.log <==\nwhat a script printed");
    story
        .run("k3s-vm logs k3s")
        .succeeds()
        .says("Started k3s.service");
    story.run("k3s-vm logs k3s | head -n 1").succeeds();
}

fn since_filters_lines_with_times(story: &Story) {
    chapter("only the last minutes, of what has times");
    let say = "k3s-vm ssh \"systemd-run --quiet --wait --unit=k3s-vm-said-$N echo said-$N\"";
    story.run(&format!("N=1; {say}")).succeeds();
    story
        .run("k3s-vm logs cloud-init --since 10m")
        .succeeds()
        .says("said-1")
        .never_says("==>");
    story
        .run("k3s-vm ssh 'journalctl --flush --rotate' && k3s-vm logs cloud-init --since 0s")
        .succeeds()
        .never_says("said-1");
    for source in ["console", "qemu"] {
        story
            .run(&format!("k3s-vm logs {source} --since 10m"))
            .exits(2)
            .says("its lines have no time of day");
    }
    story
        .run("k3s-vm logs k3s --since soon")
        .exits(2)
        .says("invalid value 'soon' for '--since <DURATION>'");
    story
        .run("k3s-vm logs everything")
        .exits(2)
        .says("possible values: console, k3s, cloud-init, qemu, all");
}

fn all_are_merged(story: &Story) {
    chapter("all of them, each line with its log, those with times in their order");
    let all = story
        .run("k3s-vm ssh 'echo one line >/dev/ttyS0' && k3s-vm logs all")
        .succeeds()
        .ended
        .stdout;
    let of = |name: &str| all.lines().filter(|line| line.starts_with(name)).count();
    for name in ["console   ", "k3s       ", "cloud-init"] {
        assert!(of(name) > 0, "{name}");
    }
    assert_eq!(
        all.lines().count(),
        of("console   ") + of("k3s       ") + of("cloud-init") + of("qemu      ")
    );
    let times: Vec<&str> = all
        .lines()
        .filter(|line| !line.starts_with("console"))
        .filter_map(|line| line.get(12..38))
        .filter(|time| time.starts_with("20"))
        .collect();
    assert!(times.len() > 5 && times.is_sorted(), "{times:#?}");
    found("sorted by time");
    story
        .run("k3s-vm logs all --color always | tail -n 1 | grep -c '^.\\[3[0-9]m'")
        .succeeds()
        .prints("1");
    story
        .run("k3s-vm ssh 'printf \"\\033]0;owned\\007 on the console\\n\" >/dev/ttyS0' && k3s-vm logs all | grep -a 'on the console' | grep -c $'\\033'")
        .exits(1)
        .prints("0");
    story
        .run("k3s-vm logs all --since 10m")
        .succeeds()
        .says("warning: the console is not shown: its lines have no time of day")
        .says("said-1");
}

fn all_are_followed(story: &Story) {
    chapter("and followed, until a signal; nothing stays in the guest");
    story
        .run(
            "k3s-vm logs all --follow >followed & wait_until 'grep -q said-1 followed'; \
             k3s-vm ssh 'echo on-the-console >/dev/ttyS0; systemd-run --quiet --unit=k3s-vm-said-1 echo said-2'; \
             wait_until \"grep -q '^cloud-init .*said-2$' followed && grep -q '^console .*on-the-console$' followed\"; \
             kill -INT $!; wait $!; code=$?; grep -c said-1$ followed; exit $code",
        )
        .exits(130)
        .prints("1");
    story
        .run(
            "k3s-vm logs k3s --follow >followed & wait_until '[ -s followed ]'; \
             kill -TERM $!; wait $!; code=$?; rm followed; exit $code",
        )
        .exits(143);
    story.until("k3s-vm ssh 'systemctl start k3s-vm-exec; ! pgrep journalctl'");
}

fn a_stopped_vm_shows_host_logs(story: &Story) {
    chapter("of VMs that do not run, what is on the host");
    let without_guest = |code: i32, said: &str| {
        story.run("k3s-vm logs k3s").exits(code).says(said);
        story.run("k3s-vm logs cloud-init").exits(code).says(said);
    };
    story.run("k3s-vm stop --suspend").succeeds();
    without_guest(3, "is suspended");
    story.run("k3s-vm stop --power-off").succeeds();
    without_guest(3, "is stopped");
    story.run("k3s-vm logs qemu").succeeds();
    story
        .run("k3s-vm logs all | grep -c ^console")
        .succeeds()
        .says("warning: k3s and cloud-init are not shown: the VM ");
    story.run("k3s-vm logs all --follow >/dev/null").succeeds();
    story.run("k3s-vm reset --yes").succeeds();
    without_guest(4, "there is no VM in ");
    story
        .run("k3s-vm logs all")
        .exits(4)
        .says("there is no VM in ");
}
