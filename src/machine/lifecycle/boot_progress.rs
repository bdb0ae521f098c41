//! Waits for the reports of a booting guest, and fails early when a check shows that it cannot become ready.

use std::time::{Duration, Instant};

use crate::{
    base::FileError,
    guest::{Report, Stage, StageLog},
    machine::{
        Limits, MachineError, Timings,
        guest_config::identity_channel,
        launch::Launched,
        lifecycle::boot_checks::{BootChecks, Failure, QEMU_INTERVAL},
        model::timings::TimeSpentIn,
    },
    project::{Project, Record},
    qemu::Process,
};

/// How often the guest's reports are read.
const POLL: Duration = Duration::from_millis(50);

/// An event of a booting guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BootEvent {
    /// The guest has its common state, and requests its identity.
    IdentityRequested,
    /// The guest has started k3s.
    K3sStarted,
}

/// The progress of a booting guest.
pub(crate) struct BootProgress<'a> {
    project: &'a Project,
    stages: StageLog,
    checks: BootChecks<'a>,
    /// The guest may still request its identity.
    awaits_identity: bool,
}

impl<'a> BootProgress<'a> {
    /// The progress of a running guest.
    pub(crate) fn of(project: &'a Project, process: &'a Process, limits: Limits) -> Self {
        Self {
            project,
            stages: StageLog::new(project.stages_log()),
            checks: BootChecks::new(project, process, limits),
            awaits_identity: true,
        }
    }

    /// The progress of a guest that was just launched; its accelerator may not run it.
    pub(crate) fn of_boot(project: &'a Project, launched: &'a Launched) -> Self {
        let mut progress = Self::of(project, &launched.process, launched.limits);
        progress.checks.accelerator = launched.accelerator;
        progress
    }

    /// The progress of a guest that was resumed from a template's memory and sent its identity.
    pub(crate) fn of_template(project: &'a Project, launched: &'a Launched) -> Self {
        let mut progress = Self::of(project, &launched.process, launched.limits);
        progress.checks.identity_sent = Some(Instant::now());
        progress.awaits_identity = false;
        progress
    }

    /// Reads the reports so far. Failures among them do not count.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub(crate) fn skip_reports(&mut self) -> Result<(), FileError> {
        for report in self.reports()? {
            self.checks.add(report);
        }
        self.checks.state.clear_faults();
        Ok(())
    }

    /// Waits until k3s has started. Answers the guest's request for its identity.
    ///
    /// # Errors
    ///
    /// [`MachineError::Boot`] with the last stage and the end of the log that explains it.
    pub(crate) async fn until_k3s(
        &mut self,
        record: &Record,
        timings: &mut Timings,
    ) -> Result<(), Failure> {
        while let BootEvent::IdentityRequested = self.next(timings).await? {
            self.send_identity(record).await?;
        }
        Ok(())
    }

    /// Waits for the next event.
    ///
    /// # Errors
    ///
    /// Those of [`Self::until_k3s`].
    pub(crate) async fn next(&mut self, timings: &mut Timings) -> Result<BootEvent, Failure> {
        loop {
            let mut is_requested = false;
            for report in self.reports()? {
                if report.stage == Stage::DiskNotGrown {
                    tracing::warn!("{}", report.describe());
                } else {
                    tracing::info!("{}", report.describe());
                }
                time(&report, timings);
                is_requested = matches!(report.stage, Stage::Prepared | Stage::CaptureSkipped);
                self.checks.add(report);
            }
            if is_requested && std::mem::take(&mut self.awaits_identity) {
                return Ok(BootEvent::IdentityRequested);
            }
            self.checks.check().await?;
            for line in self.checks.console.signs.take_news() {
                tracing::info!("{line}");
            }
            if self.checks.state.started {
                return Ok(BootEvent::K3sStarted);
            }
            self.checks.check_deadlines().await?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends the guest the identity that it requested.
    ///
    /// # Errors
    ///
    /// [`Failure::IdentityNotReceived`].
    pub(crate) async fn send_identity(&mut self, record: &Record) -> Result<(), Failure> {
        identity_channel::send_identity(self.project, record)
            .await
            .map_err(Failure::IdentityNotReceived)?;
        self.checks.identity_sent = Some(Instant::now());
        Ok(())
    }

    fn reports(&mut self) -> Result<Vec<Report>, FileError> {
        self.stages
            .poll()
            .map_err(FileError::on("read", &self.project.stages_log()))
    }

    /// Waits until the boot has failed.
    async fn failure(mut self) -> Failure {
        loop {
            if let Err(failure) = self.read_and_check().await {
                return failure;
            }
            tokio::time::sleep(QEMU_INTERVAL).await;
        }
    }

    async fn read_and_check(&mut self) -> Result<(), Failure> {
        for report in self.reports()? {
            self.checks.add(report);
        }
        self.checks.check().await
    }
}

/// Does `work` with a started guest, and ends early when k3s or the guest fails.
pub(crate) async fn unless_boot_fails<T>(
    project: &Project,
    process: &Process,
    limits: Limits,
    work: impl Future<Output = Result<T, MachineError>>,
) -> Result<T, MachineError> {
    tokio::select! {
        result = work => result,
        failure = BootProgress::of(project, process, limits).failure() => Err(failure.into_error()),
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
