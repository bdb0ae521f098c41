//! Hints about an error, by its variant. The first group that knows the error answers.

use crate::{
    guest::{CopyError, SshError},
    machine::MachineError,
    project::{LockError, RecordError},
    qemu::MonitorError,
};

use super::{
    boot, cache_archive, downloads, files, host, images, kubeconfig, mounts, ports, snapshots,
    text, upgrade,
};

/// The next steps after an error, each with one command to copy.
pub(crate) fn of(error: &MachineError) -> Vec<String> {
    if let Some(error) = files::file_of(error).filter(|error| error.is_out_of_space()) {
        return vec![text::make_room(&error.path)];
    }
    let groups: [fn(&MachineError) -> Vec<String>; 9] = [
        host::of,
        of_state,
        of_identity,
        boot::of,
        kubeconfig::of,
        mounts::of,
        ports::of,
        snapshots::of,
        files::of,
    ];
    let known = match error {
        MachineError::Images(error) => images::of_images(error),
        MachineError::Upgrade(error) => upgrade::of_upgrade(error),
        MachineError::CacheArchive(error) => cache_archive::of_cache_archive(error),
        MachineError::Image(error) => downloads::of_image(error),
        _ => Vec::new(),
    };
    groups
        .into_iter()
        .fold(known, |hints, of| match hints.is_empty() {
            true => of(error),
            false => hints,
        })
}

/// Hints about the state of the VM.
fn of_state(error: &MachineError) -> Vec<String> {
    let hint = match error {
        MachineError::CacheInUse(_) => "wait until it ends, then run the same command again",
        MachineError::Absent(_) => "create it: k3s-vm setup",
        MachineError::Stopped(_) => "start it: k3s-vm start",
        MachineError::Suspended(_) => "resume it: k3s-vm start",
        MachineError::Paused => "resume it: k3s-vm resume",
        MachineError::Unfinished(_) => {
            "complete it: k3s-vm setup; or power off: k3s-vm stop --power-off"
        }
        MachineError::Running => "stop it first: k3s-vm stop && k3s-vm start --restore-datastore",
        MachineError::Monitor(MonitorError::Foreign { pid, .. }) => {
            return vec![format!("see which program it is: ps -fp {pid}")];
        }
        MachineError::Monitor(_) => "end it by force: k3s-vm stop --force && k3s-vm start",
        MachineError::Unrecorded { .. } => "recreate the VM: k3s-vm reset && k3s-vm setup",
        MachineError::Lock(LockError::Busy { .. }) => "wait for that command, or end it",
        MachineError::Suspend(reason) => {
            return mounts::of_memory(
                reason,
                "it keeps running; to power off: k3s-vm stop --power-off",
            );
        }
        MachineError::MemorySpace { path, .. } => {
            return vec![
                text::make_room(path),
                "or power off, which needs no space: k3s-vm stop --power-off".to_owned(),
            ];
        }
        _ => return Vec::new(),
    };
    vec![hint.to_owned()]
}

/// Hints about the VM's record, keys and disks.
fn of_identity(error: &MachineError) -> Vec<String> {
    let hint = match error {
        MachineError::Contradiction { what, asked, .. } => return of_contradiction(what, asked),
        MachineError::Gone { .. } | MachineError::Damaged { .. } => {
            "restore it, or recreate the VM: k3s-vm reset && k3s-vm setup"
        }
        MachineError::Record(RecordError::Untrusted(_)) => {
            return vec![
                "if it is yours, from another host or user: k3s-vm trust".to_owned(),
                "or delete it: k3s-vm reset".to_owned(),
            ];
        }
        MachineError::Record(RecordError::Unreadable { .. }) => {
            "recreate the VM: k3s-vm reset && k3s-vm setup"
        }
        MachineError::Key { .. } => "recreate the VM: k3s-vm reset && k3s-vm setup",
        MachineError::Ssh(SshError::WrongHostKey { .. }) => {
            return vec![
                "restore the key that changed: .k3s-vm/host_ed25519 or the guest's".to_owned(),
                "or recreate the VM, which deletes everything in it: k3s-vm reset && k3s-vm setup"
                    .to_owned(),
            ];
        }
        MachineError::Ssh(_) | MachineError::Copy(CopyError::Ssh(_)) => {
            "see the guest's console: k3s-vm logs console"
        }
        MachineError::Copy(CopyError::GuestFull(_)) => {
            "see what takes it: k3s-vm ssh 'df -h; du -xh / | sort -h | tail'"
        }
        _ => return Vec::new(),
    };
    vec![hint.to_owned()]
}

fn of_contradiction(what: &str, asked: &str) -> Vec<String> {
    let upgrade =
        (what == "k3s").then(|| format!("to upgrade: k3s-vm upgrade --k3s-version {asked}"));
    let others = [
        "remove the flag (or the line in .k3s-vm/config) to keep it".to_owned(),
        "or recreate the VM, which deletes everything in it: k3s-vm reset && k3s-vm setup ..."
            .to_owned(),
    ];
    upgrade.into_iter().chain(others).collect()
}
