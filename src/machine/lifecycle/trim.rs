//! `trim`: returns the disk space that the guest has freed to the host.

use crate::{
    base::{Size, files},
    guest::Ssh,
    machine::{Machine, MachineError, control::guest, recover::interrupted},
};

/// The result of a trim.
#[derive(Debug, Clone, Copy)]
pub struct Trimmed {
    /// The space of the VM's disk on the host before.
    pub before: Size,
    /// And what it takes now.
    pub after: Size,
}

/// The command with which the guest tells QEMU which blocks it does not use. Deleted files are free only when the file
/// system has written that down.
pub(crate) const TRIM: &str = "sync --file-system /; fstrim /";

/// Gives back what the guest does not use of its disk.
///
/// # Errors
///
/// When the VM does not run, is paused, or the guest does not do it.
pub async fn trim(machine: &Machine) -> Result<Trimmed, MachineError> {
    let project = &machine.project;
    interrupted::recover_interrupted(machine)
        .await?
        .running(project)?;
    let ssh: Ssh = guest::connect(project).await?;
    let before = files::allocated(&project.disk());
    tracing::info!("trimming the guest's disk");
    ssh.output(TRIM).await?;
    ssh.close().await;
    Ok(Trimmed {
        before,
        after: files::allocated(&project.disk()),
    })
}
