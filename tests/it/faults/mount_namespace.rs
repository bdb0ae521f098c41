//! What a guest that breaks out into QEMU finds there: few devices to break through, and a process that may do little.

use std::{collections::BTreeSet, fs, path::Path};

use k3s_vm::qemu::Monitor;
use regex::Regex;

use super::sandbox::{Background, Sandbox, eventually};
use crate::support::{finish, program};

/// All of them: what the machine type cannot be without, and what the guest is given. Neither display, sound, USB and
/// floppy, nor a way to the host that a virtual machine of another make would have.
const DEVICES: [&str; 26] = [
    "ICH9-LPC",
    "fw_cfg_io",
    "hpet",
    "i8042",
    "i8257",
    "ioapic",
    "isa-i8259",
    "isa-pcspk",
    "isa-pit",
    "isa-serial",
    "kvmvapic",
    "mc146818rtc",
    "mch",
    "port92",
    "ps2-kbd",
    "ps2-mouse",
    "q35-pcihost",
    "virtio-blk-device",
    "virtio-blk-pci",
    "virtio-net-device",
    "virtio-net-pci",
    "virtio-rng-device",
    "virtio-rng-pci",
    "virtio-serial-device",
    "virtio-serial-pci",
    "virtserialport",
];

#[tokio::test]
async fn few_devices_and_few_rights() {
    caged(None).await;
}

#[tokio::test]
#[ignore = "needs QEMU 10 under target/qemu10, where tests/run.sh unpacks it"]
async fn with_qemu_10() {
    let target = program().ancestors().nth(2).expect("target/").to_owned();
    caged(Some(&target.join("qemu10/bin"))).await;
}

async fn caged(programs: Option<&Path>) {
    let sandbox = Sandbox::new();
    let mut setup = sandbox.setup(&[]);
    if let Some(programs) = programs {
        let others = std::env::var("PATH").unwrap_or_default();
        setup.env("PATH", format!("{}:{others}", programs.display()));
    }
    let setup = Background::start(&sandbox, setup);
    eventually("the VM runs", || {
        assert!(setup.is_running(), "{}", setup.said());
        sandbox.status()["process"]["run_state"] == "running"
    });
    let status = sandbox.status();
    let socket = status["process"]["monitor"].as_str().expect("a socket");
    let mut monitor = Monitor::connect_to(Path::new(socket), None)
        .await
        .expect("connected");
    let tree = monitor.human("info qtree").await.expect("told");
    let found = Regex::new("dev: ([^,]+),").expect("sound");
    let found: BTreeSet<&str> = found
        .captures_iter(&tree)
        .map(|it| it.get(1).expect("a name").as_str())
        .collect();
    assert_eq!(found, BTreeSet::from(DEVICES));
    let roms = monitor.human("info roms").await.expect("told");
    let option_roms: Vec<&str> = roms
        .lines()
        .filter(|line| line.contains("genroms/"))
        .collect();
    assert!(
        option_roms.iter().all(|rom| rom.contains("kvmvapic")),
        "{roms}"
    );
    drop(monitor);

    let pid = sandbox.env.pid().expect("it runs");
    for thread in fs::read_dir(format!("/proc/{pid}/task"))
        .expect("Linux")
        .flatten()
    {
        let status = fs::read_to_string(thread.path().join("status")).expect("it runs");
        for line in ["\nSeccomp:\t2\n", "\nNoNewPrivs:\t1\n"] {
            assert!(status.contains(line), "{line:?} is not in {status}");
        }
    }
    assert_eq!(listening(&sandbox, pid), ["127.0.0.1", "127.0.0.1"]);
    drop(setup);
    sandbox.env.ok(&["stop", "--force"]);
    sandbox.nothing_runs();
}

/// The addresses of the process's sockets that wait for others, TCP and UDP.
fn listening(sandbox: &Sandbox, pid: i32) -> Vec<String> {
    let mut ss = sandbox.env.tool("ss");
    ss.arg("-Hltunp");
    let said = finish(ss).stdout;
    let of_it = said
        .lines()
        .filter(|line| line.contains(&format!("pid={pid},")));
    let local = of_it.filter_map(|line| line.split_whitespace().nth(4)?.rsplit_once(':'));
    local.map(|(address, _)| address.to_owned()).collect()
}
