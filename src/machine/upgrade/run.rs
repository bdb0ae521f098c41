//! The steps of an upgrade.

use std::{path::Path, sync::Arc};

use crate::{
    base::{Digest, Progress, SnapshotName, causes::with_causes},
    guest::{Ssh, SshError, k3s_upgrade},
    k3s::{
        Node,
        release::Version,
        version_skew::{self, Step},
    },
    machine::{
        Machine, MachineError, Spec, Timings,
        access::api,
        cache::{assets, references},
        control::{guest, wake},
        error::UpgradeError,
        lifecycle::setup::Summary,
        model::timings::TimeSpentIn,
        recover::{interrupted, replacement, running::RunningSettings},
        upgrade::safety_snapshot::{self, SafetySnapshot},
    },
    project::{Config, Record, record::Release, user},
    qemu::{Accelerator, Process},
};

/// The release to upgrade to.
#[derive(Debug, Clone)]
pub enum Target {
    /// A release.
    Version(Version),
    /// The newest release of a channel of k3s.
    Channel(String),
}

/// The result of an upgrade.
#[derive(Debug)]
pub struct Upgraded {
    /// The VM.
    pub summary: Summary,
    /// The former release, if known.
    pub from: String,
    /// The release now.
    pub to: Version,
    /// The snapshot before the upgrade, if the VM was changed.
    pub snapshot: Option<SnapshotName>,
}

/// An upgrade of a running VM.
pub(crate) struct Upgrade<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) spec: Spec,
    pub(crate) record: Record,
    pub(crate) process: Process,
    pub(crate) accelerator: Accelerator,
    pub(crate) timings: Timings,
}

/// Upgrades the VM to another release of k3s. The release is downloaded before anything is changed.
///
/// # Errors
///
/// When that release may not follow the installed one, cannot be fetched, or does not become ready. The VM is unchanged
/// or rolled back then.
pub async fn upgrade(
    machine: &Machine,
    target: &Target,
    flags: Config,
    fetching: &dyn Progress,
    copying: &Arc<dyn Progress>,
) -> Result<Upgraded, MachineError> {
    let mut upgrade = Upgrade::of_running(machine, flags).await?;
    let ssh = guest::connect(&machine.project).await?;
    let said = ssh.k3s_version().await?;
    let from: Version = said.parse().map_err(|_| UpgradeError::Unknown(said))?;
    let to = match target {
        Target::Version(version) => version.clone(),
        Target::Channel(channel) => assets::newest(channel).await?,
    };
    let step = version_skew::check(&from, &to).map_err(UpgradeError::from)?;
    upgrade.timings.lap("observe the VM", TimeSpentIn::Own);
    let recorded = upgrade.record.release.version.clone();
    let (nothing_to_do, from, snapshot) = match step {
        Step::None => {
            let finished = upgrade.finish(&ssh, &to, fetching).await?;
            let snapshot = match recorded == to.as_str() {
                true => None,
                false => safety_snapshot::latest(&machine.project, &to),
            };
            (!finished, recorded, snapshot)
        }
        Step::Up => {
            let snapshot = upgrade.step_up(&from, &to, fetching, copying).await?;
            (false, from.to_string(), Some(snapshot))
        }
    };
    ssh.close().await;
    Ok(Upgraded {
        summary: Summary {
            record: upgrade.record,
            timings: upgrade.timings,
            nothing_to_do,
        },
        from,
        to,
        snapshot,
    })
}

impl<'a> Upgrade<'a> {
    /// The upgrade of the running VM, before its release is chosen.
    async fn of_running(machine: &'a Machine, flags: Config) -> Result<Self, MachineError> {
        let timings = Timings::start();
        let project = &machine.project;
        let (record, process) = interrupted::recover(machine).await?.running(project)?;
        if !record.provisioned {
            return Err(MachineError::NothingToSnapshot(record.name));
        }
        // Its files are registered only once they are in the guest; until then nothing may be pruned.
        references::register(machine, Some(&record)).await?;
        let config = flags.over(user::trusted(project)?);
        Ok(Self {
            machine,
            spec: Spec::resolve(&config, Some(&record), project)?,
            record,
            process,
            accelerator: RunningSettings::query(machine).await?.accelerator,
            timings,
        })
    }

    /// Replaces the release, or rolls back. Returns the name of the snapshot before it.
    async fn step_up(
        &mut self,
        from: &Version,
        to: &Version,
        fetching: &dyn Progress,
        copying: &Arc<dyn Progress>,
    ) -> Result<SnapshotName, MachineError> {
        let project = &self.machine.project;
        let release = self.fetch(to, fetching).await?;
        let unrecorded = match from.as_str() == self.record.release.version {
            true => None,
            false => Some(self.fetch(from, fetching).await?),
        };
        self.timings.lap("fetch k3s", TimeSpentIn::Network);
        self.require_ready().await?;
        if let Some(installed) = unrecorded {
            self.save_release(installed).await?;
        }
        let mut snapshot = SafetySnapshot::create(self.machine, to).await?;
        self.timings.lap("keep the VM", TimeSpentIn::Own);
        let ssh = guest::connect(project).await?;
        let files = files_of(&release);
        ssh.stage_k3s(&files, copying).await?;
        ssh.verify_k3s(&files)
            .await
            .map_err(|error| refused(to, error))?;
        self.timings
            .lap("k3s is copied into the guest", TimeSpentIn::Own);
        tracing::info!("replacing k3s {from} by {to}");
        snapshot.keep();
        let up = async {
            ssh.replace_k3s().await?;
            ssh.close().await;
            self.wait_until_up(to, from.as_str()).await
        };
        if let Err(error) = up.await {
            return Err(self.roll_back(snapshot, from, to, &error).await.into());
        }
        self.save_release(release).await?;
        Ok(snapshot.name.clone())
    }

    /// Finishes an upgrade to a release that is in the guest already. Returns `false` when there is none.
    async fn finish(
        &mut self,
        ssh: &Ssh,
        to: &Version,
        fetching: &dyn Progress,
    ) -> Result<bool, MachineError> {
        let is_recorded = self.record.release.version == to.as_str();
        let node = self.node().await;
        let is_other = node.as_ref().is_ok_and(|node| node.version != to.as_str());
        let former = node
            .as_ref()
            .map_or_else(|_| String::new(), |node| node.version.clone());
        if is_recorded && !is_other && node.is_ok_and(|node| node.ready) {
            return Ok(false);
        }
        if is_recorded {
            tracing::info!("k3s {to} is already installed; waiting until it is ready");
        } else {
            tracing::info!("completing an interrupted upgrade to k3s {to}");
        }
        let release = self.fetch(to, fetching).await?;
        self.timings.lap("fetch k3s", TimeSpentIn::Network);
        if is_other {
            ssh.restart_k3s().await?;
        } else {
            wake::start_k3s(&self.machine.project, self.limits()).await;
        }
        match self.wait_until_up(to, &former).await {
            Err(error) if !is_recorded => {
                return Err(UpgradeError::Stuck {
                    fell: self.failure(to, &error).await,
                    snapshot: safety_snapshot::latest(&self.machine.project, to),
                }
                .into());
            }
            result => result?,
        }
        if !is_recorded {
            self.save_release(release).await?;
        }
        Ok(true)
    }

    async fn fetch(
        &self,
        version: &Version,
        progress: &dyn Progress,
    ) -> Result<Release, MachineError> {
        assets::ensure_one(&self.machine.cache, &self.spec, version, progress).await
    }

    async fn node(&self) -> Result<Node, MachineError> {
        let api = api::client_of(&self.record)?;
        api::node(&api, &self.record.name).await
    }

    async fn require_ready(&self) -> Result<(), UpgradeError> {
        match self.node().await {
            Ok(node) if node.ready => Ok(()),
            Ok(_) => Err(UpgradeError::Unwell("it is NotReady".to_owned())),
            Err(error) => Err(UpgradeError::Unwell(with_causes(&error))),
        }
    }

    /// Saves the release that the VM has from now on.
    async fn save_release(&mut self, release: Release) -> Result<(), MachineError> {
        let first = self.record.installed_from().clone();
        self.record.first_release = (first != release).then_some(first);
        self.record.release = release;
        // Registered first, so that it cannot be pruned in between.
        references::register(self.machine, Some(&self.record)).await?;
        Ok(replacement::replace_record(
            &self.machine.project,
            &self.record,
        )?)
    }
}

fn refused(to: &Version, error: SshError) -> MachineError {
    match error {
        SshError::Failed { said, .. } => UpgradeError::NotTaken {
            to: to.clone(),
            said,
        }
        .into(),
        other => other.into(),
    }
}

/// The files of a release that are copied into the guest.
fn files_of(release: &Release) -> k3s_upgrade::Release<'_> {
    k3s_upgrade::Release {
        version: &release.version,
        binary: (&release.binary, digest_of(&release.binary)),
        images: release
            .airgap
            .as_deref()
            .map(|path| (path, digest_of(path))),
    }
}

fn digest_of(path: &Path) -> Digest {
    let folder = path.parent().and_then(Path::file_name);
    let digest = folder.and_then(|it| it.to_str()?.parse().ok());
    digest.expect("a file of a release has its digest in its path")
}
