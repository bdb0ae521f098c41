//! The kubeconfig: as k3s writes it in the guest, and as the project keeps it.
//!
//! k3s calls cluster, user and context all `default`, which hides or overwrites another's when files are merged; in the
//! project they carry the VM's name. A copy of a project has a VM of the same name, so the context says
//! whose it is, in an extension as other programs keep theirs there: kubectl leaves it alone.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};

use crate::base::{Name, yaml};

/// A kubeconfig of one cluster, one user and one context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kubeconfig {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
    contexts: Vec<NamedContext>,
    current_context: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate_data: String,
    client_key_data: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Context {
    cluster: String,
    user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    extensions: Vec<NamedExtension>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NamedExtension {
    name: String,
    extension: Extension,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Extension {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project: Option<PathBuf>,
}

/// The extension's name.
pub(crate) const OURS: &str = "k3s-vm";

/// Never the key.
impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("User(..)")
    }
}

/// The credentials of an API client, decoded: PEM texts and the address.
pub struct Credentials {
    /// `https://127.0.0.1:<port>`.
    pub server: String,
    /// The cluster's CA.
    pub authority: Vec<u8>,
    /// The administrator's certificate and key, one after the other.
    pub identity: Vec<u8>,
}

/// The reason why a text is not a usable kubeconfig.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// It is not a kubeconfig.
    #[error("invalid kubeconfig: {0}")]
    Malformed(String),
    /// A part is missing or cannot be decoded.
    #[error("its {0} is missing or damaged")]
    Damaged(&'static str),
    /// The file does not exist.
    #[error("it does not exist")]
    Missing,
    /// It belongs to another VM, or to a start before this one.
    #[error("it points to {0}, which is not this VM")]
    Elsewhere(String),
}

impl Kubeconfig {
    /// Reads YAML.
    ///
    /// # Errors
    ///
    /// [`KubeconfigError::Malformed`] for anything else than a kubeconfig with certificates inside.
    pub fn parse(yaml: &str) -> Result<Self, KubeconfigError> {
        serde_saphyr::from_str(yaml)
            .map_err(|error| KubeconfigError::Malformed(yaml::reason(&error)))
    }

    /// A kubeconfig for the host: with the forwarded port, all entries called `name`, and the project.
    ///
    /// # Errors
    ///
    /// When a part is missing.
    pub fn for_host(self, name: &Name, port: u16, project: &Path) -> Result<Self, KubeconfigError> {
        let cluster = self
            .clusters
            .into_iter()
            .next()
            .ok_or(KubeconfigError::Damaged("cluster"))?
            .cluster;
        let user = self
            .users
            .into_iter()
            .next()
            .ok_or(KubeconfigError::Damaged("user"))?
            .user;
        let name = name.to_string();
        let cluster = Cluster {
            server: server(port),
            ..cluster
        };
        let extension = Extension {
            project: Some(project.to_owned()),
        };
        let context = Context {
            cluster: name.clone(),
            user: name.clone(),
            namespace: None,
            extensions: vec![NamedExtension {
                name: OURS.to_owned(),
                extension,
            }],
        };
        Ok(Self {
            api_version: "v1".to_owned(),
            kind: "Config".to_owned(),
            clusters: vec![NamedCluster {
                name: name.clone(),
                cluster,
            }],
            users: vec![NamedUser {
                name: name.clone(),
                user,
            }],
            contexts: vec![NamedContext {
                name: name.clone(),
                context,
            }],
            current_context: name,
        })
    }

    /// The kubeconfig with that namespace in its context.
    pub(crate) fn in_namespace(mut self, namespace: Option<String>) -> Self {
        for named in &mut self.contexts {
            named.context.namespace.clone_from(&namespace);
        }
        self
    }

    /// Returns `true` when all its names are `name`, so that this program may replace and remove it.
    pub fn belongs_to(&self, name: &Name) -> bool {
        self.current_context == name.as_str()
            && self
                .clusters
                .iter()
                .all(|cluster| cluster.name == name.as_str())
    }

    /// The project of its VM, if it names one.
    pub fn project(&self) -> Option<&Path> {
        let mut extensions = self.contexts.iter().flat_map(|it| &it.context.extensions);
        let ours = extensions.find(|it| it.name == OURS)?;
        ours.extension.project.as_deref()
    }

    /// Requires that it uses that port of this host.
    ///
    /// # Errors
    ///
    /// [`KubeconfigError::Elsewhere`] tells where it leads to.
    pub fn require_port(&self, port: u16) -> Result<(), KubeconfigError> {
        match self.clusters.first() {
            None => Err(KubeconfigError::Damaged("cluster")),
            Some(it) if it.cluster.server == server(port) => Ok(()),
            Some(it) => Err(KubeconfigError::Elsewhere(it.cluster.server.clone())),
        }
    }

    /// The kubeconfig as YAML.
    ///
    /// # Errors
    ///
    /// Only where the YAML library refuses plain texts.
    pub fn to_yaml(&self) -> Result<String, KubeconfigError> {
        serde_saphyr::to_string(self).map_err(|error| KubeconfigError::Malformed(error.to_string()))
    }

    /// The private parts, for tests of other rooms.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let authorities = self.clusters.iter();
        let authorities = authorities.map(|it| it.cluster.certificate_authority_data.as_str());
        let users = self.users.iter().map(|it| &it.user);
        authorities.chain(users.flat_map(|it| {
            [
                it.client_certificate_data.as_str(),
                it.client_key_data.as_str(),
            ]
        }))
    }

    /// The credentials of an API client.
    ///
    /// # Errors
    ///
    /// [`KubeconfigError::Damaged`] names the part.
    pub fn credentials(&self) -> Result<Credentials, KubeconfigError> {
        let decode = |text: &str, what| {
            BASE64
                .decode(text.trim())
                .map_err(|_| KubeconfigError::Damaged(what))
        };
        let cluster = &self
            .clusters
            .first()
            .ok_or(KubeconfigError::Damaged("cluster"))?
            .cluster;
        let user = &self
            .users
            .first()
            .ok_or(KubeconfigError::Damaged("user"))?
            .user;
        let mut identity = decode(&user.client_certificate_data, "client certificate")?;
        identity.push(b'\n');
        identity.extend(decode(&user.client_key_data, "client key")?);
        Ok(Credentials {
            server: cluster.server.clone(),
            authority: decode(&cluster.certificate_authority_data, "certificate authority")?,
            identity,
        })
    }
}

fn server(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As written by k3s.
    const GUEST: &str = "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: Q0E=\n    \
        server: https://127.0.0.1:6443\n  name: default\ncontexts:\n- context:\n    cluster: default\n    user: default\n  \
        name: default\ncurrent-context: default\nkind: Config\npreferences: {}\nusers:\n- name: default\n  user:\n    \
        client-certificate-data: Q0VSVA==\n    client-key-data: S0VZ\n";

    fn name() -> Name {
        "k3s-shop-1a2b3c".parse().expect("sound")
    }

    #[test]
    fn the_host_uses_the_vms_name_and_port() {
        let guest = Kubeconfig::parse(GUEST).expect("sound");
        assert!(!guest.belongs_to(&name()));
        assert_eq!(guest.project(), None);
        let project = Path::new("/p/shop");
        let host = guest.for_host(&name(), 16443, project).expect("complete");
        assert!(host.belongs_to(&name()));
        assert_eq!(host.project(), Some(project));
        assert!(host.require_port(16443).is_ok());
        let other = host.require_port(6443).expect_err("another port");
        assert!(other.to_string().contains("127.0.0.1:16443"), "{other}");
        let yaml = host.to_yaml().expect("written");
        assert!(!yaml.contains("default"), "{yaml}");
        assert_eq!(Kubeconfig::parse(&yaml).expect("read"), host);
        let credentials = host.credentials().expect("decoded");
        assert_eq!(credentials.server, "https://127.0.0.1:16443");
        assert_eq!(credentials.authority, b"CA");
        assert_eq!(credentials.identity, b"CERT\nKEY");
    }

    #[test]
    fn damage_is_named_and_secrets_are_not_shown() {
        for text in [
            "",
            "{}",
            "apiVersion: v1",
            "[1]",
            "\u{0}",
            &GUEST[..GUEST.len() / 2],
        ] {
            assert!(Kubeconfig::parse(text).is_err(), "{text}");
        }
        let damaged = Kubeconfig::parse(&GUEST.replace("S0VZ", "S0V_"))
            .expect("still YAML")
            .credentials();
        assert_eq!(
            damaged.err().map(|error| error.to_string()).as_deref(),
            Some("its client key is missing or damaged")
        );
        assert!(!format!("{:?}", Kubeconfig::parse(GUEST).expect("sound")).contains("S0VZ"));
    }
}
