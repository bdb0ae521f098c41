//! The kubeconfig: written in exactly k3s's form, read in anybody's.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use crate::Failure;
use crate::certs::Certs;

/// The text of `/etc/rancher/k3s/k3s.yaml`.
pub(crate) fn render(certs: &Certs, port: u16) -> String {
    format!(
        "apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {ca}
    server: https://127.0.0.1:{port}
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
kind: Config
preferences: {{}}
users:
- name: default
  user:
    client-certificate-data: {cert}
    client-key-data: {key}
",
        ca = BASE64.encode(&certs.server_ca.cert),
        // k3s appends the authority to the client's certificate.
        cert = BASE64.encode(format!("{}{}", certs.admin.cert, certs.client_ca.cert)),
        key = BASE64.encode(&certs.admin.key),
    )
}

/// What a client needs of a kubeconfig's current context.
pub(crate) struct Access {
    /// The address of the API.
    pub(crate) server: String,
    /// The authority to trust, PEM.
    pub(crate) ca: Vec<u8>,
    /// Client certificate and key, PEM.
    pub(crate) identity: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    clusters: Vec<NamedCluster>,
    contexts: Vec<NamedContext>,
    users: Vec<NamedUser>,
    current_context: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: String,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate_data: String,
    client_key_data: String,
}

/// Reads the current context of the file at `path`.
pub(crate) fn read(path: &Path) -> Result<Access, Failure> {
    let failed = |reason: String| format!("failed to read kubeconfig {}: {reason}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let file: File = serde_saphyr::from_str(&text).map_err(|error| failed(error.to_string()))?;
    let missing = || {
        failed(format!(
            "context {:?} is not complete",
            file.current_context
        ))
    };
    let context = &file
        .contexts
        .iter()
        .find(|it| it.name == file.current_context)
        .ok_or_else(missing)?
        .context;
    let cluster = &file
        .clusters
        .iter()
        .find(|it| it.name == context.cluster)
        .ok_or_else(missing)?
        .cluster;
    let user = &file
        .users
        .iter()
        .find(|it| it.name == context.user)
        .ok_or_else(missing)?
        .user;
    let mut identity = BASE64.decode(&user.client_certificate_data)?;
    identity.extend(BASE64.decode(&user.client_key_data)?);
    Ok(Access {
        server: cluster.server.clone(),
        ca: BASE64.decode(&cluster.certificate_authority_data)?,
        identity,
    })
}
