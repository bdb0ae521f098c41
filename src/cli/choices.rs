//! The flags that can change at each start, for `setup` and `configure`.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::error::{CommandError, code};
use crate::{
    base::{
        HostAccess, K3sFlag, Mount, NodeLabel, Proxy, Size, files::expand_home, mount,
        proxy::ParseProxyError,
    },
    project::{
        Config, Project,
        config_values::{AccelChoice, MOST_CPUS, Timeout},
        idle::Idle,
        settings::{K3s, Network},
    },
};

/// The headings of the flags in `--help`.
pub(crate) mod heading {
    pub(crate) const VM: &str = "VM";
    pub(crate) const K3S: &str = "k3s";
    pub(crate) const ACCESS: &str = "Ports and files";
    pub(crate) const NETWORK: &str = "Network";
}

/// The choices that take effect at the next start.
#[derive(Debug, clap::Args)]
pub(crate) struct Choices {
    /// Number of CPUs [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(MOST_CPUS)), help_heading = heading::VM)]
    cpus: Option<u8>,
    /// Memory of the guest [default: 4GiB]
    #[arg(long, value_name = "SIZE", help_heading = heading::VM)]
    memory: Option<Size>,
    /// Size of the disk, which grows and never shrinks [default: 20GiB]
    #[arg(long, value_name = "SIZE", help_heading = heading::VM)]
    disk: Option<Size>,
    /// Accelerator: auto, kvm or tcg (emulation) [default: auto]
    #[arg(long, value_name = "ACCEL", help_heading = heading::VM, hide_short_help = true)]
    accel: Option<AccelChoice>,
    /// CPU model of QEMU, e.g. Westmere,enforce, for saved memory that fits several hosts [default: the host's]
    #[arg(long, value_name = "MODEL", help_heading = heading::VM, hide_short_help = true)]
    cpu_model: Option<String>,
    /// Suspend the VM after this time without use, e.g. 30m [default: off]
    #[arg(long, value_name = "DURATION", help_heading = heading::VM, hide_short_help = true)]
    idle_suspend: Option<Idle>,
    /// Limit until the node is Ready, e.g. 5m [default: 5m with KVM, 30m without]
    #[arg(long, value_name = "DURATION", help_heading = heading::VM, hide_short_help = true)]
    timeout: Option<Timeout>,
    /// Port of the API on 127.0.0.1 [default: 6443 or a free one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = heading::ACCESS, hide_short_help = true)]
    api_port: Option<u16>,
    /// Path of the kubeconfig [default: .kube/config or web/.kube/config of the project]
    #[arg(long, value_name = "PATH", help_heading = heading::ACCESS, hide_short_help = true)]
    kubeconfig: Option<PathBuf>,
    /// Mount a host directory in the guest, e.g. ./src:/src or ~/data:/data:ro (repeatable)
    #[arg(long, value_name = "HOST:GUEST[:ro]", help_heading = heading::ACCESS)]
    mount: Vec<Mount>,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    surroundings: Surroundings,
}

/// The table `[k3s]` of the config.
#[derive(Debug, clap::Args)]
struct Cluster {
    /// Flag of `k3s server`, e.g. --k3s-arg=--flannel-backend=host-gw (repeatable)
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true, help_heading = heading::K3S, hide_short_help = true)]
    k3s_arg: Vec<K3sFlag>,
    /// Components that k3s does not deploy, e.g. traefik,servicelb,metrics-server
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = heading::K3S, hide_short_help = true)]
    disable: Vec<String>,
    /// Label of the node, e.g. tier=dev (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',', help_heading = heading::K3S, hide_short_help = true)]
    node_label: Vec<NodeLabel>,
    /// Manifest that k3s deploys at each start, or a directory of them (repeatable)
    #[arg(long, value_name = "PATH", help_heading = heading::K3S, hide_short_help = true)]
    manifest: Vec<PathBuf>,
    /// registries.yaml for k3s; a registry on this host is 10.0.2.2 in it
    #[arg(long, value_name = "FILE", help_heading = heading::K3S, hide_short_help = true)]
    registries: Option<PathBuf>,
}

/// The table `[network]` of the config.
#[derive(Debug, clap::Args)]
struct Surroundings {
    /// Proxy for http, which may be on this host's loopback
    #[arg(long, value_name = "URL", help_heading = heading::NETWORK, hide_short_help = true)]
    http_proxy: Option<String>,
    /// Proxy for https
    #[arg(long, value_name = "URL", help_heading = heading::NETWORK, hide_short_help = true)]
    https_proxy: Option<String>,
    /// Destinations without a proxy, e.g. .corp.example,192.0.2.0/24
    #[arg(long, value_name = "LIST", help_heading = heading::NETWORK, hide_short_help = true)]
    no_proxy: Option<String>,
    /// CA certificate (PEM) that the guest and containerd trust (repeatable)
    #[arg(long, value_name = "FILE", help_heading = heading::NETWORK, hide_short_help = true)]
    ca_certificate: Vec<PathBuf>,
    /// DNS server of the guest and its pods (repeatable) [default: the host's]
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', value_parser = address, help_heading = heading::NETWORK, hide_short_help = true)]
    dns: Vec<IpAddr>,
    /// Cut the guest off from the internet and from this host; forwarded ports still work
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        help_heading = heading::NETWORK, hide_short_help = true)]
    isolated: Option<bool>,
    /// Ports of this host's loopback that the guest may reach at 10.0.2.2, e.g. 5432,6379, or all
    #[arg(long, value_name = "PORT,...", help_heading = heading::NETWORK, hide_short_help = true)]
    host_access: Option<HostAccess>,
}

impl Choices {
    /// Paths in the project are saved relative to it, so that it can be moved.
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
            isolated: surroundings.isolated,
            host_access: surroundings.host_access,
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

/// The shell does not expand a tilde in `--flag=~/x`.
fn mounts(project: &Project, mounts: Vec<Mount>) -> Result<Option<Vec<Mount>>, CommandError> {
    if let Some(mount) = mount::twice(&mounts) {
        let what = format!("--mount {mount}: another mount has that path in the guest");
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

fn address(text: &str) -> Result<IpAddr, String> {
    let parsed = text.trim().parse();
    parsed.map_err(|_| format!("invalid address {text:?}: expected e.g. 192.0.2.53"))
}

/// Parsed here and not by clap, which repeats an invalid value with the password of a URL.
fn proxy(flag: &str, url: Option<String>) -> Result<Option<Proxy>, CommandError> {
    let parsed = url.map(|url| url.parse()).transpose();
    parsed.map_err(|error: ParseProxyError| {
        CommandError::new(format!("{flag}: {error}")).with_code(code::USAGE)
    })
}

/// A list without a flag is unchanged.
fn some_of<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn in_project(project: &Project, path: &Path) -> Result<PathBuf, CommandError> {
    if path.to_str().is_none() {
        let what = format!("cannot save {path:?} to a config: it is not UTF-8");
        return Err(CommandError::new(what).with_code(code::USAGE));
    }
    std::path::absolute(expand_home(path))
        .map(|path| match project.relative(&path) {
            // The config would have it in the home directory.
            relative if relative.starts_with("~") => path,
            relative => relative.to_owned(),
        })
        .map_err(|error| {
            CommandError::new(format!("invalid path {}", path.display())).because(&error)
        })
}
