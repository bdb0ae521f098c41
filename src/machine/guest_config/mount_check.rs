//! Whether the guest has mounted the host directories that it was given.

use crate::{
    machine::{MachineError, Spec, control::guest, guest_config::config_archive},
    project::{Project, Record},
};

/// Says which kernel it is if that has no 9p.
const KERNEL: &str = "modprobe --dry-run --quiet --all 9p 9pnet_virtio || uname --kernel-release";

/// Requires that the guest has mounted them, now that k3s has started, unless that waits for its next start.
///
/// # Errors
///
/// [`MachineError::NotMounted`] when it has not.
pub(crate) async fn require(
    project: &Project,
    spec: &Spec,
    record: &Record,
) -> Result<(), MachineError> {
    if spec.mounts.is_empty() || config_archive::config_changed(project, spec, record)? {
        return Ok(());
    }
    let looks = spec.mounts.iter().enumerate().map(|(index, mount)| {
        let unit = mount.unit();
        format!("systemctl is-active --quiet '{unit}.mount' || echo {index}; ")
    });
    let said = guest::exec(project, &(looks.collect::<String>() + KERNEL)).await?;
    let said = String::from_utf8_lossy(&said);
    let missing = said.lines().find_map(|line| line.parse::<usize>().ok());
    let Some(mount) = missing.and_then(|index| spec.mounts.get(index)) else {
        return Ok(());
    };
    let kernel = said.lines().find(|line| line.parse::<usize>().is_err());
    Err(MachineError::NotMounted {
        mount: mount.clone(),
        kernel: kernel.map(str::to_owned),
    })
}
