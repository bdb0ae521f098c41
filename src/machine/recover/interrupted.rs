//! The state of a VM after commands that were killed: what they left is finished or cleared first.

use std::time::Duration;

use crate::{
    machine::{
        Machine, MachineError, State,
        control::terminate,
        recover::{replacement, running::RunningSettings, unfinished_snapshot},
    },
    project::Suspended,
};

/// How long a new QEMU may take to open its monitor; it takes a tenth of a second when nothing is wrong.
const OPENING: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(50);

/// The VM's state, without a QEMU that an unfinished setup left behind and that does not answer. One that a
/// command has started and not lived to see gets the time to open its monitor.
///
/// # Errors
///
/// Those of [`Machine::state`], and when that QEMU cannot be ended.
pub(crate) async fn recover(machine: &Machine) -> Result<State, MachineError> {
    if let State::Running(_, process) = recover_interrupted(machine).await? {
        while process.uptime().is_some_and(|uptime| uptime < OPENING)
            && process.is_alive()
            && RunningSettings::query(machine).await.is_err()
        {
            tokio::time::sleep(POLL).await;
        }
    }
    match machine.state()? {
        State::Running(record, process)
            if !record.provisioned && RunningSettings::query(machine).await.is_err() =>
        {
            tracing::info!(
                "ending QEMU (process {}), which does not answer: an interrupted setup left it",
                process.pid()
            );
            terminate::end(&machine.project, &process).await?;
            Ok(State::Stopped(record))
        }
        state => Ok(state),
    }
}

/// The VM's state, without what a command about a snapshot has left that died, and without a QEMU of a suspend or
/// resume that died when the memory was already, or still, the saved one: that guest has not run since.
///
/// # Errors
///
/// Those of [`Machine::state`], and when that QEMU cannot be ended.
pub(crate) async fn recover_interrupted(machine: &Machine) -> Result<State, MachineError> {
    replacement::finish(&machine.project)?;
    unfinished_snapshot::clear(&machine.project).await;
    match machine.state()? {
        State::Running(record, process) if Suspended::exists(&machine.project) => {
            tracing::info!(
                "ending a QEMU (process {}) whose guest is suspended",
                process.pid()
            );
            process.kill().await?;
            terminate::clear(&machine.project)?;
            Ok(State::Stopped(record))
        }
        state => Ok(state),
    }
}
