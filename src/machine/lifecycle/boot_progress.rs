//! Waits for a booting guest: its reports, racing the end of QEMU, the monitor's verdict, the kernel's last words
//! and a deadline.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use qapi::qmp;
use serde_json::{Value, json};

use crate::{
    base::{FileError, files},
    guest::{BootState, Console, GuestFault, Report, Stage, StageLog, excerpt},
    machine::{
        Limits, Machine, MachineError, Timings, control::guest, error::machine::BootFault,
        guest_config::identity_channel, model::timings::TimeSpentIn, template::capture,
    },
    project::{Project, Record},
    qemu::{Accelerator, Process, kvm::Kvm, log_writer, monitor_of},
};

/// A guest that runs by KVM shows a sign of life within seconds, on its console or by reading its disk; one that does not run
/// at all never does.
const FIRST_SIGN: Duration = Duration::from_secs(25);

/// The last stage of a guest that has reported none.
pub const NO_STAGE: &str = "none";

/// How the guest's report of a damaged datastore ends that has no copy (k3s-post-stop.sh).
const NO_COPY: &str = "there is no copy of it";
const TICK: Duration = Duration::from_millis(50);

const LOOK_AT_QEMU: Duration = Duration::from_millis(500);

/// How many lines of a log an error shows.
const EXCERPT: usize = 15;

/// A guest that is well tells its last words within that.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// How long a guest that was sent its identity may take to report that it has it. It takes a second, or ten emulated.
const IDENTITY_TIMEOUT_KVM: Duration = Duration::from_secs(30);

const IDENTITY_TIMEOUT_TCG: Duration = Duration::from_secs(180);

/// Why k3s did not start.
pub(crate) enum Failure {
    /// The accelerator does not run the guest.
    AcceleratorFailed(String),
    /// The guest died of the emulator, and need not do so another time.
    EmulatorCrash(MachineError),
    /// The guest did not receive its identity from the host. It finds it on the seed when it is restarted.
    IdentityNotReceived(MachineError),
    /// All else.
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

/// Waits for a resumed guest until it reports that k3s has started; one that asks is told that it is `asked`. With
/// `anew`, failures that it has reported so far do not count.
///
/// # Errors
///
/// [`MachineError::Boot`] with the last stage and the end of the log that explains it.
pub(crate) async fn wait_for_k3s(
    project: &Project,
    asked: Option<&Record>,
    process: &Process,
    limits: Limits,
    timings: &mut Timings,
    anew: bool,
) -> Result<(), MachineError> {
    let mut watch = Watch::new(project, limits);
    watch.record = asked;
    if anew {
        watch
            .reports()?
            .into_iter()
            .for_each(|it| watch.state.take(it));
        watch.state.clear_faults();
    }
    watch
        .until_k3s(process, Accelerator::Tcg, timings)
        .await
        .map_err(Failure::into_error)
}

/// The same for a guest that continues from a template's memory and was sent its identity.
pub(crate) async fn watch_identified(
    project: &Project,
    process: &Process,
    limits: Limits,
    timings: &mut Timings,
) -> Result<(), Failure> {
    let mut watch = Watch::new(project, limits);
    watch.identified = Some(Instant::now());
    watch.until_k3s(process, Accelerator::Tcg, timings).await
}

/// The same for a guest that has just been launched; tells apart whether the accelerator runs it at all.
pub(crate) async fn watch(
    machine: &Machine,
    record: &Record,
    process: &Process,
    accelerator: Accelerator,
    limits: Limits,
    timings: &mut Timings,
) -> Result<(), Failure> {
    let mut watch = Watch::new(&machine.project, limits);
    watch.machine = Some(machine);
    watch.record = Some(record);
    watch.until_k3s(process, accelerator, timings).await
}

/// Does `work` with a guest whose k3s has started, and ends early when k3s or the guest has failed.
pub(crate) async fn unless_boot_fails<T>(
    project: &Project,
    process: &Process,
    limits: Limits,
    work: impl Future<Output = Result<T, MachineError>>,
) -> Result<T, MachineError> {
    tokio::select! {
        result = work => result,
        failure = boot_failure(project, process, limits) => Err(failure.into_error()),
    }
}

async fn boot_failure(project: &Project, process: &Process, limits: Limits) -> Failure {
    let mut watch = Watch::new(project, limits);
    loop {
        if let Err(failure) = watch.look(process).await {
            return failure;
        }
        tokio::time::sleep(LOOK_AT_QEMU).await;
    }
}

fn time(report: &Report, timings: &mut Timings) {
    let step = match report.stage {
        Stage::Booted => "guest boots",
        Stage::DiskGrown => "disk grows, identity",
        Stage::K3sInstalled => "k3s is copied into the guest",
        Stage::Prepared => "the disk is handed over",
        Stage::K3sStarting => "units before k3s",
        Stage::K3sStarted => "k3s starts",
        _ => return,
    };
    timings.lap(step, TimeSpentIn::Guest);
}

/// What is known of a guest on its way.
struct Watch<'a> {
    project: &'a Project,
    /// The VM whose disk can be kept for others, if it is this command that has launched it.
    machine: Option<&'a Machine>,
    /// Who the guest is, if it may have to be told.
    record: Option<&'a Record>,
    limits: Limits,
    stages: StageLog,
    state: BootState,
    looked: Instant,
    console: Console,
    last_sign: Instant,
    any_sign: bool,
    /// What the guest had done with its disks, and when it had last done more.
    disk_use: (u64, Instant),
    /// When the guest was sent its identity, until it reports again.
    identified: Option<Instant>,
}

impl<'a> Watch<'a> {
    fn new(project: &'a Project, limits: Limits) -> Self {
        Self {
            project,
            machine: None,
            record: None,
            limits,
            stages: StageLog::new(project.stages_log()),
            state: BootState::default(),
            looked: Instant::now(),
            console: Console::new(project.console_log()),
            last_sign: Instant::now(),
            any_sign: false,
            disk_use: (0, Instant::now()),
            identified: None,
        }
    }

    async fn until_k3s(
        &mut self,
        process: &Process,
        accelerator: Accelerator,
        timings: &mut Timings,
    ) -> Result<(), Failure> {
        loop {
            let mut is_unprovisioned = false;
            for report in self.reports()? {
                if report.stage == Stage::DiskNotGrown {
                    tracing::warn!("{}", report.describe());
                } else {
                    tracing::info!("{}", report.describe());
                }
                time(&report, timings);
                is_unprovisioned = matches!(report.stage, Stage::Prepared | Stage::CaptureSkipped);
                self.identified = None;
                self.state.take(report);
            }
            if is_unprovisioned && let Some(record) = self.record.take() {
                self.answer(record, process)
                    .await
                    .map_err(Failure::IdentityNotReceived)?;
                self.identified = Some(Instant::now());
            }
            self.verdict(process, accelerator).await?;
            for line in self.console.signs.take_news() {
                tracing::info!("{line}");
            }
            if self.state.started {
                return Ok(());
            }
            self.look_at_the_time(accelerator).await?;
            tokio::time::sleep(TICK).await;
        }
    }

    /// The guest requests its identity. It continues as well if its disk could not be captured before.
    async fn answer(&self, record: &Record, process: &Process) -> Result<(), MachineError> {
        if let Some(machine) = self.machine {
            match capture::capture(self.project, record, process).await {
                Ok(Some(taken)) => machine.set_captured(taken),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "the prepared disk is not kept"),
            }
        }
        identity_channel::send_identity(self.project, record).await
    }

    fn reports(&mut self) -> Result<Vec<Report>, FileError> {
        let reports = self
            .stages
            .poll()
            .map_err(FileError::on("read", &self.project.stages_log()))?;
        if !reports.is_empty() {
            self.sign_of_life();
            self.console.signs.report();
        }
        Ok(reports)
    }

    /// Takes the reports in without a word.
    async fn look(&mut self, process: &Process) -> Result<(), Failure> {
        for report in self.reports()? {
            self.state.take(report);
        }
        self.verdict(process, Accelerator::Tcg).await
    }

    /// Whether there is hope.
    async fn verdict(
        &mut self,
        process: &Process,
        accelerator: Accelerator,
    ) -> Result<(), Failure> {
        match self.state.fault() {
            Some(GuestFault::Datastore(said)) => {
                let said = said.clone();
                let has_copy = !said.ends_with(NO_COPY);
                return Err(MachineError::Datastore { has_copy, said }.into());
            }
            Some(fault) => {
                let failed = self.failed(&fault.to_string(), self.project.console_log());
                return Err(match fault {
                    GuestFault::IdentityNotReceived(_) => Failure::IdentityNotReceived(failed),
                    _ => failed.into(),
                });
            }
            None => {}
        }
        if !process.is_alive() {
            log_writer::wait(&self.project.qemu_log());
            return Err(self.failed("QEMU ended", self.project.qemu_log()).into());
        }
        if self.looked.elapsed() >= LOOK_AT_QEMU {
            self.looked = Instant::now();
            self.look_at_qemu(accelerator).await?;
        }
        Ok(())
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
            let panicked = self.failed("the guest's kernel panicked", self.project.console_log());
            return Err(
                if accelerator == Accelerator::Tcg && self.console.is_emulator_crash() {
                    Failure::EmulatorCrash(panicked)
                } else {
                    panicked.into()
                },
            );
        }
        if accelerator == Accelerator::Tcg
            && self.console.signs.is_stalled()
            && !self.state.k3s_tried
        {
            let stalled = self.failed("the guest's kernel has stalled", self.project.console_log());
            return Err(Failure::EmulatorCrash(stalled));
        }
        if let Some(failure) = self.decisive_sign() {
            return Err(failure);
        }
        // A monitor that does not answer once is no verdict; a dead process is seen elsewhere.
        let Ok(mut monitor) = monitor_of(self.project).await else {
            return Ok(());
        };
        let Ok(status) = monitor.execute(qmp::query_status {}).await else {
            return Ok(());
        };
        if accelerator == Accelerator::Kvm
            && !self.any_sign
            && let Ok(disks) = monitor.raw("query-blockstats", json!({})).await
        {
            let operations = disk_operations(&disks);
            if operations > self.disk_use.0 {
                self.disk_use = (operations, Instant::now());
            }
        }
        match status.status {
            qmp::RunState::internal_error if accelerator == Accelerator::Kvm => {
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

    /// The failure of a guest whose console shows that it does not become a node. Once k3s has been started, it is past
    /// that.
    fn decisive_sign(&self) -> Option<Failure> {
        let verdict = self.console.signs.verdict(Instant::now());
        let sign = verdict.filter(|_| !self.state.k3s_tried)?;
        let reason = self.with_cause(sign.to_string());
        let failed = self.failed(&reason, self.project.console_log());
        Some(failed.with_fault(BootFault::Console(sign)).into())
    }

    /// A reason, and what the console says of it.
    fn with_cause(&self, reason: String) -> String {
        match self.console.signs.cause() {
            Some(cause) if !self.state.k3s_tried => format!("{reason}: {cause}"),
            _ => reason,
        }
    }

    async fn look_at_the_time(&self, accelerator: Accelerator) -> Result<(), Failure> {
        if accelerator == Accelerator::Kvm
            && !self.any_sign
            && self.last_sign.elapsed() > FIRST_SIGN
            && self.disk_use.1.elapsed() > FIRST_SIGN
        {
            let reason = format!(
                "the guest gave no sign of life for {} s",
                FIRST_SIGN.as_secs()
            );
            return Err(Failure::AcceleratorFailed(reason));
        }
        let bound = match accelerator {
            Accelerator::Kvm => IDENTITY_TIMEOUT_KVM,
            Accelerator::Tcg => IDENTITY_TIMEOUT_TCG,
        };
        if self.identified.is_some_and(|sent| sent.elapsed() > bound) {
            let reason = format!(
                "the guest did not answer within {} of receiving its identity",
                humantime::format_duration(bound)
            );
            let failed = self.failed(&reason, self.project.console_log());
            return Err(Failure::IdentityNotReceived(failed));
        }
        let late = self.limits.began.elapsed() > self.limits.within;
        let silent = self.last_sign.elapsed() > self.limits.silence;
        if !late && !silent {
            return Ok(());
        }
        let (what, bound) = if late {
            ("the VM was not ready within", self.limits.within)
        } else {
            ("the guest was silent for", self.limits.silence)
        };
        let reason = self.with_cause(format!("{what} {}", humantime::format_duration(bound)));
        // A k3s that neither starts nor ends has said why in the guest alone.
        let said = match self.state.k3s_tried {
            true => k3s_log_tail(self.project).await,
            false => None,
        };
        Err(match said {
            Some(said) => self.ended(&reason, said, None).into(),
            None => self.failed(&reason, self.project.console_log()).into(),
        })
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

/// How often the guest has read from its disks and written to them, by `query-blockstats`. Read loosely: the types of qapi
/// want keys that some versions of QEMU do not have.
fn disk_operations(disks: &Value) -> u64 {
    let count = |disk: &Value, what: &str| disk["stats"][what].as_u64().unwrap_or_default();
    let disks = disks.as_array().into_iter().flatten();
    disks
        .map(|disk| count(disk, "rd_operations") + count(disk, "wr_operations"))
        .sum()
}

/// What k3s has said last; `None` when the guest does not tell.
pub(crate) async fn k3s_log_tail(project: &Project) -> Option<String> {
    let said = async {
        let ssh = guest::connect(project).await?;
        let said = ssh.k3s_log_tail().await?;
        ssh.close().await;
        Ok::<_, MachineError>(said)
    };
    match tokio::time::timeout(LAST_WORDS, said).await {
        Ok(Ok(said)) => Some(excerpt(&said, usize::MAX)).filter(|it| !it.is_empty()),
        _ => None,
    }
}
