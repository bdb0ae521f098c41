//! The flags of what may change from one start to the next, for `setup` and `configure`.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::error::{CommandError, code};
use crate::{
    base::{
        K3sFlag, Mount, NodeLabel, Proxy, Size, files::expand_home, mount, proxy::ParseProxyError,
    },
    project::{
        Config, Project,
        config::{AccelChoice, MOST_CPUS, Timeout},
        idle::Idle,
        settings::{K3s, Network},
    },
};

/// What a machine may have otherwise at its next start.
#[derive(Debug, clap::Args)]
pub(crate) struct Choices {
    /// Virtual CPUs [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(MOST_CPUS)))]
    cpus: Option<u8>,
    /// The guest's memory, like 4GiB [default: 4GiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// The disk's size; it takes only what is written to it, grows and never shrinks [default: 20GiB]
    #[arg(long, value_name = "SIZE")]
    disk: Option<Size>,
    /// The API's port on 127.0.0.1 [default: 6443 or a free one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    api_port: Option<u16>,
    /// How the guest runs: auto, kvm or tcg (emulation) [default: auto]
    #[arg(long, value_name = "HOW")]
    accel: Option<AccelChoice>,
    /// The processor's model, one of `qemu-system-x86_64 -cpu help`, with features like Westmere,enforce: saved memory is
    /// of use on all hosts of one vendor that have it [default: all that the host's processor can do]
    #[arg(long, value_name = "MODEL")]
    cpu_model: Option<String>,
    /// Where to write the kubeconfig [default: web/.kube/config or .kube/config of the project]
    #[arg(long, value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
    /// How long the start may take, like 5m [default: 5m with KVM, 30m without]
    #[arg(long, value_name = "DUR")]
    timeout: Option<Timeout>,
    /// Keep the guest from the network and from the host; false undoes it. Without it, pods can pull images from the
    /// internet, and the guest reaches what listens on this host's loopback, too (as 10.0.2.2)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    isolated: Option<bool>,
    /// Suspend the machine when nobody has talked to it for so long, like 30m; off undoes it [default: off]
    #[arg(long, value_name = "DUR")]
    idle_suspend: Option<Idle>,
    /// A folder of this host in the guest, like ./src:/src, or ~/data:/data:ro if the guest is only to read it; may be said
    /// more than once. A machine with such folders cannot be suspended
    #[arg(long, value_name = "HOST:GUEST[:ro]")]
    mount: Vec<Mount>,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    surroundings: Surroundings,
}

/// The table `[k3s]` of the config.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "k3s")]
struct Cluster {
    /// A flag of `k3s server`, like --k3s-arg=--flannel-backend=host-gw; may be said more than once
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    k3s_arg: Vec<K3sFlag>,
    /// Packaged components that are not deployed, like traefik,servicelb,metrics-server
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    disable: Vec<String>,
    /// A label of the node, like tier=dev; may be said more than once
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',')]
    node_label: Vec<NodeLabel>,
    /// A manifest, or a folder of them, that k3s deploys at its start; may be said more than once
    #[arg(long, value_name = "PATH")]
    manifest: Vec<PathBuf>,
    /// k3s's registries.yaml: mirrors and logins of registries. A registry on this host is 10.0.2.2 to the guest
    #[arg(long, value_name = "FILE")]
    registries: Option<PathBuf>,
}

/// The table `[network]` of the config.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "The guest's network")]
struct Surroundings {
    /// The proxy for http of k3s and containerd; one on this host's loopback is found from the guest, too
    #[arg(long, value_name = "URL")]
    http_proxy: Option<String>,
    /// The proxy for https
    #[arg(long, value_name = "URL")]
    https_proxy: Option<String>,
    /// What is reached without a proxy, besides the cluster itself, like .corp.example,192.0.2.0/24
    #[arg(long, value_name = "LIST")]
    no_proxy: Option<String>,
    /// A certificate (PEM) that the guest and containerd are to trust; may be said more than once
    #[arg(long, value_name = "FILE")]
    ca_certificate: Vec<PathBuf>,
    /// A name server for the guest and its pods; may be said more than once [default: the host's]
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    dns: Vec<IpAddr>,
}

impl Choices {
    /// What is of the project is saved relative to it, so that it holds where the project is moved to.
    pub(crate) fn into_config(self, project: &Project) -> Result<Config, CommandError> {
        let path = |path: PathBuf| in_project(project, &path);
        let paths = |paths: Vec<PathBuf>| {
            let all = paths.into_iter().map(path).collect::<Result<Vec<_>, _>>();
            all.map(some_of)
        };
        let (cluster, surroundings) = (self.cluster, self.surroundings);
        Ok(Config {
            cpus: self.cpus,
            memory: self.memory,
            disk: self.disk,
            api_port: self.api_port,
            accel: self.accel,
            cpu_model: self.cpu_model,
            kubeconfig: self.kubeconfig.map(path).transpose()?,
            timeout: self.timeout,
            isolated: self.isolated,
            idle_suspend: self.idle_suspend,
            mounts: mounts(project, self.mount)?,
            k3s: K3s {
                args: some_of(cluster.k3s_arg),
                disable: some_of(cluster.disable),
                labels: some_of(cluster.node_label),
                manifests: paths(cluster.manifest)?,
                registries: cluster.registries.map(path).transpose()?,
            },
            network: Network {
                http_proxy: proxy("--http-proxy", surroundings.http_proxy)?,
                https_proxy: proxy("--https-proxy", surroundings.https_proxy)?,
                no_proxy: surroundings.no_proxy,
                ca: paths(surroundings.ca_certificate)?,
                dns: some_of(surroundings.dns),
            },
            ..Config::default()
        })
    }
}

/// A tilde that the shell has left stays.
fn mounts(project: &Project, mounts: Vec<Mount>) -> Result<Option<Vec<Mount>>, CommandError> {
    if let Some(mount) = mount::twice(&mounts) {
        let what = format!("--mount {mount}: it is the second one in that place");
        return Err(CommandError::new(what).with_code(code::USAGE));
    }
    let all = mounts.into_iter().map(|mount| {
        if mount.host.starts_with('~') {
            return Ok(mount);
        }
        let path = in_project(project, Path::new(&mount.host))?;
        let host = if path.is_absolute() || path.starts_with("..") {
            path.to_string_lossy().into_owned()
        } else {
            format!("./{}", path.display())
        };
        Ok(Mount { host, ..mount })
    });
    let all = all.collect::<Result<Vec<_>, _>>();
    all.map(some_of)
}

/// Not a matter for clap, which repeats a wrong value with the password that a URL may have.
fn proxy(flag: &str, url: Option<String>) -> Result<Option<Proxy>, CommandError> {
    let parsed = url.map(|url| url.parse()).transpose();
    parsed.map_err(|error: ParseProxyError| {
        CommandError::new(format!("{flag}: {error}")).with_code(code::USAGE)
    })
}

/// A list that nothing was said of is left as it is.
fn some_of<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn in_project(project: &Project, path: &Path) -> Result<PathBuf, CommandError> {
    if path.to_str().is_none() {
        let what = format!("{path:?} is no path for a config: it is not UTF-8");
        return Err(CommandError::new(what).with_code(code::USAGE));
    }
    std::path::absolute(expand_home(path))
        .map(|path| match project.relative(&path) {
            // The config would have it in the home directory.
            relative if relative.starts_with("~") => path,
            relative => relative.to_owned(),
        })
        .map_err(|error| {
            CommandError::new(format!("{} is no path", path.display())).because(&error)
        })
}
