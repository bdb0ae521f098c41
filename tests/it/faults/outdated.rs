//! Saved memory that has become unusable, complete or not: a warning says why, it is not used, and the VM boots.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use super::sandbox::Sandbox;
use crate::support::NOTHING;

#[track_caller]
pub(super) fn boots(sandbox: &Sandbox, fault: &str, start: Command, word: &str) {
    let words = ["warning: booting k3s-", " instead of resuming: ", word];
    let said = sandbox.survives(fault, start, &words).stderr;
    assert_eq!(said.matches("warning:").count(), 1, "{said}");
    sandbox.state_is_gone();
    sandbox.nothing_runs();
}

/// One thing that is not as it was.
struct Change {
    fault: &'static str,
    change: fn(&Sandbox),
    word: &'static str,
}

/// Alters the metadata's text.
pub(super) fn rewrite(sandbox: &Sandbox, alter: impl FnOnce(&mut Value)) {
    let path = sandbox.file("suspended.json");
    let text = fs::read_to_string(&path).expect("there");
    let mut value = serde_json::from_str(&text).expect("JSON");
    alter(&mut value);
    fs::write(&path, value.to_string()).expect("written");
}

/// Alters the memory's bytes.
fn overwrite(sandbox: &Sandbox, alter: impl FnOnce(&mut Vec<u8>)) {
    let path = sandbox.file("memory");
    let mut bytes = fs::read(&path).expect("there");
    alter(&mut bytes);
    fs::write(&path, bytes).expect("written");
}

/// Where the guest's own code is: a part of the file that is in use.
fn in_use(bytes: &[u8]) -> usize {
    let code = [&NOTHING[..], &[0; 5]].concat();
    let found = bytes.windows(code.len()).position(|it| it == code);
    found.expect("the boot sector is in the memory")
}

const CHANGES: [Change; 13] = [
    Change {
        fault: "saved memory that is truncated",
        change: |sandbox| overwrite(sandbox, |bytes| bytes.truncate(bytes.len() - 1)),
        word: "/.k3s-vm/memory has another length",
    },
    Change {
        fault: "saved memory with one bit that is altered",
        change: |sandbox| {
            overwrite(sandbox, |bytes| {
                let at = in_use(bytes);
                bytes[at] ^= 1;
            });
        },
        word: "/.k3s-vm/memory is damaged",
    },
    Change {
        fault: "saved memory that is torn",
        change: |sandbox| {
            overwrite(sandbox, |bytes| {
                let page = in_use(bytes) / 4096 * 4096;
                bytes[page..page + 4096].fill(0);
            });
        },
        word: "/.k3s-vm/memory is damaged",
    },
    Change {
        fault: "saved memory that is gone",
        change: |sandbox| fs::remove_file(sandbox.file("memory")).expect("removed"),
        word: "/.k3s-vm/memory is missing",
    },
    Change {
        fault: "saved memory that QEMU does not take",
        change: |sandbox| {
            overwrite(sandbox, |bytes| bytes.fill(0));
            rewrite(sandbox, |json| json["memory"]["checksum"] = 0.into());
        },
        word: "QEMU cannot load the memory: ",
    },
    Change {
        fault: "a suspended.json that is torn",
        change: |sandbox| {
            fs::write(sandbox.file("suspended.json"), "{\"schema\": 1,").expect("written")
        },
        word: "/.k3s-vm/suspended.json is damaged (EOF",
    },
    Change {
        fault: "a suspended.json of a later program",
        change: |sandbox| rewrite(sandbox, |json| json["schema"] = 2.into()),
        word: "its schema is 2, this program knows 1",
    },
    Change {
        fault: "a suspended.json with a key of a later program",
        change: |sandbox| rewrite(sandbox, |json| json["encrypted"] = true.into()),
        word: "unknown field `encrypted`",
    },
    Change {
        fault: "suspended by a QEMU that was updated since",
        change: |sandbox| {
            rewrite(sandbox, |json| {
                json["memory"]["origin"]["qemu"] = "7.1.0 (Debian 1:7.1)".into()
            })
        },
        word: "QEMU was 7.1.0 (Debian 1:7.1) and is ",
    },
    Change {
        fault: "suspended on a host with another processor",
        change: |sandbox| {
            rewrite(sandbox, |json| {
                json["memory"]["origin"]["processor"] = "Another 486DX2".into()
            })
        },
        word: "this host has another CPU",
    },
    Change {
        fault: "other resources since it was suspended",
        change: |sandbox| {
            let config = fs::read_to_string(sandbox.file("config")).expect("there");
            let config = config.replace("cpus = 2", "cpus = 1");
            fs::write(sandbox.file("config"), config).expect("written");
        },
        word: "it was started differently: -smp 2 then, -smp 1 now",
    },
    Change {
        fault: "a disk that was written to since it was suspended",
        change: |sandbox| {
            let disk = fs::File::options()
                .append(true)
                .open(sandbox.file("disk.qcow2"));
            let now = std::time::SystemTime::now();
            disk.and_then(|disk| disk.set_modified(now))
                .expect("touched");
        },
        word: "its disk has changed since",
    },
    Change {
        fault: "an attached disk that is gone since it was suspended",
        change: |sandbox| {
            let record = fs::read_to_string(sandbox.file("record.json")).expect("there");
            let record: Value = serde_json::from_str(&record).expect("a record");
            let binary = record["release"]["binary"].as_str().expect("a path");
            fs::remove_file(binary).expect("removed");
        },
        word: "/k3s is missing",
    },
];

#[test]
fn changes_since_the_suspend() {
    let sandbox = Sandbox::new();
    sandbox.suspended();
    let kept = sandbox.env.path("kept");
    let copy = |from: &Path, to: &Path| {
        let status = Command::new("cp").arg("-aT").args([from, to]).status();
        assert!(status.expect("cp runs").success());
    };
    copy(&sandbox.file(""), &kept);
    for Change {
        fault,
        change,
        word,
    } in &CHANGES
    {
        fs::remove_dir_all(sandbox.file("")).expect("removed");
        copy(&kept, &sandbox.file(""));
        change(&sandbox);
        let mut start = sandbox.env.command(&["start"]);
        start.env("K3S_VM_TRUSTED_PATHS", &sandbox.env.project);
        boots(&sandbox, fault, start, word);
    }
}

#[test]
fn a_start_that_wants_a_boot() {
    let sandbox = Sandbox::new();
    sandbox.suspended();
    let start = sandbox.env.command(&["start", "--restore-datastore"]);
    let word = "it was started differently: ";
    boots(
        &sandbox,
        "start --restore-datastore of a suspended VM",
        start,
        word,
    );
}
