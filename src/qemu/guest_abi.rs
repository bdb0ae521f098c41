//! QEMU's arguments as far as the guest sees them. A guest whose memory was saved can continue only in the same VM. The
//! host's paths and forwarded ports do not matter to it.

use serde_json::Value;

use super::command_line::FOLDER_DRIVER;

/// The first of our own arguments: before it may be those of a wrapper.
const FIRST: &str = "-nodefaults";

/// The options that the guest sees, in their order, each with its value.
pub fn guest_abi<S: AsRef<str>>(arguments: impl IntoIterator<Item = S>) -> Vec<String> {
    let mut arguments = arguments
        .into_iter()
        .skip_while(|argument| argument.as_ref() != FIRST);
    let mut seen = Vec::new();
    while let Some(option) = arguments.next() {
        let option = option.as_ref();
        let shown: fn(&str) -> String = match option {
            "-enable-kvm" => {
                seen.push(option.to_owned());
                continue;
            }
            "-machine" | "-accel" | "-cpu" | "-smp" | "-m" | "-uuid" | "-device" | "-serial" => {
                str::to_owned
            }
            "-drive" => |value| value.split(",file=").next().unwrap_or_default().to_owned(),
            "-blockdev" => node_name,
            _ => continue,
        };
        let value = arguments.next();
        let value = value.as_ref().map_or("", AsRef::as_ref);
        seen.push(format!("{option} {}", shown(value)));
    }
    seen
}

fn node_name(options: &str) -> String {
    let options: Value = serde_json::from_str(options).unwrap_or_default();
    let name = options.get("node-name").and_then(Value::as_str);
    name.unwrap_or_default().to_owned()
}

/// Returns `true` when the disk `name` is among them.
pub fn has_disk(visible: &[String], name: &str) -> bool {
    visible
        .iter()
        .any(|it| it.strip_prefix("-blockdev ") == Some(name))
}

/// Returns `true` when the virtio-serial port `name` is among them.
pub fn has_port(visible: &[String], name: &str) -> bool {
    let end = format!("\"name\":\"{name}\"}}");
    visible
        .iter()
        .any(|it| it.starts_with("-device ") && it.ends_with(&end))
}

/// Returns `true` when a directory of the host is among them.
pub fn has_folder(visible: &[String]) -> bool {
    let driver = format!("\"driver\":\"{FOLDER_DRIVER}\"");
    visible
        .iter()
        .any(|it| it.starts_with("-device ") && it.contains(&driver))
}

/// The first difference, in words; none when both are the same.
pub fn difference(then: &[String], now: &[String]) -> Option<String> {
    let only = |these: &[String], those: &[String]| {
        let only = these.iter().find(|it| !those.contains(it));
        only.map_or_else(|| "nothing".to_owned(), Clone::clone)
    };
    (then != now).then(|| format!("{} then, {} now", only(then, now), only(now, then)))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::base::HostAccess;
    use crate::qemu::{
        Launch,
        command_line::{AttachedDisk, HostShare, IDENTITY_PORT, STAGE_PORT, tests::example},
        firmware::Uefi,
    };

    fn of(launch: &Launch) -> Vec<String> {
        guest_abi(
            launch
                .arguments()
                .into_iter()
                .filter_map(|it: OsString| it.into_string().ok()),
        )
    }

    #[test]
    fn host_paths_are_not_part_of_the_abi() {
        let moved = Launch {
            disk: "/q/.k3s-vm/disk.qcow2".into(),
            attachments: example()
                .attachments
                .into_iter()
                .map(|it| AttachedDisk {
                    file: "/elsewhere".into(),
                    ..it
                })
                .collect(),
            api_port: 7443,
            isolated: true,
            host_access: HostAccess::default(),
            incoming: true,
            monitor: "/m".into(),
            exec: "/r".into(),
            console_log: "/c".into(),
            stages_log: "/s".into(),
            pidfile: "/p".into(),
            ..example()
        };
        assert_eq!(of(&moved), of(&example()));
        let seen = of(&example());
        assert!(has_disk(&seen, "disk") && has_disk(&seen, "k3s"));
        assert!(!has_disk(&seen, "airgap"));
        assert!(has_port(&seen, STAGE_PORT) && !has_port(&seen, IDENTITY_PORT));
        let wrapped = ["-L", "/usr/share", "-m", "1M"].map(String::from);
        let arguments = example().arguments().into_iter();
        let arguments = arguments.filter_map(|it| it.into_string().ok());
        assert_eq!(guest_abi(wrapped.into_iter().chain(arguments)), seen);
    }

    #[test]
    fn devices_are_part_of_the_abi() {
        let seen = of(&example());
        let then = |launch: Launch| difference(&seen, &of(&launch)).unwrap_or_default();
        assert_eq!(then(example()), "");
        let more = Launch {
            cpus: 4,
            ..example()
        };
        assert_eq!(then(more), "-smp 2 then, -smp 4 now");
        let by_uefi = Launch {
            uefi: Some(Uefi {
                code: "/code".into(),
                variables: "/variables".into(),
            }),
            ..example()
        };
        assert_eq!(
            then(by_uefi),
            "nothing then, -drive if=pflash,unit=0,format=raw,readonly=on now"
        );
        let shares = vec![HostShare {
            tag: "mount0".to_owned(),
            path: "/src".into(),
            read_only: false,
        }];
        let shares = Launch {
            shares,
            ..example()
        };
        assert!(has_folder(&of(&shares)) && !has_folder(&seen));
        assert!(then(shares).contains("nothing then, -device"));
        let mut fewer = example();
        fewer.attachments.pop();
        assert_eq!(then(fewer), "-blockdev k3s then, nothing now");
    }
}
