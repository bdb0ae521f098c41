//! `trim`: returns the disk space that the guest has freed to the host.

use crate::{
    base::{Size, files},
    guest::Ssh,
    machine::{Machine, MachineError, control::guest, recover::interrupted},
};

/// What a trim came to.
#[derive(Debug, Clone, Copy)]
pub struct Trimmed {
    /// What the VM's disk took on the host's before.
    pub before: Size,
    /// And what it takes now.
    pub after: Size,
}

/// What has the guest tell QEMU which blocks it does not use. What was removed just now is free only when the file system
/// has written that down.
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
