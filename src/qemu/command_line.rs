//! The QEMU command line: values in, an argument vector out, nothing touched.
//!
//! Whatever has a JSON form is given as JSON, so that no path has to be escaped; the rest doubles its commas. All paths
//! are absolute.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};

use super::{Accelerator, Version, firmware::Uefi};
use crate::base::{HostAccess, Name, Size};

/// The virtio-serial port on which the guest reports its stages; the guest finds it by this name.
pub const STAGE_PORT: &str = "org.k3s-vm.stages";
/// The virtio-serial port on which the guest hears who it is, where it has to ask.
pub const IDENTITY_PORT: &str = "org.k3s-vm.identity";
/// QEMU's name of that port's other end.
pub const IDENTITY_CHARDEV: &str = "identity";
/// The virtio-serial port on which the guest does what it is asked.
const EXEC_PORT: &str = "org.k3s-vm.exec";
/// QEMU's name of that port's other end.
pub const EXEC_CHARDEV: &str = "exec";
/// QEMU's name of the VM's disk.
pub const DISK: &str = "disk";
/// The network card's address, the same in every VM: user networking gives each a network of its own, and a guest
/// keeps its addresses and its network configuration when it continues as another VM.
const MAC: &str = "52:54:00:12:34:56";
/// QEMU's name of what keeps the serial console.
pub const CONSOLE: &str = "console";
/// QEMU's name of what keeps the stage reports.
pub const STAGES: &str = "stages";

/// QEMU's name of the device by which the guest reaches a directory of the host.
pub const FOLDER_DRIVER: &str = "virtio-9p-pci";

/// The option of a QEMU that resumes a guest instead of booting it.
pub const INCOMING: &str = "-incoming";

/// Everything that shapes a QEMU process.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Shown in `ps` and to the guest.
    pub name: Name,
    /// The SMBIOS UUID; `None` for a guest that has no identity yet.
    pub uuid: Option<String>,
    /// The SMBIOS serial number, by which the guest sees whether it has what it is to have.
    pub serial: Option<String>,
    /// How instructions are run.
    pub accelerator: Accelerator,
    /// The processor's model, where it is chosen.
    pub cpu_model: Option<String>,
    /// The QEMU that will run.
    pub version: Version,
    /// Virtual CPUs.
    pub cpus: u8,
    /// The guest's memory.
    pub memory: Size,
    /// UEFI firmware, or SeaBIOS when there is none.
    pub uefi: Option<Uefi>,
    /// The overlay that the guest boots from.
    pub disk: PathBuf,
    /// Read-only raw disks; the guest finds each as `/dev/disk/by-id/virtio-<name>`.
    pub attachments: Vec<AttachedDisk>,
    /// Folders that the guest may mount.
    pub shares: Vec<HostShare>,
    /// What the firmware hands to the guest's systemd (256 and later): names and contents of systemd.system-credentials(7).
    pub credentials: &'static [(&'static str, &'static str)],
    /// The host port on 127.0.0.1 that leads to the guest's 6443.
    pub api_port: u16,
    /// Whether the guest reaches nothing: neither the network nor the host's own services, which user networking shows
    /// it as 10.0.2.2. What is forwarded to it still comes in.
    pub isolated: bool,
    /// The ports of the host's loopback that the guest may reach.
    pub host_access: HostAccess,
    /// Whether it waits for saved memory instead of booting.
    pub incoming: bool,
    /// Whether the guest asks the host who it is.
    pub is_unprovisioned: bool,
    /// Where the monitor listens.
    pub monitor: PathBuf,
    /// Where the guest is asked: the FIFOs beside it with `.in` and `.out` at their ends.
    pub exec: PathBuf,
    /// Where the serial console is kept.
    pub console_log: PathBuf,
    /// Where the guest's stage reports are kept.
    pub stages_log: PathBuf,
    /// The pidfile that QEMU locks.
    pub pidfile: PathBuf,
    /// Files that it reads besides: what its disk stands on, and memory that it will load.
    pub reads: Vec<PathBuf>,
    /// Files that it may be told to write besides.
    pub writes: Vec<PathBuf>,
}

/// A read-only file that the guest sees as a disk.
#[derive(Debug, Clone)]
pub struct AttachedDisk {
    /// The disk's serial: at most 20 characters of `a-z`, `0-9`, `-`.
    pub name: &'static str,
    /// The file, used as it is.
    pub file: PathBuf,
}

/// A directory of the host that the guest may mount, as 9p over virtio.
#[derive(Debug, Clone)]
pub struct HostShare {
    /// What the guest asks for: at most 31 bytes.
    pub tag: String,
    /// The directory.
    pub path: PathBuf,
    /// Whether the guest only reads it.
    pub read_only: bool,
}

impl Launch {
    /// The arguments, without the program.
    pub fn arguments(&self) -> Vec<OsString> {
        [
            self.machine_args(),
            self.disk_args(),
            self.network_args(),
            self.port_args(),
            self.folder_args(),
            self.process_args(),
        ]
        .concat()
    }

    fn machine_args(&self) -> Vec<OsString> {
        // Nothing is on the VM's own SATA and SMBus, and VMware's port is for guests of VMware. A core dump of QEMU has no
        // memory of the guest.
        let machine = "q35,sata=off,smbus=off,vmport=off,dump-guest-core=off";
        let mut args = words(&["-nodefaults", "-no-user-config", "-machine", machine]);
        args.extend(match self.accelerator {
            Accelerator::Kvm => words(&["-enable-kvm"]),
            Accelerator::Tcg => words(&["-accel", "tcg,thread=multi"]),
        });
        let cpu = self
            .accelerator
            .cpu(self.version, self.cpu_model.as_deref());
        args.extend(words(&["-cpu", &cpu]));
        args.extend(words(&[
            "-smp",
            &self.cpus.to_string(),
            "-m",
            &format!("{}M", self.memory.as_mib()),
        ]));
        args.extend(words(&["-name", self.name.as_str()]));
        if let Some(uuid) = &self.uuid {
            args.extend(words(&["-uuid", uuid]));
        }
        if let Some(serial) = &self.serial {
            args.extend(words(&["-smbios", &format!("type=1,serial={serial}")]));
        }
        for (name, content) in self.credentials {
            let content = BASE64.encode(content);
            let value = format!("type=11,value=io.systemd.credential.binary:{name}={content}");
            args.extend(words(&["-smbios", &value]));
        }
        if let Some(uefi) = &self.uefi {
            let pflash = |unit: u8, read_only: &str, file: &Path| {
                let mut drive = OsString::from(format!(
                    "if=pflash,unit={unit},format=raw,readonly={read_only},file="
                ));
                drive.push(doubled_commas(file));
                [OsString::from("-drive"), drive]
            };
            args.extend(pflash(0, "on", &uefi.code));
            args.extend(pflash(1, "off", &uefi.variables));
        }
        args
    }

    fn disk_args(&self) -> Vec<OsString> {
        let mut args = Vec::from(blockdev(&overlay(DISK, &self.disk)));
        args.extend(device(
            &json!({ "driver": "virtio-blk-pci", "drive": DISK, "serial": "disk", "bootindex": 1 }),
        ));
        for AttachedDisk { name, file } in &self.attachments {
            args.extend(blockdev(&json!({
                "node-name": name,
                "driver": "raw",
                "read-only": true,
                "file": { "driver": "file", "filename": text(file), "read-only": true, "aio": "threads" },
            })));
            args.extend(device(
                &json!({ "driver": "virtio-blk-pci", "drive": name, "serial": name }),
            ));
        }
        args
    }

    fn network_args(&self) -> Vec<OsString> {
        // Port 0 lets the kernel choose the port for SSH; the monitor tells which. Only loopback listens.
        let restrict = if self.isolated { "restrict=on," } else { "" };
        let netdev = format!(
            "user,id=net,{restrict}hostfwd=tcp:127.0.0.1:{}-:6443,hostfwd=tcp:127.0.0.1:0-:22",
            self.api_port
        );
        let mut args = words(&["-netdev", &netdev]);
        args.extend(device(
            &json!({ "driver": "virtio-net-pci", "netdev": "net", "mac": MAC, "romfile": "" }),
        ));
        args
    }

    fn port_args(&self) -> Vec<OsString> {
        let mut args = words(&["-display", "none"]);
        args.extend(file_chardev(CONSOLE, &self.console_log));
        args.extend(words(&["-serial", "chardev:console"]));
        args.extend(file_chardev(STAGES, &self.stages_log));
        args.extend(device(&json!({ "driver": "virtio-serial-pci" })));
        args.extend(device(
            &json!({ "driver": "virtserialport", "chardev": STAGES, "name": STAGE_PORT }),
        ));
        let mut exec = OsString::from(format!("pipe,id={EXEC_CHARDEV},path="));
        exec.push(doubled_commas(&self.exec));
        args.extend([OsString::from("-chardev"), exec]);
        args.extend(device(
            &json!({ "driver": "virtserialport", "chardev": EXEC_CHARDEV, "name": EXEC_PORT }),
        ));
        if self.is_unprovisioned {
            args.extend(words(&["-chardev", "null,id=identity"]));
            args.extend(device(
                &json!({ "driver": "virtserialport", "chardev": IDENTITY_CHARDEV, "name": IDENTITY_PORT }),
            ));
        }
        let mut monitor = OsString::from("socket,id=monitor,server=on,wait=off,path=");
        monitor.push(doubled_commas(&self.monitor));
        args.extend([OsString::from("-chardev"), monitor]);
        args.extend(words(&["-mon", "chardev=monitor,mode=control"]));
        args.extend(device(&json!({ "driver": "virtio-rng-pci" })));
        // Linux mixes its random numbers again when it sees another one, as it does after a resume.
        args.extend(device(&json!({ "driver": "vmgenid", "guid": "auto" })));
        args
    }

    fn folder_args(&self) -> Vec<OsString> {
        let mut args = Vec::new();
        for HostShare {
            tag,
            path,
            read_only,
        } in &self.shares
        {
            // Whoever makes a file in the guest, it is the user's who runs QEMU. Files of several file systems are told
            // apart.
            let mut folder = OsString::from(format!(
                "local,id={tag},security_model=none,multidevs=remap,readonly={},path=",
                if *read_only { "on" } else { "off" }
            ));
            folder.push(doubled_commas(path));
            args.extend([OsString::from("-fsdev"), folder]);
            args.extend(device(
                &json!({ "driver": FOLDER_DRIVER, "fsdev": tag, "mount_tag": tag }),
            ));
        }
        args
    }

    fn process_args(&self) -> Vec<OsString> {
        let mut args = words(&["-pidfile"]);
        args.push(self.pidfile.clone().into());
        if self.incoming {
            // -S: loaded is not yet running.
            args.extend(words(&[INCOMING, "defer", "-S"]));
        }
        args.extend(words(&[
            "-action",
            "panic=exit-failure",
            "-msg",
            "timestamp=on",
        ]));
        args.extend(words(&[
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        ]));
        args
    }
}

/// How QEMU is to use the overlay at `path`, as the node `name`.
pub fn overlay(name: &str, path: &Path) -> Value {
    // Discarded blocks of the guest become holes of the overlay. aio=threads works where io_uring is forbidden.
    json!({
        "node-name": name,
        "driver": "qcow2",
        "discard": "unmap",
        "file": { "driver": "file", "filename": text(path), "aio": "threads", "discard": "unmap" },
    })
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn blockdev(options: &Value) -> [OsString; 2] {
    [
        OsString::from("-blockdev"),
        OsString::from(options.to_string()),
    ]
}

fn device(options: &Value) -> [OsString; 2] {
    [
        OsString::from("-device"),
        OsString::from(options.to_string()),
    ]
}

fn file_chardev(id: &str, file: &Path) -> [OsString; 2] {
    let mut options = OsString::from(format!("file,id={id},append=on,path="));
    options.push(doubled_commas(file));
    [OsString::from("-chardev"), options]
}

/// JSON has no other texts than Unicode; `machine` refuses project and cache paths that are not.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn doubled_commas(path: &Path) -> OsString {
    OsStr::new(&text(path).replace(',', ",,")).to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> Launch {
        Launch {
            name: "k3s-shop-1a2b3c".parse().expect("sound"),
            uuid: Some("11111111-2222-4333-8444-555555555555".into()),
            serial: Some("0123456789abcdef".into()),
            accelerator: Accelerator::Kvm,
            cpu_model: None,
            version: Version { major: 7, minor: 2 },
            cpus: 2,
            memory: Size::gib(4),
            uefi: None,
            disk: "/p/.k3s-vm/disk.qcow2".into(),
            attachments: vec![
                AttachedDisk {
                    name: "seed",
                    file: "/p/.k3s-vm/seed.img".into(),
                },
                AttachedDisk {
                    name: "k3s",
                    file: "/c/k3s/v1/k3s".into(),
                },
            ],
            shares: Vec::new(),
            credentials: &[("systemd.extra-unit.x.service", "[Unit]\n")],
            api_port: 6443,
            isolated: false,
            host_access: HostAccess::default(),
            incoming: false,
            is_unprovisioned: false,
            monitor: "/run/user/1000/k3s-vm/abc/qmp.sock".into(),
            exec: "/run/user/1000/k3s-vm/abc/requests".into(),
            console_log: "/p/.k3s-vm/console.log".into(),
            stages_log: "/p/.k3s-vm/stages.log".into(),
            pidfile: "/p/.k3s-vm/qemu.pid".into(),
            reads: Vec::new(),
            writes: Vec::new(),
        }
    }

    /// One option a line, its value beside it.
    fn shown(launch: &Launch) -> String {
        let mut text = String::new();
        for argument in launch.arguments() {
            let argument = argument.into_string().expect("unicode");
            text += if argument.starts_with('-') { "\n" } else { " " };
            text += &argument;
        }
        text.trim_start().to_owned()
    }

    #[test]
    fn with_kvm_and_bios() {
        insta::assert_snapshot!(shown(&example()));
    }

    #[test]
    fn an_isolated_guest_is_reached_and_reaches_nothing() {
        let launch = Launch {
            isolated: true,
            ..example()
        };
        let line = shown(&launch);
        let line = line.lines().find(|line| line.starts_with("-netdev"));
        insta::assert_snapshot!(line.unwrap_or_default(), @"-netdev user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:6443-:6443,hostfwd=tcp:127.0.0.1:0-:22");
    }

    #[test]
    fn a_guest_that_is_nobody_yet() {
        let launch = Launch {
            uuid: None,
            serial: None,
            is_unprovisioned: true,
            ..example()
        };
        let shown = shown(&launch);
        assert!(!shown.contains("-uuid"), "{shown}");
        let lines = shown.lines().filter(|line| line.contains("identity"));
        insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r#"
        -chardev null,id=identity
        -device {"chardev":"identity","driver":"virtserialport","name":"org.k3s-vm.identity"}
        "#);
    }

    #[test]
    fn emulated_with_uefi_and_awkward_paths() {
        let odd = Path::new("/p/a, \"b\" ü");
        let launch = Launch {
            accelerator: Accelerator::Tcg,
            uefi: Some(Uefi {
                code: "/usr/share/OVMF/CODE.fd".into(),
                variables: odd.join("vars.fd"),
            }),
            disk: odd.join("disk.qcow2"),
            console_log: odd.join("console.log"),
            shares: vec![
                HostShare {
                    tag: "mount0".to_owned(),
                    path: odd.join("src"),
                    read_only: false,
                },
                HostShare {
                    tag: "mount1".to_owned(),
                    path: "/data".into(),
                    read_only: true,
                },
            ],
            ..example()
        };
        insta::assert_snapshot!(shown(&launch));
    }
}
