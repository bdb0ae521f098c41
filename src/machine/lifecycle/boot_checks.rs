//! Checks whether a booting guest can still become ready: its reports, its console, QEMU and its monitor, and the
//! deadlines.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use qapi::qmp;
use serde_json::{Value, json};

use crate::{
    base::files,
    guest::{BootState, Console, GuestFault, Report, Stage, excerpt},
    machine::{Limits, MachineError, control::guest, error::machine::BootFault},
    project::Project,
    qemu::{Accelerator, Process, kvm::Kvm, log_writer, monitor_of},
};

/// How long a guest with KVM may be silent: it writes to its console or reads its disk within seconds.
const FIRST_SIGN_TIMEOUT: Duration = Duration::from_secs(25);

/// The last stage of a guest that has reported none.
pub const NO_STAGE: &str = "none";

/// The end of the guest's report of a damaged datastore without a copy (k3s-post-stop.sh).
const NO_COPY: &str = "there is no copy of it";

/// How often the console and QEMU's monitor are read.
pub(crate) const QEMU_INTERVAL: Duration = Duration::from_millis(500);

/// The lines of a log in an error.
const EXCERPT: usize = 15;

/// How long the guest may take to send the end of k3s's log.
const LOG_TAIL_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a guest may take to report that it received its identity. It takes a second, or ten emulated.
const IDENTITY_TIMEOUT_KVM: Duration = Duration::from_secs(30);

const IDENTITY_TIMEOUT_TCG: Duration = Duration::from_secs(180);

/// The reason why k3s did not start.
pub(crate) enum Failure {
    /// The accelerator does not run the guest.
    AcceleratorFailed(String),
    /// The emulator crashed the guest, which may run at the next try.
    EmulatorCrash(MachineError),
    /// The guest did not receive its identity. It finds it on the seed after a restart.
    IdentityNotReceived(MachineError),
    /// Any other error.
    Other(MachineError),
}

impl Failure {
    /// The error that ends the command.
    pub(crate) fn into_error(self) -> MachineError {
        match self {
            Self::AcceleratorFailed(reason) => MachineError::Kvm(Kvm::Broken(reason)),
            Self::EmulatorCrash(error) | Self::IdentityNotReceived(error) | Self::Other(error) => {
                error
            }
        }
    }
}

impl<E: Into<MachineError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// The checks of a booting guest.
pub(crate) struct BootChecks<'a> {
    project: &'a Project,
    process: &'a Process,
    limits: Limits,
    /// The accelerator of the guest; [`Accelerator::Tcg`] also for a guest that is known to run.
    pub(crate) accelerator: Accelerator,
    /// The state of the boot, by the guest's reports.
    pub(crate) state: BootState,
    /// The guest's console.
    pub(crate) console: Console,
    /// The time when the guest was sent its identity, until its next report.
    pub(crate) identity_sent: Option<Instant>,
    qemu_checked: Instant,
    last_sign: Instant,
    any_sign: bool,
    /// The number of disk operations of the guest, and the time of the last change.
    disk_use: (u64, Instant),
}

impl<'a> BootChecks<'a> {
    pub(crate) fn new(project: &'a Project, process: &'a Process, limits: Limits) -> Self {
        Self {
            project,
            process,
            limits,
            accelerator: Accelerator::Tcg,
            state: BootState::default(),
            console: Console::new(project.console_log()),
            identity_sent: None,
            qemu_checked: Instant::now(),
            last_sign: Instant::now(),
            any_sign: false,
            disk_use: (0, Instant::now()),
        }
    }

    /// Adds a report of the guest.
    pub(crate) fn add(&mut self, report: Report) {
        self.sign_of_life();
        self.console.signs.report();
        // A guest that no longer waits for the capture still waits for its identity.
        if report.stage != Stage::CaptureSkipped {
            self.identity_sent = None;
        }
        self.state.add(report);
    }

    fn sign_of_life(&mut self) {
        self.last_sign = Instant::now();
        self.any_sign = true;
    }

    /// Fails when the guest has reported a fault, QEMU has ended, or the console or the monitor show that the guest will
    /// not become ready.
    pub(crate) async fn check(&mut self) -> Result<(), Failure> {
        if let Some(failure) = self.reported_failure() {
            return Err(failure);
        }
        if !self.process.is_alive() {
            log_writer::wait(&self.project.qemu_log());
            return Err(self.failed("QEMU ended", self.project.qemu_log()).into());
        }
        if self.qemu_checked.elapsed() >= QEMU_INTERVAL {
            self.qemu_checked = Instant::now();
            if self.console.poll()? {
                self.sign_of_life();
            }
            if let Some(failure) = self.console_failure() {
                return Err(failure);
            }
            self.check_monitor().await?;
        }
        Ok(())
    }

    fn reported_failure(&self) -> Option<Failure> {
        let fault = self.state.fault()?;
        if let GuestFault::Datastore(said) = fault {
            let said = said.clone();
            let has_copy = !said.ends_with(NO_COPY);
            return Some(MachineError::Datastore { has_copy, said }.into());
        }
        let failed = self.failed(&fault.to_string(), self.project.console_log());
        Some(match fault {
            GuestFault::IdentityNotReceived(_) => Failure::IdentityNotReceived(failed),
            _ => failed.into(),
        })
    }

    fn console_failure(&self) -> Option<Failure> {
        let log_path = self.project.console_log();
        let emulated = self.accelerator == Accelerator::Tcg;
        if self.console.panicked() {
            let panicked = self.failed("the guest's kernel panicked", log_path);
            return Some(if emulated && self.console.is_emulator_crash() {
                Failure::EmulatorCrash(panicked)
            } else {
                panicked.into()
            });
        }
        // Once k3s is being started, the console shows no more boot failures.
        if self.state.k3s_tried {
            return None;
        }
        if emulated && self.console.signs.is_stalled() {
            let stalled = self.failed("the guest's kernel has stalled", log_path);
            return Some(Failure::EmulatorCrash(stalled));
        }
        if self.console.signs.is_frozen() {
            let frozen = self.failed("the guest's systemd has stopped", log_path);
            // Seen once in an emulated guest that got too little time of a busy host. A second boot is worth it there.
            return Some(if emulated {
                Failure::EmulatorCrash(frozen)
            } else {
                frozen.into()
            });
        }
        let sign = self.console.signs.verdict(Instant::now())?;
        let failed = self.failed(&self.with_cause(sign.to_string()), log_path);
        Some(failed.with_fault(BootFault::Console(sign)).into())
    }

    /// A single failure of the monitor does not count; the end of the process is checked elsewhere.
    async fn check_monitor(&mut self) -> Result<(), Failure> {
        let Ok(mut monitor) = monitor_of(self.project).await else {
            return Ok(());
        };
        let Ok(status) = monitor.execute(qmp::query_status {}).await else {
            return Ok(());
        };
        if self.accelerator == Accelerator::Kvm
            && !self.any_sign
            && let Ok(disks) = monitor.raw("query-blockstats", json!({})).await
        {
            let operations = disk_operations(&disks);
            if operations > self.disk_use.0 {
                self.disk_use = (operations, Instant::now());
            }
        }
        match status.status {
            qmp::RunState::internal_error if self.accelerator == Accelerator::Kvm => {
                Err(Failure::AcceleratorFailed(
                    "QEMU stopped the guest with an internal error of KVM".to_owned(),
                ))
            }
            qmp::RunState::internal_error
            | qmp::RunState::io_error
            | qmp::RunState::guest_panicked => {
                let reason = format!("QEMU stopped the guest ({:?})", status.status);
                Err(self.failed(&reason, self.project.console_log()).into())
            }
            _ => Ok(()),
        }
    }

    /// Fails when the guest exceeds its limits.
    pub(crate) async fn check_deadlines(&self) -> Result<(), Failure> {
        if self.accelerator == Accelerator::Kvm
            && !self.any_sign
            && self.last_sign.elapsed() > FIRST_SIGN_TIMEOUT
            && self.disk_use.1.elapsed() > FIRST_SIGN_TIMEOUT
        {
            let reason = format!(
                "the guest gave no sign of life for {} s",
                FIRST_SIGN_TIMEOUT.as_secs()
            );
            return Err(Failure::AcceleratorFailed(reason));
        }
        if let Some(failure) = self.identity_timeout() {
            return Err(failure);
        }
        let (what, bound) = if self.limits.began.elapsed() > self.limits.within {
            ("the VM was not ready within", self.limits.within)
        } else if self.last_sign.elapsed() > self.limits.silence {
            ("the guest was silent for", self.limits.silence)
        } else {
            return Ok(());
        };
        let reason = self.with_cause(format!("{what} {}", humantime::format_duration(bound)));
        // The reason why k3s neither starts nor ends is in the guest's log alone.
        let said = match self.state.k3s_tried {
            true => k3s_log_tail(self.project).await,
            false => None,
        };
        Err(match said {
            Some(said) => self.ended(&reason, said, None).into(),
            None => self.failed(&reason, self.project.console_log()).into(),
        })
    }

    fn identity_timeout(&self) -> Option<Failure> {
        let timeout = match self.accelerator {
            Accelerator::Kvm => IDENTITY_TIMEOUT_KVM,
            Accelerator::Tcg => IDENTITY_TIMEOUT_TCG,
        };
        self.identity_sent.filter(|sent| sent.elapsed() > timeout)?;
        let reason = format!(
            "the guest did not answer within {} of receiving its identity",
            humantime::format_duration(timeout)
        );
        let failed = self.failed(&reason, self.project.console_log());
        Some(Failure::IdentityNotReceived(failed))
    }

    /// A reason, with the end of the console.
    fn with_cause(&self, reason: String) -> String {
        match self.console.signs.cause() {
            Some(cause) if !self.state.k3s_tried => format!("{reason}: {cause}"),
            _ => reason,
        }
    }

    fn failed(&self, reason: &str, log_path: PathBuf) -> MachineError {
        let log = excerpt(&files::tail(&log_path, usize::MAX), EXCERPT);
        self.ended(reason, log, Some(log_path))
    }

    fn ended(&self, reason: &str, log: String, log_path: Option<PathBuf>) -> MachineError {
        MachineError::Boot {
            fault: match self.state.fault() {
                Some(GuestFault::CrashLoop(_)) => BootFault::CrashLoop,
                _ => BootFault::Other,
            },
            reason: reason.to_owned(),
            stage: self
                .state
                .last_stage
                .clone()
                .unwrap_or_else(|| NO_STAGE.to_owned()),
            log,
            log_path,
        }
    }
}

/// The number of reads and writes of the guest's disks, by `query-blockstats`. Parsed loosely: the types of qapi
/// require keys that some versions of QEMU do not have.
fn disk_operations(disks: &Value) -> u64 {
    let count = |disk: &Value, what: &str| disk["stats"][what].as_u64().unwrap_or_default();
    let disks = disks.as_array().into_iter().flatten();
    disks
        .map(|disk| count(disk, "rd_operations") + count(disk, "wr_operations"))
        .sum()
}

/// The end of k3s's log; `None` when the guest does not answer.
pub(crate) async fn k3s_log_tail(project: &Project) -> Option<String> {
    let said = async {
        let ssh = guest::connect(project).await?;
        let said = ssh.k3s_log_tail().await?;
        ssh.close().await;
        Ok::<_, MachineError>(said)
    };
    match tokio::time::timeout(LOG_TAIL_TIMEOUT, said).await {
        Ok(Ok(said)) => Some(excerpt(&said, usize::MAX)).filter(|it| !it.is_empty()),
        _ => None,
    }
}
