//! The wait for the new release, and the rollback if it does not become ready.

use crate::{
    base::causes::with_causes,
    k3s::release::Version,
    machine::{
        Limits, MachineError,
        control::guest_logs,
        error::{UpgradeError, UpgradeFailure},
        lifecycle::{boot_checks, boot_progress, readiness, setup},
        model::timings::TimeSpentIn,
        snapshots::restore,
        upgrade::{run::Upgrade, safety_snapshot::SafetySnapshot},
    },
    project::{Config, config_values::Timeout},
};

impl Upgrade<'_> {
    /// The limit of a start of k3s, from now on.
    pub(super) fn limits(&self) -> Limits {
        Limits::for_start(self.accelerator, self.spec.timeout)
    }

    /// Waits until the node is Ready with that release instead of the `former` one, and writes its kubeconfig.
    pub(super) async fn wait_until_up(
        &mut self,
        version: &Version,
        former: &str,
    ) -> Result<(), MachineError> {
        let project = &self.machine.project;
        let (record, process) = (&self.record, &self.process);
        let limits = self.limits();
        let timings = &mut self.timings;
        let ready = async {
            readiness::upgraded(record, process, limits, version.as_str(), former).await?;
            timings.lap("k3s starts", TimeSpentIn::Guest);
            readiness::ready(project, record, process, limits, timings).await
        };
        let ready = boot_progress::unless_boot_fails(project, process, limits, ready);
        guest_logs::in_files(project, ready).await
    }

    /// Restores the snapshot before the upgrade. Returns the error that ends the command.
    pub(super) async fn roll_back(
        &self,
        mut snapshot: SafetySnapshot<'_>,
        from: &Version,
        to: &Version,
        error: &MachineError,
    ) -> UpgradeError {
        let fell = self.failure(to, error).await;
        tracing::warn!("k3s {to} does not become ready; rolling back");
        let back = async {
            restore::restore(self.machine, &snapshot.name).await?;
            let flags = Config {
                timeout: self.spec.timeout.map(Timeout),
                ..Config::default()
            };
            setup::start(self.machine, flags, false).await
        };
        match back.await {
            Ok(_) => {
                snapshot.discard();
                UpgradeError::Undone {
                    from: from.to_string(),
                    fell,
                }
            }
            Err(trouble) => UpgradeError::NotUndone {
                fell,
                trouble: with_causes(&trouble),
                snapshot: snapshot.name.clone(),
            },
        }
    }

    /// The reason why the node did not become Ready.
    pub(super) async fn failure(&self, to: &Version, error: &MachineError) -> Box<UpgradeFailure> {
        Box::new(UpgradeFailure {
            to: to.to_string(),
            why: match error {
                MachineError::Boot { reason, .. } => reason.clone(),
                other => with_causes(other),
            },
            late: matches!(error, MachineError::Deadline { .. }),
            log: boot_checks::k3s_log_tail(&self.machine.project)
                .await
                .unwrap_or_default(),
        })
    }
}
