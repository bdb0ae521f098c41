//! What to do about an error, by its variant. The first group that knows the error answers.

use crate::{
    guest::{CopyError, SshError},
    machine::MachineError,
    project::{LockError, RecordError},
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
        MachineError::Carried(error) => cache_archive::of_carried(error),
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

/// Errors about what the VM is doing.
fn of_state(error: &MachineError) -> Vec<String> {
    let hint = match error {
        MachineError::CacheInUse(_) => "wait until it has ended, and run the same command again",
        MachineError::Absent(_) => "make one: k3s-vm setup",
        MachineError::Stopped(_) => "start it: k3s-vm start",
        MachineError::Suspended(_) => "have it go on: k3s-vm start",
        MachineError::Paused => "have it go on: k3s-vm resume",
        MachineError::Unfinished(_) => {
            "finish it: k3s-vm setup; or power it off: k3s-vm stop --power-off"
        }
        MachineError::Running => "stop it first: k3s-vm stop && k3s-vm start --restore-datastore",
        MachineError::Monitor(_) => "end it by force: k3s-vm stop --force && k3s-vm start",
        MachineError::Unrecorded { .. } => "end it, and begin anew: k3s-vm reset && k3s-vm setup",
        MachineError::Lock(LockError::Busy { .. }) => "wait for that command, or end it",
        MachineError::Suspend(reason) => {
            return mounts::of_memory(
                reason,
                "it goes on; power it off instead: k3s-vm stop --power-off",
            );
        }
        MachineError::MemorySpace { path, .. } => {
            return vec![
                text::make_room(path),
                "or power it off, which takes no room; until then it goes on: k3s-vm stop --power-off"
                    .to_owned(),
            ];
        }
        _ => return Vec::new(),
    };
    vec![hint.to_owned()]
}

/// Errors about what the VM is: its record, keys and disks.
fn of_identity(error: &MachineError) -> Vec<String> {
    let hint = match error {
        MachineError::Contradiction { what, asked, .. } => return of_contradiction(what, asked),
        MachineError::Gone { .. } | MachineError::Damaged { .. } => {
            "put it back as it was, or make the machine anew: k3s-vm reset && k3s-vm setup"
        }
        MachineError::Record(RecordError::Unreadable { .. }) => {
            "the machine cannot be used without it; make it anew: k3s-vm reset && k3s-vm setup"
        }
        MachineError::Key { .. } => {
            "the guest knows no other key; make the machine anew: k3s-vm reset && k3s-vm setup"
        }
        MachineError::Ssh(SshError::WrongHostKey { .. }) => {
            return vec![
                "the guest's key was made with the machine, as .k3s-vm/host_ed25519: put back the one of the two that was changed".to_owned(),
                "or make the machine anew, which deletes all that is in it: k3s-vm reset && k3s-vm setup".to_owned(),
            ];
        }
        MachineError::Ssh(_) | MachineError::Copy(CopyError::Ssh(_)) => {
            "see whether the guest is well: k3s-vm logs console"
        }
        MachineError::Copy(CopyError::GuestFull(_)) => {
            "see what takes it: k3s-vm ssh 'df -h; du -xh / | sort -h | tail'"
        }
        _ => return Vec::new(),
    };
    vec![hint.to_owned()]
}

fn of_contradiction(what: &str, asked: &str) -> Vec<String> {
    let upgrade = (what == "k3s").then(|| {
        format!("a newer one takes the place of the one that is there: k3s-vm upgrade --k3s-version {asked}")
    });
    let others = [
        "a machine keeps what it was made with; leave the flag (or the line in .k3s-vm/config) away to go on with it".to_owned(),
        "or make it anew, which deletes all that is in it: k3s-vm reset && k3s-vm setup ...".to_owned(),
    ];
    upgrade.into_iter().chain(others).collect()
}
