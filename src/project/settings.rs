//! The tables `[k3s]` and `[network]` of the config, which the guest receives at its start.

use std::{net::IpAddr, path::PathBuf};

use serde::Deserialize;
use toml_edit::Value;

use crate::base::{K3sFlag, NodeLabel, Proxy};

/// The table `[k3s]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct K3s {
    /// Flags of `k3s server`.
    pub args: Option<Vec<K3sFlag>>,
    /// Packaged components that are not deployed, like `traefik`.
    pub disable: Option<Vec<String>>,
    /// Labels of the node.
    pub labels: Option<Vec<NodeLabel>>,
    /// Files and directories with manifests that k3s deploys.
    pub manifests: Option<Vec<PathBuf>>,
    /// k3s's registries.yaml: mirrors and logins of registries.
    pub registries: Option<PathBuf>,
}

/// The table `[network]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The proxy for http, for k3s, containerd and logins.
    pub http_proxy: Option<Proxy>,
    /// The proxy for https.
    pub https_proxy: Option<Proxy>,
    /// The hosts that are reached without a proxy, besides the cluster itself.
    pub no_proxy: Option<String>,
    /// Certificates (PEM) that the guest trusts.
    pub ca: Option<Vec<PathBuf>>,
    /// DNS servers instead of the host's.
    pub dns: Option<Vec<IpAddr>>,
}

/// A key of the config and its value.
pub(super) type Entry = (&'static str, Option<Value>);

impl K3s {
    /// The choices of `self`, completed by those of `under`.
    #[must_use]
    pub(super) fn over(self, under: Self) -> Self {
        Self {
            args: self.args.or(under.args),
            disable: self.disable.or(under.disable),
            labels: self.labels.or(under.labels),
            manifests: self.manifests.or(under.manifests),
            registries: self.registries.or(under.registries),
        }
    }

    pub(super) fn entries(&self) -> [Entry; 5] {
        [
            ("k3s.args", list(self.args.as_deref())),
            ("k3s.disable", list(self.disable.as_deref())),
            ("k3s.labels", list(self.labels.as_deref())),
            ("k3s.manifests", paths(self.manifests.as_deref())),
            (
                "k3s.registries",
                self.registries
                    .as_ref()
                    .map(|path| path.to_string_lossy().into_owned().into()),
            ),
        ]
    }
}

impl Network {
    /// The choices of `self`, completed by those of `under`.
    #[must_use]
    pub(super) fn over(self, under: Self) -> Self {
        Self {
            http_proxy: self.http_proxy.or(under.http_proxy),
            https_proxy: self.https_proxy.or(under.https_proxy),
            no_proxy: self.no_proxy.or(under.no_proxy),
            ca: self.ca.or(under.ca),
            dns: self.dns.or(under.dns),
        }
    }

    pub(super) fn entries(&self) -> [Entry; 5] {
        let proxy = |proxy: &Option<Proxy>| proxy.clone().map(|it| String::from(it).into());
        [
            ("network.http_proxy", proxy(&self.http_proxy)),
            ("network.https_proxy", proxy(&self.https_proxy)),
            ("network.no_proxy", self.no_proxy.clone().map(Value::from)),
            ("network.ca", paths(self.ca.as_deref())),
            ("network.dns", list(self.dns.as_deref())),
        ]
    }
}

pub(super) fn list<T: ToString>(values: Option<&[T]>) -> Option<Value> {
    values.map(|values| values.iter().map(ToString::to_string).collect())
}

fn paths(paths: Option<&[PathBuf]>) -> Option<Value> {
    paths.map(|paths| {
        paths
            .iter()
            .map(|it| it.to_string_lossy().into_owned())
            .collect()
    })
}
