//! The course of the measurements: short ones alone, boots in rounds in which the old way and the program take turns, so
//! that a busy minute of the machine hits both.

use std::{fs, path::Path, process::Command};

use k3s_vm::{
    base::{Digest, Size},
    image::{BaseImage, Format},
    qemu::Accelerator,
    seed::{SeedFile, cloud_config, fat},
};
use serde_json::Value;

use crate::{
    baseline::OldWay,
    figures::{self, Figures},
    measure::{allocated, cost, disk_used, times},
    program::Program,
    support::{TestEnv, guest_image, program},
    ways::{Way, bring_up},
};

/// How often what takes milliseconds is measured, and how often on a running machine, in each round.
const SHORT: usize = 50;
const STATUS: usize = 10;
/// And what takes seconds.
const TWICE: usize = 2;

/// Which machine the guests had, for the report.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) accelerator: Accelerator,
    pub(crate) kernel: String,
}

/// What takes no machine.
pub(crate) fn short(figures: &mut Figures) {
    let size = fs::metadata(program()).expect("it is built").len();
    figures.push(figures::SIZE, size as f64);
    let base = BaseImage {
        path: "/cache/images/base.img".into(),
        digest: Digest::of(b""),
        virtual_size: Size::gib(3),
        format: Format::Qcow2,
    };
    let overlay = || {
        let plan = k3s_vm::image::plan(&base, Size::gib(20)).expect("planned");
        assert!(!plan.is_empty());
    };
    figures.extend(figures::OVERLAY, times(SHORT, overlay));
    figures.extend(figures::SEED, times(SHORT, seed));
    let env = TestEnv::new();
    let run = |mut command: Command, code: i32| {
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(code), "{command:?}");
    };
    let mut help = Command::new(program());
    help.arg("--help");
    let help = || assert!(help.output().is_ok_and(|it| it.status.success()));
    figures.extend(figures::HELP, times(SHORT, help));
    let absent = || run(env.command(&["status"]), 4);
    figures.extend(figures::ABSENT, times(SHORT, absent));
}

fn seed() {
    let files = [
        SeedFile {
            name: "meta-data",
            content: cloud_config::meta_data().into_bytes(),
        },
        SeedFile {
            name: "user-data",
            content: cloud_config::user_data().into_bytes(),
        },
    ];
    assert!(!fat::image(&files).expect("made").is_empty());
}

/// A run that does not count: it brings image, release and QEMU into the page cache, and tells what guests get.
pub(crate) fn warm_up(mirror: &str) -> Seen {
    let program = Program::new(guest_image(), mirror);
    bring_up(&program, "setup");
    let status = program.env.ok(&["status", "--json"]).stdout;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    Seen {
        accelerator: match status["process"]["accelerator"].as_str() {
            Some("kvm") => Accelerator::Kvm,
            _ => Accelerator::Tcg,
        },
        kernel: program.env.ok(&["ssh", "uname", "-r"]).stdout.trim().into(),
    }
}

/// Each machine of both ways once through its life, in turns; one guest runs at a time.
pub(crate) fn round(figures: &mut Figures, seen: &Seen, mirror: &str) {
    let program = Program::new(guest_image(), mirror);
    let up = bring_up(&program, "setup");
    figures.push(figures::FIRST, up.cost.took);
    figures.push(figures::FIRST_WORK, up.qemu_processor);
    figures.push(figures::MEMORY, up.memory);
    figures.push(figures::QEMU_MEMORY, up.qemu_memory);
    figures.push(figures::WRITTEN, up.cost.written);
    figures.push(figures::DISK, disk_used(&program.env.project));
    figures.push(figures::CACHE, disk_used(&program.env.cache));
    figures.push_phases(figures::FIRST_SETUP, up.phases);
    for _ in 0..STATUS {
        let status = cost(&mut program.command("status"));
        figures.push(figures::STATUS, status.took);
        figures.push(figures::STATUS_OWN, status.processor);
    }
    figures.push(figures::STOP, stop(&program));

    let old_way = OldWay::new(guest_image(), mirror, seen.accelerator);
    let up = bring_up(&old_way, "setup");
    figures.push_old(figures::FIRST, up.cost.took);
    figures.push_old(figures::FIRST_WORK, up.qemu_processor);
    figures.push_old(figures::QEMU_MEMORY, up.qemu_memory);
    figures.push_old(figures::WRITTEN, up.cost.written);
    figures.push_old(figures::DISK, disk_used(old_way.directory()));
    figures.push_phases(figures::OLD_SETUP, up.phases);
    figures.push_old(figures::STOP, stop(&old_way));

    let up = bring_up(&program, "start");
    figures.push(figures::START, up.cost.took);
    figures.push(figures::START_WORK, up.qemu_processor);
    figures.push_phases(figures::NEW_START, up.phases);
    cost(&mut program.in_guest(TOUCH));
    for _ in 0..TWICE {
        suspended(figures, &program);
    }
    figures.push(figures::STOP, stop(&program));

    let up = bring_up(&old_way, "start");
    figures.push_old(figures::START, up.cost.took);
    figures.push_old(figures::START_WORK, up.qemu_processor);
    figures.push_phases(figures::OLD_START, up.phases);
    figures.push_old(figures::STOP, stop(&old_way));

    let up = bring_up(&program.second(&[]), "setup");
    figures.push(figures::SECOND, up.cost.took);
    figures.push(figures::SECOND_WORK, up.qemu_processor);
    figures.push(figures::SECOND_WRITTEN, up.cost.written);
    figures.push_phases(figures::SECOND_SETUP, up.phases);

    let up = bring_up(&program.second(&["--cpus", "1"]), "setup");
    figures.push(figures::OTHER, up.cost.took);
    figures.push_phases(figures::OTHER_SETUP, up.phases);

    let share = ["--share-identity"];
    let up = bring_up(&program.second(&share), "setup");
    figures.push(figures::TEMPLATE, up.cost.took);
    for _ in 0..TWICE {
        let up = bring_up(&program.second(&share), "setup");
        figures.push(figures::CLONE, up.cost.took);
        figures.push_phases(figures::CLONED, up.phases);
    }
}

/// With k3s and this, a guest comes to about a GiB; random bytes make no page of zeros.
const TOUCH: &str = "head -c 600M /dev/urandom >/dev/shm/touched";

/// The machine goes to the disk and comes back.
fn suspended(figures: &mut Figures, program: &Program) {
    let suspend = cost(&mut program.env.command(&["stop", "--suspend"]));
    figures.push(figures::SUSPEND, suspend.took);
    let memory = program.env.project.join(".k3s-vm/memory");
    let copy = program.env.path("copy");
    let mut dd = Command::new("dd");
    let named = |key: &str, path: &Path| format!("{key}={}", path.display());
    dd.args([named("if", &memory), named("of", &copy)])
        .args(["bs=1M", "conv=fsync,sparse"]);
    figures.push(figures::DD, cost(&mut dd).took);
    let saved = fs::metadata(&memory).expect("suspended");
    figures.push(figures::SAVED, allocated(&saved));
    fs::remove_file(copy).expect("removed");
    figures.push(figures::RESUME, cost(&mut program.command("start")).took);
}

fn stop(way: &impl Way) -> f64 {
    cost(&mut way.command("stop")).took
}
