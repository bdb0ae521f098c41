//! From a started k3s to a ready node: the guest's kubeconfig, the API, the node's condition.

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    base::Name,
    guest::SshError,
    k3s::{Api, Kubeconfig},
    machine::{
        Limits, MachineError, Timings,
        access::{api, kubeconfig},
        control::{guest, wake},
        error::UpgradeError,
        model::timings::TimeSpentIn,
    },
    project::{Project, Record},
    qemu::Process,
};

const POLL: Duration = Duration::from_millis(100);

/// How long one attempt may take. A busy guest may leave a connection without an answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(45);

/// The guest's clock starts from the host's, to the second.
const CLOCK_SKEW: Duration = Duration::from_secs(2);

/// Where k3s writes the administrator's kubeconfig (its documentation, "Cluster Access").
const IN_GUEST: &str = "/etc/rancher/k3s/k3s.yaml";

/// Writes the project's kubeconfig and returns when the API is ready, the node is Ready and pods can be created.
///
/// # Errors
///
/// When QEMU ends meanwhile or time is over; the last reason is named.
pub async fn ready(
    project: &Project,
    record: &Record,
    process: &Process,
    limits: Limits,
    timings: &mut Timings,
) -> Result<(), MachineError> {
    let resumed = process.is_resumed();
    let said = until(process, limits, "the guest's kubeconfig", async || {
        guest::exec(project, &fetching(resumed)).await
    })
    .await?;
    let kubeconfig = parse(&said, project, record)?;
    kubeconfig::write(project, record, &kubeconfig)?;
    timings.lap("kubeconfig is fetched", TimeSpentIn::Guest);
    let api = api::client(&record.kubeconfig, &kubeconfig)?;
    until(process, limits, "the API", async || Ok(api.ready().await?)).await?;
    tracing::info!("API is ready");
    timings.lap("API becomes ready", TimeSpentIn::Guest);
    // A resumed guest has not booted with this QEMU.
    let booted = (!resumed).then(|| SystemTime::now() - process.uptime().unwrap_or_default());
    until(process, limits, "the node", async || {
        node_ready(&api, &record.name, booted).await
    })
    .await?;
    tracing::info!("node {} is Ready", record.name);
    timings.lap("node becomes Ready", TimeSpentIn::Guest);
    if api.default_service_account().await.is_err() {
        tracing::info!("waiting for the default service account, which every pod needs");
    }
    until(process, limits, "the default service account", async || {
        Ok(api.default_service_account().await?)
    })
    .await?;
    timings.lap("default service account is created", TimeSpentIn::Guest);
    Ok(())
}

/// How long the former k3s may still answer. systemd kills it after 90 s (DefaultTimeoutStopSec).
const FORMER_K3S: Duration = Duration::from_secs(100);

/// Returns when the node is Ready with that release, which has just replaced the `former` one.
///
/// # Errors
///
/// When k3s answers and is another release, QEMU ends meanwhile or time is over; the last reason is named.
pub(crate) async fn upgraded(
    record: &Record,
    process: &Process,
    limits: Limits,
    version: &str,
    former: &str,
) -> Result<(), MachineError> {
    let api = api::client_of(record)?;
    let swapped = Instant::now();
    until(process, limits, "the node", async || {
        let answers = api.version().await?;
        if is_another(&answers, version, former, swapped.elapsed()) {
            return Err(UpgradeError::AnotherAnswers(answers).into());
        }
        match api::node(&api, &record.name).await? {
            node if node.version != version => {
                Err(MachineError::NotYet("it still runs the previous k3s"))
            }
            node if !node.ready => Err(MachineError::NotYet("it is NotReady")),
            _ => Ok(()),
        }
    })
    .await
}

/// Returns `true` when neither the requested release answers nor the former one, which may still be ending.
fn is_another(answers: &str, asked: &str, former: &str, since: Duration) -> bool {
    answers != asked && (answers != former || since > FORMER_K3S)
}

/// Retries every [`POLL`] while QEMU runs and time is left.
async fn until<T>(
    process: &Process,
    limits: Limits,
    what: &str,
    attempt: impl AsyncFn() -> Result<T, MachineError>,
) -> Result<T, MachineError> {
    loop {
        let attempt = tokio::time::timeout(limits.left().min(ATTEMPT_TIMEOUT), attempt());
        let result = attempt.await;
        let error = match result.unwrap_or(Err(MachineError::NotYet("no answer"))) {
            Ok(value) => return Ok(value),
            Err(
                error @ (MachineError::Key { .. }
                | MachineError::Gone { .. }
                | MachineError::Upgrade(_)
                | MachineError::Ssh(SshError::WrongHostKey { .. })),
            ) => {
                return Err(error);
            }
            Err(error) => error,
        };
        tracing::debug!(%error, "{what} is not there yet");
        if !process.is_alive() {
            return Err(MachineError::QemuEnded {
                during: what.to_owned(),
            });
        }
        limits.check(&format_args!("{what} ({error})"))?;
        tokio::time::sleep(POLL).await;
    }
}

/// k3s writes the file before it reports its start. The same request wakes a resumed guest.
fn fetching(resumed: bool) -> String {
    if resumed {
        let (waking, renewing) = (wake::waking(), wake::renewing(IN_GUEST));
        format!("{waking}; ({renewing}) && cat {IN_GUEST}")
    } else {
        format!("cat {IN_GUEST}")
    }
}

fn parse(said: &[u8], project: &Project, record: &Record) -> Result<Kubeconfig, MachineError> {
    let unusable = |source| MachineError::Kubeconfig {
        path: PathBuf::from(format!("the guest's {IN_GUEST}")),
        source,
    };
    let guest = Kubeconfig::parse(&String::from_utf8_lossy(said)).map_err(unusable)?;
    guest
        .for_host(&record.name, record.api_port, &project.place())
        .map_err(unusable)
}

/// Requires that the node is Ready. Its status from before this boot does not count: the API remembers it as Ready
/// until it misses its heartbeats.
async fn node_ready(
    api: &Api,
    name: &Name,
    booted: Option<SystemTime>,
) -> Result<(), MachineError> {
    match api::node(api, name).await? {
        node if !node.ready => Err(MachineError::NotYet("it is NotReady")),
        node if is_silent(node.heard, booted) => {
            Err(MachineError::NotYet("no heartbeat since the boot"))
        }
        _ => Ok(()),
    }
}

fn is_silent(heard: Option<SystemTime>, since: Option<SystemTime>) -> bool {
    matches!((heard, since), (Some(heard), Some(since)) if heard + CLOCK_SKEW < since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_release_fails_at_once() {
        let [soon, late] = [1, 101].map(Duration::from_secs);
        let another = |answers, since| is_another(answers, "v1.34.1+k3s1", "v1.33.5+k3s1", since);
        assert!(!another("v1.34.1+k3s1", soon) && !another("v1.34.1+k3s1", late));
        assert!(!another("v1.33.5+k3s1", soon) && another("v1.33.5+k3s1", late));
        assert!(another("v1.34.1-rc1+k3s1", soon));
    }
}
