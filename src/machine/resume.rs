//! A machine that runs and does not work, until somebody has it go on: QEMU was paused, or an interrupted stop has taken
//! k3s down.

use std::time::Duration;

use qapi::qmp;

use super::{MachineError, state};
use crate::{
    project::Project,
    qemu::{Monitor, MonitorError},
};

/// A guest that is up logs in within seconds, and one that is not yet needs no word.
const LOGIN: Duration = Duration::from_secs(10);

/// Lets a paused guest go on.
///
/// # Errors
///
/// When QEMU does not answer.
pub async fn unpause(project: &Project) -> Result<(), MonitorError> {
    let mut monitor = Monitor::connect(&project.monitor_socket()).await?;
    if monitor.execute(qmp::query_status {}).await?.status == qmp::RunState::paused {
        tracing::info!("the machine was paused, and goes on");
        monitor.execute(qmp::cont {}).await?;
    }
    Ok(())
}

/// Has the guest's systemd start k3s, where it does not run and is not about to. Whether it has started before, which no
/// report need tell any more: a flood may have washed it away.
pub async fn start_k3s(project: &Project) -> bool {
    let start = async {
        let ssh = state::connect(project).await?;
        let both =
            "systemctl start --no-block k3s.service; systemctl is-active k3s.service || true";
        let said = ssh.output(both).await?;
        ssh.close().await;
        Ok::<_, MachineError>(said.trim_ascii() == b"active")
    };
    match tokio::time::timeout(LOGIN, start).await {
        Ok(Ok(active)) => return active,
        Ok(Err(error)) => tracing::debug!(%error, "the guest was not told to start k3s"),
        Err(_) => tracing::debug!("the guest does not answer yet"),
    }
    false
}
