//! The monitor of a project's QEMU, and of no other process that listens in its place.

use tokio::net::UnixStream;

use crate::{
    project::Project,
    qemu::{Monitor, MonitorError, Process},
};

/// Connects to the monitor of the QEMU that holds the lock on the project's pidfile.
///
/// # Errors
///
/// Those of [`Monitor::connect_to`].
pub async fn monitor_of(project: &Project) -> Result<Monitor<UnixStream>, MonitorError> {
    let holder = Process::holder(&project.pidfile()).ok().flatten();
    Monitor::connect_to(&project.monitor_socket(), holder.map(|it| it.pid())).await
}
