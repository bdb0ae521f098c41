//! Waiting for a guest on its way: its reports, racing the end of QEMU, the monitor's verdict, the kernel's last words
//! and a deadline.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use qapi::qmp;

use super::{MachineError, Timings, timings::Whose};
use crate::{
    base::{FileError, files},
    guest::{Console, Report, Stage, StageLog, stages},
    project::Project,
    qemu::{Accelerator, Monitor, Process, kvm::Kvm},
};

/// How long a start may take altogether unless the user says otherwise.
const WITHIN_KVM: Duration = Duration::from_secs(5 * 60);
const WITHIN_TCG: Duration = Duration::from_secs(30 * 60);
/// How long the guest may be silent: no report and nothing on its console. k3s itself is, while it starts.
const SILENCE_KVM: Duration = Duration::from_secs(4 * 60);
const SILENCE_TCG: Duration = Duration::from_secs(12 * 60);
/// A guest that runs by KVM shows a sign of life within seconds; one that does not run at all never does.
const FIRST_SIGN: Duration = Duration::from_secs(25);
/// k3s may end a few times while it finds its feet (its unit starts it again); this is a crash loop.
const MOST_EXITS: usize = 8;
/// The last stage of a guest that has reported none.
pub const NO_STAGE: &str = "none";
const TICK: Duration = Duration::from_millis(50);
const LOOK_AT_QEMU: Duration = Duration::from_millis(500);

/// How a start is bounded.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// When it began.
    pub began: Instant,
    /// How long it may take altogether.
    pub within: Duration,
    /// How long the guest may be silent.
    pub silence: Duration,
}

impl Limits {
    /// Those for a guest that runs by `accelerator`, from now on.
    pub fn for_start(accelerator: Accelerator, chosen: Option<Duration>) -> Self {
        let (within, silence) = match accelerator {
            Accelerator::Kvm => (WITHIN_KVM, SILENCE_KVM),
            Accelerator::Tcg => (WITHIN_TCG, SILENCE_TCG),
        };
        Self {
            began: Instant::now(),
            within: chosen.unwrap_or(within),
            silence,
        }
    }

    /// Whether there is time left to wait for something.
    ///
    /// # Errors
    ///
    /// [`MachineError::Deadline`] when there is none.
    pub fn check(&self, waiting_for: &dyn std::fmt::Display) -> Result<(), MachineError> {
        if self.began.elapsed() < self.within {
            return Ok(());
        }
        Err(MachineError::Deadline {
            waiting_for: waiting_for.to_string(),
            within: self.within,
        })
    }
}

/// Why a launch did not come to a started k3s.
pub(super) enum Failure {
    /// The accelerator does not run the guest.
    NotRunning(String),
    /// All else.
    Other(MachineError),
}

impl Failure {
    /// The error that ends the command.
    pub(super) fn into_error(self) -> MachineError {
        match self {
            Self::NotRunning(reason) => MachineError::Kvm(Kvm::Broken(reason)),
            Self::Other(error) => error,
        }
    }
}

impl<E: Into<MachineError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Waits on a running QEMU until the guest reports that k3s has started.
///
/// # Errors
///
/// [`MachineError::Boot`] with the last stage and the end of the log that explains it.
pub async fn wait_for_k3s(
    project: &Project,
    process: &Process,
    limits: Limits,
    timings: &mut Timings,
) -> Result<(), MachineError> {
    watch(project, process, Accelerator::Tcg, limits, timings)
        .await
        .map_err(Failure::into_error)
}

/// The same, and tells apart whether the accelerator runs the guest at all.
pub(super) async fn watch(
    project: &Project,
    process: &Process,
    accelerator: Accelerator,
    limits: Limits,
    timings: &mut Timings,
) -> Result<(), Failure> {
    let mut watch = Watch::new(project, limits);
    let mut looked = Instant::now();
    loop {
        for report in watch
            .stages
            .poll()
            .map_err(FileError::on("read", &project.stages_log()))?
        {
            if watch.take(report, timings)? {
                return Ok(());
            }
        }
        if !process.is_alive() {
            return Err(watch.failed("QEMU ended", watch.project.qemu_log()).into());
        }
        if looked.elapsed() >= LOOK_AT_QEMU {
            looked = Instant::now();
            watch.look_at_qemu(accelerator).await?;
        }
        watch.look_at_the_time(accelerator)?;
        tokio::time::sleep(TICK).await;
    }
}

/// What is known of a guest on its way.
struct Watch<'a> {
    project: &'a Project,
    limits: Limits,
    stages: StageLog,
    last_stage: String,
    exits: usize,
    console: Console,
    last_sign: Instant,
    any_sign: bool,
}

impl<'a> Watch<'a> {
    fn new(project: &'a Project, limits: Limits) -> Self {
        Self {
            project,
            limits,
            stages: StageLog::new(project.stages_log()),
            last_stage: NO_STAGE.to_owned(),
            exits: 0,
            console: Console::new(project.console_log()),
            last_sign: Instant::now(),
            any_sign: false,
        }
    }

    /// Whether the report is the one that is waited for.
    fn take(&mut self, report: Report, timings: &mut Timings) -> Result<bool, Failure> {
        self.sign_of_life();
        let line = report.describe();
        tracing::info!("{line}");
        self.last_stage = line;
        match report.stage {
            Stage::Booted => timings.end_of("guest boots", Whose::Guest),
            Stage::DiskGrown => timings.end_of("disk grows, cloud-init", Whose::Guest),
            Stage::K3sInstalled => timings.end_of("k3s is copied into the guest", Whose::Guest),
            Stage::K3sStarting => timings.end_of("units before k3s", Whose::Guest),
            Stage::K3sStarted => {
                timings.end_of("k3s starts", Whose::Guest);
                return Ok(true);
            }
            Stage::Failed => {
                let reason = format!("the guest reports a failure in {}", report.detail);
                return Err(self.failed(&reason, self.project.console_log()).into());
            }
            Stage::K3sExited => {
                self.exits += 1;
                if self.exits >= MOST_EXITS {
                    let reason = format!(
                        "k3s ended {MOST_EXITS} times, the last time with {}",
                        report.detail
                    );
                    return Err(self.failed(&reason, self.project.console_log()).into());
                }
            }
            Stage::Other(_) => {}
        }
        Ok(false)
    }

    fn sign_of_life(&mut self) {
        self.last_sign = Instant::now();
        self.any_sign = true;
    }

    async fn look_at_qemu(&mut self, accelerator: Accelerator) -> Result<(), Failure> {
        if self.console.poll()? {
            self.sign_of_life();
        }
        if self.console.panicked() {
            return Err(self
                .failed("the guest's kernel panicked", self.project.console_log())
                .into());
        }
        // A monitor that does not answer once is no verdict; a dead process is seen elsewhere.
        let Ok(mut monitor) = Monitor::connect(&self.project.monitor_socket()).await else {
            return Ok(());
        };
        let Ok(status) = monitor.execute(qmp::query_status {}).await else {
            return Ok(());
        };
        match status.status {
            qmp::RunState::internal_error if accelerator == Accelerator::Kvm => {
                Err(Failure::NotRunning(
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

    fn look_at_the_time(&self, accelerator: Accelerator) -> Result<(), Failure> {
        if accelerator == Accelerator::Kvm
            && !self.any_sign
            && self.last_sign.elapsed() > FIRST_SIGN
        {
            let reason = format!(
                "the guest gave no sign of life for {} s",
                FIRST_SIGN.as_secs()
            );
            return Err(Failure::NotRunning(reason));
        }
        let late = self.limits.began.elapsed() > self.limits.within;
        let silent = self.last_sign.elapsed() > self.limits.silence;
        if !late && !silent {
            return Ok(());
        }
        let (what, bound) = if late {
            ("the machine was not ready within", self.limits.within)
        } else {
            ("the guest was silent for", self.limits.silence)
        };
        let reason = format!("{what} {}", humantime::format_duration(bound));
        Err(self.failed(&reason, self.project.console_log()).into())
    }

    fn failed(&self, reason: &str, log_path: PathBuf) -> MachineError {
        let tail = files::tail(&log_path, 15);
        let log = tail
            .lines()
            .map(stages::printable)
            .filter(|line| !line.trim().is_empty())
            .collect::<Vec<_>>()
            .join("\n");
        MachineError::Boot {
            reason: reason.to_owned(),
            stage: self.last_stage.clone(),
            log,
            log_path,
        }
    }
}
