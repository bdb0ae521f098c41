//! From a started k3s to a ready node: the guest's kubeconfig, the API's own word, the node's condition.

use std::{
    env,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{Limits, MachineError, Timings, kubeconfig, state, timings::Whose};
use crate::{
    base::{
        Name,
        files::{self, PRIVATE},
    },
    cluster::{Api, Kubeconfig},
    guest::{Ssh, SshError},
    project::{Project, Record},
    qemu::Process,
};

const POLL: Duration = Duration::from_millis(100);
/// The guest's clock starts from the host's, to the second.
const CLOCK_SKEW: Duration = Duration::from_secs(2);
/// Where k3s writes the administrator's kubeconfig (its documentation, "Cluster Access").
const IN_GUEST: &str = "/etc/rancher/k3s/k3s.yaml";

/// Writes the project's kubeconfig and returns when the API is ready, the node is Ready and pods can be made.
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
    let ssh = until(process, limits, "the guest's sshd", async || {
        state::connect(project).await
    })
    .await?;
    timings.end_of("sshd answers", Whose::Guest);
    let kubeconfig = fetch(ssh, project, record).await?;
    write(project, record, &kubeconfig)?;
    timings.end_of("kubeconfig is fetched", Whose::Own);
    let api = client(&record.kubeconfig, &kubeconfig)?;
    until(process, limits, "the API", async || Ok(api.ready().await?)).await?;
    tracing::info!("API is ready");
    timings.end_of("API becomes ready", Whose::Guest);
    let booted = SystemTime::now() - process.uptime().unwrap_or_default();
    until(process, limits, "the node", async || {
        node_ready(&api, &record.name, booted).await
    })
    .await?;
    tracing::info!("node {} is Ready", record.name);
    until(process, limits, "the default service account", async || {
        Ok(api.default_service_account().await?)
    })
    .await?;
    timings.end_of("node becomes Ready", Whose::Guest);
    Ok(())
}

/// Tries again every [`POLL`] while QEMU lives and time is left.
async fn until<T>(
    process: &Process,
    limits: Limits,
    what: &str,
    attempt: impl AsyncFn() -> Result<T, MachineError>,
) -> Result<T, MachineError> {
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(
                error @ (MachineError::Key { .. }
                | MachineError::Gone { .. }
                | MachineError::Ssh(SshError::WrongHostKey { .. })),
            ) => {
                return Err(error);
            }
            Err(error) => error,
        };
        tracing::debug!(%error, "{what} is not there yet");
        if !process.is_alive() {
            return Err(MachineError::Died {
                during: what.to_owned(),
            });
        }
        limits.check(&format_args!("{what} ({error})"))?;
        tokio::time::sleep(POLL).await;
    }
}

/// k3s has written the file before it says that it started.
async fn fetch(ssh: Ssh, project: &Project, record: &Record) -> Result<Kubeconfig, MachineError> {
    let yaml = ssh.output(&format!("cat {IN_GUEST}")).await?;
    ssh.close().await;
    let unusable = |source| MachineError::Kubeconfig {
        path: PathBuf::from(format!("the guest's {IN_GUEST}")),
        source,
    };
    let guest = Kubeconfig::parse(&String::from_utf8_lossy(&yaml)).map_err(unusable)?;
    guest
        .for_host(&record.name, record.api_port, project.root())
        .map_err(unusable)
}

/// What the node said before this boot does not count: the API remembers it as Ready until it misses its heartbeats.
async fn node_ready(api: &Api, name: &Name, booted: SystemTime) -> Result<(), MachineError> {
    let nodes = api.nodes().await?;
    let node = nodes.iter().find(|node| node.name == name.as_str());
    match node {
        None => Err(MachineError::NotYet("it has not registered")),
        Some(node) if !node.ready => Err(MachineError::NotYet("it is NotReady")),
        Some(node) if node.heard.is_some_and(|heard| heard + CLOCK_SKEW < booted) => Err(
            MachineError::NotYet("it has not been heard of since the boot"),
        ),
        Some(_) => Ok(()),
    }
}

fn client(path: &Path, kubeconfig: &Kubeconfig) -> Result<Api, MachineError> {
    let unusable = |source| MachineError::Kubeconfig {
        path: path.to_owned(),
        source,
    };
    Ok(Api::new(&kubeconfig.credentials().map_err(unusable)?)?)
}

/// A client by the machine's kubeconfig.
///
/// # Errors
///
/// Those of [`kubeconfig::of`].
pub fn client_of(record: &Record) -> Result<Api, MachineError> {
    client(&record.kubeconfig, &kubeconfig::of(record)?)
}

/// Whether the kubeconfig may be written to `path`: it is free or ours, and not the user's own.
///
/// # Errors
///
/// [`MachineError::OwnKubeconfig`], [`MachineError::ForeignKubeconfig`] and [`MachineError::TakenKubeconfig`].
pub fn check_place(project: &Project, path: &Path, name: &Name) -> Result<(), MachineError> {
    if env::home_dir().is_some_and(|home| same_place(&home.join(".kube/config"), path)) {
        return Err(MachineError::OwnKubeconfig(path.to_owned()));
    }
    let foreign = || MachineError::ForeignKubeconfig {
        path: path.to_owned(),
        name: name.clone(),
    };
    match files::read_if_exists(path)? {
        None => Ok(()),
        Some(text) if text.trim().is_empty() => Ok(()),
        Some(text) => match Kubeconfig::parse(&text) {
            Ok(kubeconfig) if kubeconfig.belongs_to(name) => {
                kubeconfig::check_owner(project, path, kubeconfig.project())
            }
            _ => Err(foreign()),
        },
    }
}

/// Whether both are the same name in the same directory, by whatever links it is come to.
fn same_place(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| {
        let directory = path.parent()?.canonicalize().ok()?;
        Some(directory.join(path.file_name()?))
    };
    one == other || place(one).is_some_and(|one| place(other) == Some(one))
}

/// Writes the kubeconfig where the record says.
///
/// # Errors
///
/// Those of [`check_place`], and when it cannot be written.
pub fn write(
    project: &Project,
    record: &Record,
    kubeconfig: &Kubeconfig,
) -> Result<(), MachineError> {
    let path = record.kubeconfig.as_path();
    check_place(project, path, &record.name)?;
    let unusable = |source| MachineError::Kubeconfig {
        path: path.to_owned(),
        source,
    };
    let yaml = kubeconfig.to_yaml().map_err(unusable)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    files::create_private_dir(directory)?;
    let ignore = directory.join(".gitignore");
    if directory.file_name().is_some_and(|name| name == ".kube") && !ignore.exists() {
        files::write(&ignore, b"*\n", PRIVATE)?;
    }
    Ok(files::write(path, yaml.as_bytes(), PRIVATE)?)
}

/// Removes the project's kubeconfig if it is the machine's; what else lies there stays.
///
/// # Errors
///
/// When it cannot be removed.
pub fn remove(project: &Project, path: &Path, name: &Name) -> Result<(), MachineError> {
    if check_place(project, path, name).is_err() {
        return Ok(());
    }
    files::remove_if_exists(path)?;
    if let Some(directory) = path
        .parent()
        .filter(|directory| directory.ends_with(".kube"))
    {
        let ignore = directory.join(".gitignore");
        let only_ours = std::fs::read_dir(directory).is_ok_and(|entries| {
            entries
                .flatten()
                .all(|entry| entry.path() == ignore || entry.file_name() == "cache")
        });
        if only_ours && std::fs::read(&ignore).is_ok_and(|text| text == b"*\n") {
            files::remove_if_exists(&ignore)?;
            let _ = std::fs::remove_dir(directory);
        }
    }
    Ok(())
}
