//! The steps of an upgrade, in their order.

use std::{path::Path, sync::Arc};

use crate::{
    base::{Digest, Progress, SnapshotName},
    guest::{Ssh, SshError, k3s_upgrade},
    k3s::{
        Node,
        release::Version,
        version_skew::{Step, check},
    },
    machine::{
        Machine, MachineError, Spec, Timings,
        access::api,
        cache::{assets, references},
        control::{guest, wake},
        error::{UpgradeError, machine::with_causes},
        lifecycle::setup::Summary,
        model::timings::TimeSpentIn,
        recover::{interrupted, replacement, running::Running},
        upgrade::safety_snapshot::{self, SafetySnapshot},
    },
    project::{Config, Record, record::Release, user},
    qemu::{Accelerator, Process},
};

/// What is asked for.
#[derive(Debug, Clone)]
pub enum Target {
    /// A release.
    Version(Version),
    /// What this channel of k3s names.
    Channel(String),
}

/// What came of it.
#[derive(Debug)]
pub struct Upgraded {
    /// The VM.
    pub summary: Summary,
    /// What it had, as far as was known.
    pub from: String,
    /// What it has.
    pub to: Version,
    /// What it was before, if that was another VM.
    pub snapshot: Option<SnapshotName>,
}

/// A VM that runs, and what it is to have.
pub(crate) struct Upgrade<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) spec: Spec,
    pub(crate) record: Record,
    pub(crate) process: Process,
    pub(crate) accelerator: Accelerator,
    pub(crate) timings: Timings,
}

/// Has the VM run another release of k3s, which is fetched before anything is changed.
///
/// # Errors
///
/// When that release may not follow the installed one, cannot be fetched, or does not become ready; the VM is what it was
/// then.
pub async fn upgrade(
    machine: &Machine,
    target: &Target,
    flags: Config,
    fetching: &dyn Progress,
    copying: &Arc<dyn Progress>,
) -> Result<Upgraded, MachineError> {
    let project = &machine.project;
    let mut timings = Timings::start();
    let (record, process) = interrupted::recover(machine).await?.running(project)?;
    if !record.provisioned {
        return Err(MachineError::NothingToKeep(record.name));
    }
    // What it fetches is not known to be needed before it is in the guest; until then nothing may be pruned.
    references::register(machine, Some(&record)).await?;
    let config = flags.over(user::trusted(project)?);
    let spec = Spec::resolve(&config, Some(&record), project)?;
    let ssh = guest::connect(project).await?;
    let said = ssh.k3s_version().await?;
    let from: Version = said.parse().map_err(|_| UpgradeError::Unknown(said))?;
    let to = match target {
        Target::Version(version) => version.clone(),
        Target::Channel(channel) => assets::newest(channel).await?,
    };
    let check = check(&from, &to).map_err(UpgradeError::from)?;
    let running = Running::look(machine).await?;
    timings.lap("look at the VM", TimeSpentIn::Own);
    let mut upgrade = Upgrade {
        machine,
        spec,
        record,
        process,
        accelerator: running.accelerator,
        timings,
    };
    let known = upgrade.record.release.version.clone();
    let (nothing_to_do, from, snapshot) = match check {
        Step::None => {
            let finished = upgrade.finish(&ssh, &to, fetching).await?;
            let kept = (known != to.as_str()).then(|| safety_snapshot::latest(project, &to));
            (!finished, known, kept.flatten())
        }
        Step::Up => {
            let kept = upgrade.step_up(&from, &to, fetching, copying).await?;
            (false, from.to_string(), Some(kept))
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

impl Upgrade<'_> {
    /// From the one release to the other, or not at all; what the VM was is kept under the name that this gives.
    async fn step_up(
        &mut self,
        from: &Version,
        to: &Version,
        fetching: &dyn Progress,
        copying: &Arc<dyn Progress>,
    ) -> Result<SnapshotName, MachineError> {
        let project = &self.machine.project;
        let release = self.fetched(to, fetching).await?;
        let not_noted = from.as_str() != self.record.release.version;
        let noted = match not_noted {
            true => Some(self.fetched(from, fetching).await?),
            false => None,
        };
        self.timings.lap("fetch k3s", TimeSpentIn::Network);
        self.require_ready().await?;
        if let Some(there) = noted {
            self.note(there).await?;
        }
        let mut kept = SafetySnapshot::create(self.machine, to).await?;
        self.timings.lap("the VM is kept", TimeSpentIn::Own);
        let ssh = guest::connect(project).await?;
        let files = files_of(&release);
        ssh.stage_k3s(&files, copying).await?;
        ssh.verify_k3s(&files)
            .await
            .map_err(|error| not_taken(to, error))?;
        self.timings
            .lap("k3s is copied into the guest", TimeSpentIn::Own);
        tracing::info!("replacing k3s {from} by {to}");
        kept.stays();
        let up = async {
            ssh.swap_k3s().await?;
            ssh.close().await;
            self.comes_up(to, from.as_str()).await
        };
        if let Err(error) = up.await {
            return Err(self.undo(kept, from, to, &error).await.into());
        }
        self.note(release).await?;
        Ok(kept.name.clone())
    }

    /// The release is in the guest already; whether there was something to finish.
    async fn finish(
        &mut self,
        ssh: &Ssh,
        to: &Version,
        fetching: &dyn Progress,
    ) -> Result<bool, MachineError> {
        let is_noted = self.record.release.version == to.as_str();
        let node = self.node().await;
        let is_other = node.as_ref().is_ok_and(|it| it.version != to.as_str());
        let former = node
            .as_ref()
            .map_or_else(|_| String::new(), |it| it.version.clone());
        if is_noted && !is_other && node.is_ok_and(|it| it.ready) {
            return Ok(false);
        }
        if is_noted {
            tracing::info!("k3s {to} is already installed; waiting until it is ready");
        } else {
            tracing::info!("completing an interrupted upgrade to k3s {to}");
        }
        let release = self.fetched(to, fetching).await?;
        self.timings.lap("fetch k3s", TimeSpentIn::Network);
        if is_other {
            ssh.restart_k3s().await?;
        } else {
            wake::start_k3s(&self.machine.project, self.limits()).await;
        }
        match self.comes_up(to, &former).await {
            Err(error) if !is_noted => {
                return Err(UpgradeError::Stuck {
                    fell: self.fell(to, &error).await,
                    snapshot: safety_snapshot::latest(&self.machine.project, to),
                }
                .into());
            }
            result => result?,
        }
        if !is_noted {
            self.note(release).await?;
        }
        Ok(true)
    }

    async fn fetched(
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

    /// What the VM has from now on, for every later command.
    async fn note(&mut self, release: Release) -> Result<(), MachineError> {
        let first = self.record.installed_from().clone();
        self.record.first_release = (first != release).then_some(first);
        self.record.release = release;
        // Before the VM is known to need it, so that it cannot be pruned in between.
        references::register(self.machine, Some(&self.record)).await?;
        Ok(replacement::replace_record(
            &self.machine.project,
            &self.record,
        )?)
    }
}

fn not_taken(to: &Version, error: SshError) -> MachineError {
    match error {
        SshError::Failed { said, .. } => UpgradeError::NotTaken {
            to: to.clone(),
            said,
        }
        .into(),
        other => other.into(),
    }
}

/// As the guest is to get them.
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
    digest.expect("a release's file lies in the cache under its digest")
}
