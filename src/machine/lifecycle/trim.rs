//! `trim`: reclaims disk space that the guest has freed.

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
    /// The space after it.
    pub after: Size,
}

/// The guest's command that reports unused blocks to QEMU. Deleted files are free only after the file system has
/// flushed.
pub(crate) const TRIM: &str = "sync --file-system /; fstrim /";

/// Reclaims the unused blocks of the guest's disk.
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
