//! The QEMU command line: values in, an argument vector out, without side effects.
//!
//! Options with a JSON form are given as JSON, so that no path needs escaping. Others double their commas. All paths
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
/// The virtio-serial port on which an unprovisioned guest receives its identity.
pub const IDENTITY_PORT: &str = "org.k3s-vm.identity";
/// QEMU's name of the backend of that port.
pub const IDENTITY_CHARDEV: &str = "identity";
/// The virtio-serial port on which the guest receives commands.
const EXEC_PORT: &str = "org.k3s-vm.exec";
/// QEMU's name of the backend of that port.
pub const EXEC_CHARDEV: &str = "exec";
/// QEMU's name of the VM's disk.
pub const DISK: &str = "disk";
/// The network card's address, the same in every VM: each has its own user network, and a guest keeps its addresses and
/// its network configuration when it is resumed as another VM.
const MAC: &str = "52:54:00:12:34:56";
/// QEMU's name of the backend of the serial console.
pub const CONSOLE: &str = "console";
/// QEMU's name of the backend of the stage reports.
pub const STAGES: &str = "stages";

/// QEMU's name of the device of a mount.
pub const FOLDER_DRIVER: &str = "virtio-9p-pci";

/// The option of a QEMU that resumes a guest instead of booting it.
pub const INCOMING: &str = "-incoming";

/// The configuration of a QEMU process.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The name in `ps` and in the guest.
    pub name: Name,
    /// The SMBIOS UUID; `None` for an unprovisioned guest.
    pub uuid: Option<String>,
    /// The SMBIOS serial number, by which the guest sees whether its configuration is current.
    pub serial: Option<String>,
    /// The accelerator.
    pub accelerator: Accelerator,
    /// The CPU model, if one was chosen.
    pub cpu_model: Option<String>,
    /// The version of the QEMU that runs.
    pub version: Version,
    /// Virtual CPUs.
    pub cpus: u8,
    /// The guest's memory.
    pub memory: Size,
    /// UEFI firmware; SeaBIOS without it.
    pub uefi: Option<Uefi>,
    /// The overlay that the guest boots from.
    pub disk: PathBuf,
    /// Read-only raw disks; the guest finds each as `/dev/disk/by-id/virtio-<name>`.
    pub attachments: Vec<AttachedDisk>,
    /// Directories that the guest may mount.
    pub shares: Vec<HostShare>,
    /// Credentials for the guest's systemd (256 and later), passed by the firmware: names and contents of
    /// systemd.system-credentials(7).
    pub credentials: &'static [(&'static str, &'static str)],
    /// The host port on 127.0.0.1 that forwards to the guest's 6443.
    pub api_port: u16,
    /// The guest has no network and cannot reach the host's own services, which user networking shows at 10.0.2.2.
    /// Forwarded ports work.
    pub isolated: bool,
    /// The ports of the host's loopback that the guest may reach.
    pub host_access: HostAccess,
    /// The guest is resumed from saved memory.
    pub incoming: bool,
    /// The guest requests its identity.
    pub is_unprovisioned: bool,
    /// The monitor's socket.
    pub monitor: PathBuf,
    /// The exec port: the FIFOs with this path and `.in` or `.out`.
    pub exec: PathBuf,
    /// The log of the serial console.
    pub console_log: PathBuf,
    /// The log of the guest's stage reports.
    pub stages_log: PathBuf,
    /// The pidfile that QEMU locks.
    pub pidfile: PathBuf,
    /// Other files that it reads: backing files, and memory that it loads.
    pub reads: Vec<PathBuf>,
    /// Other files that it may be told to write.
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
    /// The name for the guest's mount: at most 31 bytes.
    pub tag: String,
    /// The directory.
    pub path: PathBuf,
    /// The guest can only read it.
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
        // The VM needs no SATA and SMBus, and no port of VMware. A core dump of QEMU has no memory of the guest.
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
        // Port 0 lets the kernel choose the port for SSH, which the monitor reports. Only loopback listens.
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
        // Linux reseeds its random numbers when it sees another one, as after a resume.
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
            // Files that the guest creates belong to the user who runs QEMU. Files of several file systems have
            // distinct ids.
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
            // -S: the guest stays paused after loading.
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

/// The options of the overlay at `path`, as the node `name`.
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

/// JSON has only Unicode; `machine` refuses other project and cache paths.
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
    fn isolation_keeps_forwarded_ports() {
        let launch = Launch {
            isolated: true,
            ..example()
        };
        let line = shown(&launch);
        let line = line.lines().find(|line| line.starts_with("-netdev"));
        insta::assert_snapshot!(line.unwrap_or_default(), @"-netdev user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:6443-:6443,hostfwd=tcp:127.0.0.1:0-:22");
    }

    #[test]
    fn an_unprovisioned_guest() {
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
