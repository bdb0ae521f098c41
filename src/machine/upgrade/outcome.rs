//! Whether a release comes up, and what becomes of the machine if it does not.

use super::{Fell, UpgradeError, kept::Kept, story::Upgrade};
use crate::{
    cluster::release::Version,
    machine::{
        Limits, MachineError, error::with_causes, logs, ready, rollback, setup, timings::Whose,
        watch,
    },
    project::Config,
};

impl Upgrade<'_> {
    /// Those of a start of k3s, from now on.
    pub(super) fn limits(&self) -> Limits {
        Limits::for_start(self.accelerator, self.spec.timeout)
    }

    /// Waits until the node is Ready with that release, and writes the kubeconfig of its k3s.
    pub(super) async fn comes_up(&mut self, version: &Version) -> Result<(), MachineError> {
        let project = &self.machine.project;
        let (record, process) = (&self.record, &self.process);
        let limits = self.limits();
        let timings = &mut self.timings;
        let ready = async {
            ready::upgraded(record, process, limits, version.as_str()).await?;
            timings.end_of("k3s starts", Whose::Guest);
            ready::ready(project, record, process, limits, timings).await
        };
        logs::to_files(project).await;
        let hopeful = watch::while_hopeful(project, process, limits, ready);
        let result = logs::capped(project, hopeful).await;
        logs::to_memory(project).await;
        result
    }

    /// Puts the machine back as it was, and says what happened.
    pub(super) async fn undo(
        &self,
        mut kept: Kept<'_>,
        from: &Version,
        to: &Version,
        error: &MachineError,
    ) -> UpgradeError {
        let fell = self.fell(to, error).await;
        tracing::warn!("k3s {to} does not come up; putting the machine back as it was");
        let back = async {
            rollback::restore(self.machine, &kept.name).await?;
            setup::start(self.machine, Config::default(), false).await
        };
        match back.await {
            Ok(_) => {
                kept.goes();
                UpgradeError::Undone {
                    from: from.to_string(),
                    fell,
                }
            }
            Err(trouble) => UpgradeError::NotUndone {
                fell,
                trouble: with_causes(&trouble),
                snapshot: kept.name.clone(),
            },
        }
    }

    /// What happened instead of a node that is Ready.
    pub(super) async fn fell(&self, to: &Version, error: &MachineError) -> Box<Fell> {
        Box::new(Fell {
            to: to.to_string(),
            why: match error {
                MachineError::Boot { reason, .. } => reason.clone(),
                other => with_causes(other),
            },
            late: matches!(error, MachineError::Deadline { .. }),
            log: watch::last_words_of_k3s(&self.machine.project)
                .await
                .unwrap_or_default(),
        })
    }
}
