//! Hints about a guest that does not boot.

use std::path::Path;

use crate::{
    guest::Sign,
    machine::{MachineError, error::machine::BootFault, lifecycle::boot_checks::NO_STAGE},
    qemu::{ProcessError, process_error::EndCause},
};

/// The hints about a guest whose console shows why it does not become a node.
pub(crate) fn of_console(sign: Sign, log: Option<&Path>) -> Vec<String> {
    const ANOTHER: &str = "k3s-vm reset && k3s-vm setup --image debian-13";
    let (what, command) = match sign {
        Sign::NotBootable => (
            "try UEFI, or use another image",
            "k3s-vm reset && k3s-vm setup --firmware uefi --image ...",
        ),
        Sign::NoSystemd(_) => ("use a cloud image with systemd", ANOTHER),
        Sign::LoginPrompt => ("use a cloud image, which has cloud-init", ANOTHER),
        Sign::InitramfsShell => (
            "use an image whose root file system is on its only disk",
            ANOTHER,
        ),
        Sign::EmergencyMode => (
            "remove disks that the VM does not have from the image's /etc/fstab, or use another image",
            ANOTHER,
        ),
    };
    let whole = log.map(|path| format!("the whole console: {}", path.display()));
    whole
        .into_iter()
        .chain([format!(
            "{what} (this deletes all that is in the VM): {command}"
        )])
        .collect()
}

pub(crate) fn of_boot(log: Option<&Path>, stage: &str) -> Vec<String> {
    let whole = match log {
        Some(path) => format!("the whole log: {}", path.display()),
        None => {
            "if a k3s setting is the cause, remove it: k3s-vm configure --unset k3s.args".to_owned()
        }
    };
    let look = match stage {
        NO_STAGE => "the guest reported nothing: is it an x86_64 image with cloud-init?",
        _ => "to look inside while it tries, from another terminal: k3s-vm ssh",
    };
    let again = "run the same command again to try once more; with --timeout 20m on a slow host";
    vec![whole, look.to_owned(), again.to_owned()]
}

/// Hints about a QEMU or a guest that does not start.
pub(crate) fn of(error: &MachineError) -> Vec<String> {
    let lines = |hints: &[&str]| hints.iter().map(|&hint| hint.to_owned()).collect();
    match error {
        MachineError::Boot {
            fault: BootFault::Console(sign),
            log_path,
            ..
        } => of_console(*sign, log_path.as_deref()),
        MachineError::Boot {
            fault: BootFault::CrashLoop,
            ..
        } => lines(&[
            "see k3s's log: k3s-vm logs k3s",
            "if a k3s setting is the cause, remove it: k3s-vm configure --unset k3s.args",
        ]),
        MachineError::Boot {
            log_path, stage, ..
        } => of_boot(log_path.as_deref(), stage),
        MachineError::Datastore {
            has_copy: false, ..
        } => lines(&[
            "recreate the VM, which deletes everything in it: k3s-vm reset && k3s-vm setup",
        ]),
        MachineError::Datastore { .. } => lines(&[
            "restore the copy of the last clean shutdown: k3s-vm stop && k3s-vm start --restore-datastore",
            "or recreate the VM, which deletes everything in it: k3s-vm reset && k3s-vm setup",
        ]),
        MachineError::Deadline { .. } => lines(&[
            "allow more time: --timeout 20m",
            "see k3s's log: k3s-vm logs k3s (while the VM runs)",
        ]),
        MachineError::QemuEnded { .. } => {
            lines(&["see QEMU's log: k3s-vm logs qemu; the guest's: k3s-vm logs console"])
        }
        MachineError::Process(ProcessError::Wrapper { .. }) => {
            lines(&["end the script with: exec /usr/bin/qemu-system-x86_64 \"$@\""])
        }
        MachineError::Process(ProcessError::Ended { cause, .. }) => of_end(*cause),
        _ => Vec::new(),
    }
}

/// Hints about a QEMU that ended before its monitor answered.
fn of_end(cause: EndCause) -> Vec<String> {
    let first = match cause {
        EndCause::NoSpace => {
            Some("free space on the file system of the project, then run the same command again")
        }
        EndCause::NoVirtfs => {
            Some("use a QEMU with VirtFS, or remove the mounts from .k3s-vm/config")
        }
        EndCause::LacksFeature => Some("see what this QEMU lacks: k3s-vm doctor"),
        EndCause::Other => None,
    };
    let hints = first
        .into_iter()
        .chain(["the whole message: k3s-vm logs qemu"]);
    hints.map(str::to_owned).collect()
}
