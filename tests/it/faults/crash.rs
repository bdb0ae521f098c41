//! A command dies, a host is rebooted, process ids are reused, two commands come at once.

use std::{
    fs,
    os::unix::net::UnixListener,
    process::{Command, Stdio},
};

use rustix::process::Signal;

use super::{
    scene::{Background, Scene},
    table::tell,
};
use crate::support::{names, private_dir};

#[test]
fn a_setup_that_is_killed_leaves_a_qemu_that_the_next_one_goes_on_with() {
    let scene = Scene::new();
    let setup = scene.booting();
    setup.signal(Signal::KILL);
    assert_eq!(setup.end().code, 137);
    let qemu = scene.env.pid().expect("it runs");
    let status = scene.env.run(&["status"]);
    assert_eq!(status.code, 5, "{status:?}");
    assert!(
        status.stdout.contains("running, not healthy"),
        "{}",
        status.stdout
    );

    let setup = Background::start(&scene, scene.setup(&[]));
    setup.says(&format!(
        "runs already (process {qemu}); waiting until it is ready"
    ));
    setup.signal(Signal::INT);
    let ended = setup.end();
    tell(&scene, "a setup after a killed one, interrupted", &ended);
    assert_eq!(ended.code, 130);
    scene.nothing_runs();
    let setup = scene.booting();
    setup.signal(Signal::KILL);
    drop(setup);

    let stop = scene.env.ok(&["stop", "--force"]).stderr;
    assert!(!stop.contains("power"), "the guest is not asked: {stop}");
    scene.nothing_runs();
    scene.env.ok(&["reset", "--yes"]);
    assert_eq!(names(&scene.file("")), [".gitignore", "config", "lock"]);
}

#[test]
fn a_pidfile_whose_number_is_now_somebody_elses() {
    let scene = Scene::new();
    scene.stopped();
    let victim = Background::start(&scene, sleep());
    let pidfile = scene.file("qemu.pid");
    for verb in [&["stop"][..], &["stop", "--force"], &["reset", "--yes"]] {
        if !scene.file("record.json").exists() {
            scene.stopped();
        }
        fs::write(&pidfile, format!("{}\n", victim.pid())).expect("written");
        assert_eq!(scene.env.run(&["status"]).code, 3);
        let ended = scene.env.ok(verb);
        tell(
            &scene,
            &format!("a forged pidfile, {}", verb.join(" ")),
            &ended,
        );
        assert!(victim.is_running(), "the victim lives");
        assert!(!pidfile.exists(), "{verb:?} clears the stale file away");
    }
}

fn sleep() -> Command {
    let mut sleep = Command::new("sleep");
    sleep.arg("600").stdin(Stdio::null());
    sleep
}

/// All processes are gone, a pidfile and perhaps a socket are there, and the runtime directory was in memory.
#[test]
fn a_reboot_of_the_host() {
    for socket_is_left in [false, true] {
        let scene = Scene::new();
        let setup = scene.booting();
        setup.signal(Signal::KILL);
        drop(setup);
        let monitor = scene.status()["process"]["monitor"]
            .as_str()
            .expect("told")
            .to_owned();
        super::scene::send(
            Signal::KILL,
            scene.env.pid().expect("it runs").cast_unsigned(),
        );
        super::scene::eventually("QEMU is gone", || scene.env.run(&["status"]).code == 3);
        let runtime = scene.env.path("run");
        fs::remove_dir_all(&runtime).expect("removed");
        private_dir(&runtime);
        if socket_is_left {
            let directory = std::path::Path::new(&monitor)
                .parent()
                .expect("a directory");
            private_dir(&runtime.join("k3s-vm"));
            private_dir(directory);
            drop(UnixListener::bind(&monitor).expect("bound"));
        }
        assert!(
            scene.file("qemu.pid").exists(),
            "as a host that lost its power leaves it"
        );
        assert_eq!(scene.env.run(&["status"]).code, 3);
        scene.goes_on(scene.env.command(&["start"]));
    }
}

#[test]
fn a_second_command_waits_and_says_for_whom() {
    let scene = Scene::new();
    let setup = scene.booting();
    let status = scene.env.run(&["status"]);
    assert_eq!(status.code, 5, "{status:?}");
    assert!(setup.is_running(), "status waits for nobody");

    let stop = Background::start(&scene, scene.env.command(&["stop"]));
    stop.says(&format!(
        "waiting for k3s-vm setup (process {})",
        setup.pid()
    ));
    assert!(setup.is_running() && stop.is_running());
    setup.signal(Signal::INT);
    assert_eq!(setup.end().code, 130);
    let ended = stop.end();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("stopped already"), "{}", ended.stderr);

    // Who waits may be interrupted, too, and disturbs nobody.
    let setup = scene.booting();
    let second = Background::start(&scene, scene.setup(&[]));
    second.says(&format!(
        "waiting for k3s-vm setup (process {})",
        setup.pid()
    ));
    second.signal(Signal::INT);
    assert_eq!(second.end().code, 130);
    assert!(setup.is_running());
    assert_eq!(scene.status()["state"], "running");
}
