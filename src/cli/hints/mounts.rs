//! Hints about mounts.

use crate::{
    cli::hints::text,
    machine::{MachineError, guest_config::mounts::SHARE, memory::save::FOLDERS},
};

pub(crate) fn of(error: &MachineError) -> Vec<String> {
    let without = || "or remove the mounts: k3s-vm configure --unset mounts --restart".to_owned();
    match error {
        MachineError::File(error) if error.action == SHARE => {
            let without = "remove it from --mount or from .k3s-vm/config";
            if error.is_missing() {
                let path = text::word(&error.path.display());
                vec![
                    format!("create it: mkdir -p {path}"),
                    format!("or {without}"),
                ]
            } else {
                vec![without.to_owned()]
            }
        }
        MachineError::ExposedMount { mount, .. } => vec![
            format!(
                "mount it read-only: --mount {}:{}:ro",
                at_home(&mount.host),
                text::word(&mount.guest)
            ),
            "or mount only the directories in it that the guest needs, like ./src:/src".to_owned(),
        ],
        MachineError::NotMounted {
            mount,
            kernel: Some(_),
        } => vec![
            "the VM runs; use an image whose kernel has 9p: debian-13 or one of Ubuntu's"
                .to_owned(),
            format!(
                "or copy its content: k3s-vm cp {}/. :{}",
                at_home(&mount.host),
                text::word(&mount.guest)
            ),
            without(),
        ],
        MachineError::NotMounted { mount, .. } => vec![
            format!(
                "the VM runs; see why: k3s-vm ssh systemctl status {}",
                text::word(&mount.guest)
            ),
            without(),
        ],
        _ => Vec::new(),
    }
}

/// The hints about a guest whose memory cannot be saved.
pub(crate) fn of_memory(reason: &str, instead: &str) -> Vec<String> {
    let without = "or remove the mounts: k3s-vm configure --unset mounts --restart";
    let hints = [Some(instead), (reason == FOLDERS).then_some(without)];
    hints.into_iter().flatten().map(str::to_owned).collect()
}

/// A quoted word whose tilde the shell still expands.
fn at_home(path: &str) -> String {
    match path.strip_prefix("~/") {
        Some(rest) => format!("~/{}", text::word(&rest)),
        None => text::word(&path),
    }
}
