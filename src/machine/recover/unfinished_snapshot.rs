//! A snapshot whose command was killed: its directory is removed, and its guest resumed.

use std::time::Duration;

use crate::{
    machine::{
        control::vcpu,
        model::staging_dir::{self},
    },
    project::Project,
    qemu::Process,
};

/// In the snapshots' directory: one that is being made, and one that is being removed.
pub(crate) const NEW: &str = ".new";

pub(crate) const GONE: &str = ".gone";

/// How long a guest whose snapshot was interrupted may take to continue, before a command that may have to end it does so.
const RESUME_TIMEOUT: Duration = Duration::from_secs(10);

/// Removes what interrupted commands have left, and continues the guest of an unfinished snapshot. A failure is
/// only logged.
pub(crate) async fn clear(project: &Project) {
    let folder = project.snapshots();
    let unfinished = folder.join(NEW);
    if unfinished.exists() && Process::holder(&project.pidfile()).is_ok_and(|it| it.is_some()) {
        match tokio::time::timeout(RESUME_TIMEOUT, vcpu::unpause(project)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the guest may be paused"),
            Err(_) => tracing::debug!("QEMU does not answer; the guest may be paused"),
        }
    }
    for leftover in [unfinished, folder.join(GONE)] {
        if let Err(error) = staging_dir::remove(&leftover) {
            tracing::debug!(%error, "an unfinished snapshot stays");
        }
    }
}
