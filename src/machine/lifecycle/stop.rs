//! `stop`: stops k3s, sends an ACPI shutdown, and ends QEMU after the limit; or suspends the VM.

use std::time::Duration;

use qapi::qmp;

use crate::{
    machine::{
        Machine, MachineError, State,
        control::{guest, guest_logs, terminate, vcpu},
        lifecycle::trim::TRIM,
        memory::suspend,
        recover::interrupted,
    },
    project::{Project, Record, Suspended, user},
    qemu::{MonitorError, Process, guest_abi, monitor_of},
};

/// The limit of a clean shutdown by default: systemd gives a unit 90 s.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(120);

/// The limit of the trim during a stop, in seconds. An emulated guest that has deleted 1 GiB takes less than one.
const TRIMMING: u8 = 20;

/// The result of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopOutcome {
    /// The VM was stopped already.
    AlreadyStopped,
    /// The guest shut down.
    CleanShutdown,
    /// QEMU was ended, by request or because the guest did not shut down in time.
    Forced,
    /// The VM is suspended.
    Suspended,
    /// The VM was suspended already.
    AlreadySuspended,
    /// The VM was suspended, and its memory is discarded.
    MemoryDiscarded,
}

/// The way to stop a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Suspends if the config says so and it is possible, else shuts down.
    Usual,
    /// Shuts down.
    PowerOff,
    /// Ends QEMU at once.
    Force,
    /// Suspends.
    Suspend,
}

/// Stops the VM. A limit `within` means a shutdown, and QEMU is ended after it.
///
/// # Errors
///
/// [`MachineError::Absent`] when there is no VM; else when QEMU cannot be ended, or the VM not be suspended.
pub async fn stop(
    machine: &Machine,
    way: StopMode,
    within: Option<Duration>,
) -> Result<StopOutcome, MachineError> {
    let project = &machine.project;
    let (record, process) = match interrupted::recover_interrupted(machine).await? {
        State::Absent => return Err(MachineError::absent(project)),
        State::Stopped(record) => {
            terminate::clear(project)?;
            return already(project, &record, way);
        }
        State::Running(record, process) => (record, process),
    };
    let suspends = match way {
        StopMode::Suspend => true,
        StopMode::Usual if record.provisioned && within.is_none() => {
            user::chosen(project)?.suspend == Some(true) && !shares_folders(&process)
        }
        StopMode::Usual | StopMode::PowerOff | StopMode::Force => false,
    };
    if suspends {
        suspend::suspend(machine, &record, &process).await?;
        terminate::end(project, &process).await?;
        return Ok(StopOutcome::Suspended);
    }
    let within = within.unwrap_or(SHUTDOWN_TIMEOUT);
    let orderly = way != StopMode::Force && shut_down(project, &process, within).await;
    terminate::end(project, &process).await?;
    Ok(if orderly {
        StopOutcome::CleanShutdown
    } else {
        StopOutcome::Forced
    })
}

/// A VM with mounts cannot be suspended. The config asks for it, and the command does not.
fn shares_folders(process: &Process) -> bool {
    let shares = guest_abi::has_folder(&guest_abi::guest_abi(process.arguments()));
    if shares {
        tracing::info!("powering off instead of suspending: QEMU cannot suspend a VM with mounts");
    }
    shares
}

/// The VM does not run, but the command may discard its memory.
fn already(project: &Project, record: &Record, way: StopMode) -> Result<StopOutcome, MachineError> {
    Ok(match way {
        _ if !Suspended::holds(project, record) => StopOutcome::AlreadyStopped,
        StopMode::PowerOff => {
            Suspended::discard(project)?;
            StopOutcome::MemoryDiscarded
        }
        _ => StopOutcome::AlreadySuspended,
    })
}

/// Waits for a clean shutdown. Returns `true` when the guest ended within the time.
async fn shut_down(project: &Project, process: &Process, within: Duration) -> bool {
    let orderly = async {
        if let Err(error) = vcpu::unpause(project).await {
            let is_lost = matches!(&error, MachineError::Monitor(it) if it.is_lost());
            if !is_lost || power_off(project).await.is_err() {
                tracing::warn!("cannot shut down the guest: {error}");
                return false;
            }
            return process.ended_within(Duration::MAX).await;
        }
        guest_logs::to_files(project).await;
        if let Err(error) = k3s_down(project).await {
            tracing::debug!(%error, "k3s could not be stopped beforehand; the guest's shutdown does it");
        }
        tracing::info!("shutting down the guest");
        if let Err(error) = press_power_button(project).await {
            tracing::warn!(%error, "cannot send the ACPI shutdown");
            return false;
        }
        // The caller limits the time.
        process.ended_within(Duration::MAX).await
    };
    let orderly = tokio::time::timeout(within, orderly);
    guest_logs::capped(project, orderly)
        .await
        .unwrap_or_else(|_| {
            tracing::warn!(
                "the guest did not shut down within {}",
                humantime::format_duration(within)
            );
            false
        })
}

/// k3s ends first, for an interrupted write can damage its datastore. Meanwhile the disk is trimmed, within a limit.
async fn k3s_down(project: &Project) -> Result<(), MachineError> {
    let ssh = guest::connect(project).await?;
    tracing::info!("stopping k3s");
    let both = format!(
        "timeout {TRIMMING} sh -c '{TRIM}' >/dev/null 2>&1 & systemctl stop k3s.service; result=$?; wait; exit $result"
    );
    ssh.output(&both).await?;
    ssh.close().await;
    Ok(())
}

/// Shuts the guest down from inside, where QEMU's monitor is lost.
async fn power_off(project: &Project) -> Result<(), MachineError> {
    let ssh = guest::connect(project).await?;
    tracing::info!("stopping k3s and shutting down the guest over SSH: QEMU's monitor is lost");
    ssh.output("systemctl stop k3s.service; systemctl poweroff --no-block")
        .await?;
    ssh.close().await;
    Ok(())
}

async fn press_power_button(project: &Project) -> Result<(), MonitorError> {
    monitor_of(project)
        .await?
        .execute(qmp::system_powerdown {})
        .await
        .map(drop)
}
