//! Machines that start with the login session: the unit, and how systemd itself reads it. No guest is needed.

use std::{fs, path::PathBuf};

use crate::{
    stopped_vm::{add_stopped_vm, trust, write_record},
    support::names,
    transcript::{Story, chapter, found},
};

const NAME: &str = "k3s-shop-1a2b3c";

fn units(story: &Story) -> PathBuf {
    story.env.path("home").join(".config/systemd/user")
}

#[test]
fn a_unit_is_written_on_request_and_deleted_with_the_vm() {
    let story = Story::begin("shop");
    for line in ["k3s-vm autostart", "k3s-vm autostart on"] {
        story
            .run(line)
            .exits(4)
            .says("hint: create it: k3s-vm setup");
    }
    story
        .run("k3s-vm autostart maybe")
        .exits(2)
        .says("[possible values: on, off]");
    story
        .run("k3s-vm autostart off")
        .succeeds()
        .says("it is off already");
    add_stopped_vm(&story);
    story.run("k3s-vm autostart").succeeds().prints("off");
    chapter("On, and once more");
    for _ in 0..2 {
        story
            .run("k3s-vm autostart on")
            .succeeds()
            .says(&format!("/k3s-vm-{NAME}.service is written and enabled"))
            .says("loginctl enable-linger")
            .prints("");
    }
    story.run("k3s-vm autostart").succeeds().prints("on");
    let unit = format!("k3s-vm-{NAME}.service");
    assert_eq!(
        names(&units(&story)),
        ["default.target.wants", unit.as_str()]
    );
    let link = units(&story).join("default.target.wants").join(&unit);
    assert_eq!(
        fs::read_link(link).expect("a link"),
        units(&story).join(&unit)
    );

    chapter("A further VM has its own");
    let directory = story.file("machines/next");
    fs::create_dir_all(&directory).expect("created");
    write_record(&story.env.project, &directory, NAME, ".kube/next");
    trust(&story.env, &story.env.project, "next");
    story.run("k3s-vm --name next autostart").prints("off");
    story.run("k3s-vm --name next autostart on").succeeds();
    assert_eq!(
        names(&units(&story)).len(),
        3,
        "of the same name, and yet two"
    );
    story.run("k3s-vm --name next reset --yes").succeeds();
    story.run("k3s-vm autostart").prints("on");

    chapter("Off, and with the VM");
    story
        .run("k3s-vm autostart off")
        .succeeds()
        .says("autostart is off");
    story.run("k3s-vm autostart").prints("off");
    story
        .run("k3s-vm autostart on && k3s-vm reset --yes")
        .succeeds();
    assert_eq!(names(&units(&story)), [""; 0]);
}

#[test]
fn other_units_are_kept() {
    let story = Story::begin("shop");
    add_stopped_vm(&story);
    fs::create_dir_all(units(&story)).expect("created");
    let unit = units(&story).join(format!("k3s-vm-{NAME}.service"));
    fs::write(&unit, "[Unit]\nDescription=mine\n").expect("written");
    story
        .run("k3s-vm autostart on && k3s-vm autostart off && k3s-vm reset --yes")
        .succeeds()
        .never_says(&format!("/k3s-vm-{NAME}.service is written"));
    assert_eq!(
        fs::read_to_string(unit).expect("read"),
        "[Unit]\nDescription=mine\n"
    );
    chapter("A unit of a project that was moved is of no use, and replaced");
    with_a_stopped_machine_again(&story);
    story
        .run("export XDG_CONFIG_HOME=$PWD/own; k3s-vm trust --yes && k3s-vm autostart on && mv ../shop ../moved")
        .succeeds();
    let moved = story.env.path("moved").display().to_string();
    let on = format!("cd '{moved}' && export XDG_CONFIG_HOME=$PWD/own && k3s-vm autostart");
    fs::create_dir(&story.env.project).expect("created");
    story.run(&on).prints("off");
    story
        .run(&format!("{on} on && k3s-vm autostart"))
        .prints("on");
    story
        .run(&format!(
            "cd '{moved}' && ls own/systemd/user && grep ExecStart own/systemd/user/*.service"
        ))
        .says("/moved\"");
}

fn with_a_stopped_machine_again(story: &Story) {
    let _ = fs::remove_dir_all(story.file(""));
    let _ = fs::remove_dir_all(story.env.project.join(".kube"));
    add_stopped_vm(story);
}

#[test]
fn systemd_accepts_units_of_odd_paths() {
    let story = Story::begin("a b 50% $HOME \"off\" 'x' \\ é");
    add_stopped_vm(&story);
    story.run("k3s-vm autostart on").succeeds();
    let unit = units(&story).join(format!("k3s-vm-{NAME}.service"));
    let mut verify = story.env.tool("systemd-analyze");
    verify.args(["verify", "--user", "--man=no"]).arg(&unit);
    verify.env("XDG_RUNTIME_DIR", story.env.path("run"));
    let told = verify.output().expect("the package systemd is installed");
    let said = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success() && said.is_empty(), "{said}");
    found("systemd-analyze finds nothing to say");
    // The same with a word that it does not know, so that its silence means something.
    let text = fs::read_to_string(&unit).expect("read");
    fs::write(&unit, text.replace("KillMode=process", "KillMode=never")).expect("written");
    let mut verify = story.env.tool("systemd-analyze");
    verify.args(["verify", "--user", "--man=no"]).arg(&unit);
    verify.env("XDG_RUNTIME_DIR", story.env.path("run"));
    let told = verify.output().expect("it runs");
    let said = String::from_utf8_lossy(&told.stderr);
    assert!(said.contains("kill mode"), "{said}");
}
