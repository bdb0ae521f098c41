//! The Kubernetes API, as far as readiness and the node list need it. The cluster's CA is always verified.

use std::time::{Duration, SystemTime};

use reqwest::{
    Certificate, Client, Identity, StatusCode,
    header::{DATE, HeaderMap},
};
use serde::Deserialize;

use crate::{
    base::tls,
    k3s::{KubeconfigError, kubeconfig::Credentials},
};

/// How long one request may take; an emulated guest answers slowly while it starts.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How far the guest's clock may be from the host's; an answer tells whole seconds and takes its time.
const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// The longest answer that is read. A list of one node has some KiB.
const LONGEST_BODY: usize = 4 << 20;

/// A client of one cluster's API.
#[derive(Debug, Clone)]
pub struct Api {
    server: String,
    client: Client,
}

/// The reason why the API is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The kubeconfig has no usable certificates.
    #[error("the kubeconfig's certificates are not usable: {0}")]
    Certificates(String),
    /// No answer, or an answer without the cluster's certificate.
    #[error("{server} does not answer: {reason}")]
    Unreachable {
        /// The API's address.
        server: String,
        /// The innermost reason.
        reason: String,
    },
    /// The answer is not a success.
    #[error("{path} answers {status}")]
    Status {
        /// The path of the request.
        path: String,
        /// The HTTP status.
        status: StatusCode,
    },
    /// The guest was paused, or the host slept: its reports of the nodes' health are of another time.
    #[error("the guest's clock is {} {direction} the host's", humantime::format_duration(*.by))]
    Clock {
        /// The approximate difference.
        by: Duration,
        /// "behind" or "ahead of".
        direction: &'static str,
    },
}

/// A node as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The node's `Ready` condition is true.
    pub ready: bool,
    /// The time of the kubelet's last report, by the guest's clock; the API keeps an old status through a reboot.
    pub heard: Option<SystemTime>,
    /// The kubelet's version, which is k3s's.
    pub version: String,
    /// Its address in the guest's network.
    pub address: Option<String>,
}

/// A Service, as far as its ports go.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Service {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its ports.
    #[serde(default)]
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Its name, if there are several.
    pub name: Option<String>,
    /// Its number.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    #[serde(default = "tcp")]
    pub protocol: String,
    /// The port of every node that forwards to it.
    pub node_port: Option<u16>,
}

fn tcp() -> String {
    "TCP".to_owned()
}

#[derive(Debug, Deserialize)]
struct ServiceObject {
    spec: Service,
}

#[derive(Debug, Deserialize)]
struct NodeList {
    items: Vec<NodeObject>,
}

#[derive(Debug, Deserialize)]
struct NodeObject {
    metadata: Metadata,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeStatus {
    conditions: Vec<Condition>,
    addresses: Vec<Address>,
    node_info: NodeInfo,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    last_heartbeat_time: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeInfo {
    kubelet_version: String,
}

impl Api {
    /// A client with the kubeconfig's certificates, and no others: no proxy, no system roots.
    ///
    /// # Errors
    ///
    /// [`ApiError::Certificates`] when they are not certificates.
    pub fn new(credentials: &Credentials) -> Result<Self, ApiError> {
        tls::provide();
        let unusable = |error: reqwest::Error| ApiError::Certificates(innermost(&error));
        let client = Client::builder()
            .tls_certs_only([Certificate::from_pem(&credentials.authority).map_err(unusable)?])
            .identity(Identity::from_pem(&credentials.identity).map_err(unusable)?)
            .no_proxy()
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(unusable)?;
        Ok(Self {
            server: credentials.server.clone(),
            client,
        })
    }

    /// Requires that `/readyz` says ok.
    ///
    /// # Errors
    ///
    /// When it answers otherwise.
    pub async fn ready(&self) -> Result<(), ApiError> {
        self.get("/readyz").await.map(drop)
    }

    /// The release that answers, as `/version` names it.
    ///
    /// # Errors
    ///
    /// When the API does not answer with one.
    pub async fn version(&self) -> Result<String, ApiError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct VersionInfo {
            git_version: String,
        }
        let response = self.get("/version").await?;
        let json = self.body(response).await?;
        let info: VersionInfo =
            serde_json::from_slice(&json).map_err(|error| ApiError::Unreachable {
                server: self.server.clone(),
                reason: error.to_string(),
            })?;
        Ok(info.git_version)
    }

    /// All nodes.
    ///
    /// # Errors
    ///
    /// When the API does not answer with a node list.
    pub async fn nodes(&self) -> Result<Vec<Node>, ApiError> {
        let response = self.get("/api/v1/nodes").await?;
        let json = self.body(response).await?;
        parse_nodes(&json).map_err(|error| ApiError::Unreachable {
            server: self.server.clone(),
            reason: error.to_string(),
        })
    }

    /// Requires that the default service account exists, without which pods are refused.
    ///
    /// # Errors
    ///
    /// When the API does not answer with success.
    pub async fn default_service_account(&self) -> Result<(), ApiError> {
        self.get("/api/v1/namespaces/default/serviceaccounts/default")
            .await
            .map(drop)
    }

    /// The Service of that name, if it exists.
    ///
    /// # Errors
    ///
    /// When the API does not answer with one.
    pub async fn service(&self, namespace: &str, name: &str) -> Result<Option<Service>, ApiError> {
        let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
        let response = match self.get(&path).await {
            Err(ApiError::Status { status, .. }) if status == StatusCode::NOT_FOUND => {
                return Ok(None);
            }
            other => other?,
        };
        let json = self.body(response).await?;
        let object: ServiceObject =
            serde_json::from_slice(&json).map_err(|error| ApiError::Unreachable {
                server: self.server.clone(),
                reason: error.to_string(),
            })?;
        Ok(Some(object.spec))
    }

    async fn get(&self, path: &str) -> Result<reqwest::Response, ApiError> {
        let request = self
            .client
            .get(format!("{}{path}", self.server))
            .header("accept", "application/json");
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        right_clock(response.headers(), SystemTime::now())?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(ApiError::Status {
                path: path.to_owned(),
                status,
            }),
        }
    }

    /// The whole answer, up to a limit: the guest may send an endless one.
    async fn body(&self, mut response: reqwest::Response) -> Result<Vec<u8>, ApiError> {
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.unreachable(&error))?
        {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST_BODY {
                return Err(ApiError::Unreachable {
                    server: self.server.clone(),
                    reason: format!("its answer is longer than {} MiB", LONGEST_BODY >> 20),
                });
            }
        }
        Ok(body)
    }

    fn unreachable(&self, error: &reqwest::Error) -> ApiError {
        let reason = if error.is_timeout() {
            "no answer in time".to_owned()
        } else {
            innermost(error)
        };
        ApiError::Unreachable {
            server: self.server.clone(),
            reason,
        }
    }
}

/// Reads the API's list of nodes.
///
/// # Errors
///
/// When the text is something else.
pub fn parse_nodes(json: &[u8]) -> Result<Vec<Node>, serde_json::Error> {
    let list: NodeList = serde_json::from_slice(json)?;
    Ok(list.items.into_iter().map(Node::from).collect())
}

impl From<KubeconfigError> for ApiError {
    fn from(error: KubeconfigError) -> Self {
        Self::Certificates(error.to_string())
    }
}

impl From<NodeObject> for Node {
    fn from(object: NodeObject) -> Self {
        let NodeStatus {
            conditions,
            addresses,
            node_info,
        } = object.status;
        let ready = conditions
            .into_iter()
            .find(|condition| condition.kind == "Ready");
        Self {
            name: object.metadata.name,
            ready: ready
                .as_ref()
                .is_some_and(|condition| condition.status == "True"),
            heard: ready.and_then(|condition| {
                humantime::parse_rfc3339(&condition.last_heartbeat_time?).ok()
            }),
            version: node_info.kubelet_version,
            address: addresses
                .into_iter()
                .find(|it| it.kind == "InternalIP")
                .map(|it| it.address),
        }
    }
}

/// Requires that the guest's clock, which dates its answers (RFC 9110, 6.6.1), is right.
fn right_clock(headers: &HeaderMap, now: SystemTime) -> Result<(), ApiError> {
    let Some(date) = headers
        .get(DATE)
        .and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok())
    else {
        return Ok(());
    };
    let (by, direction) = match now.duration_since(date) {
        Ok(by) => (by, "behind"),
        Err(ahead) => (ahead.duration(), "ahead of"),
    };
    if by <= CLOCK_SKEW {
        return Ok(());
    }
    let by = match by.as_secs() {
        seconds @ ..60 => seconds,
        seconds => (seconds + 30) / 60 * 60,
    };
    Err(ApiError::Clock {
        by: Duration::from_secs(by),
        direction,
    })
}

/// reqwest's own message says what was tried; its last source says why it failed.
fn innermost(error: &reqwest::Error) -> String {
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn an_endless_answer_is_rejected() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let server = format!("http://{}", listener.local_addr().expect("an address"));
        let sent = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("asked");
            let _ = stream.read(&mut [0; 4096]).await;
            let mut sent = 0;
            let mut some: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
            while stream.write_all(some).await.is_ok() {
                sent += some.len();
                some = &[b'x'; 1 << 16];
            }
            sent
        });
        tls::provide();
        let client = Client::builder().no_proxy().build().expect("built");
        let api = Api { server, client };
        let error = api.nodes().await.expect_err("refused").to_string();
        assert!(
            error.ends_with("its answer is longer than 4 MiB"),
            "{error}"
        );
        assert!(sent.await.expect("no panic") < 64 << 20);
    }

    #[test]
    fn a_wrong_clock_is_an_error() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_900);
        let dated = |by: i64| {
            let epoch = Duration::from_secs(1_700_000_000u64.saturating_add_signed(by));
            let date = SystemTime::UNIX_EPOCH + epoch;
            HeaderMap::from_iter([(
                DATE,
                httpdate::fmt_http_date(date).parse().expect("a header"),
            )])
        };
        for right in [-4, 0, 5] {
            assert!(right_clock(&dated(right), now).is_ok(), "{right}");
        }
        for (by, words) in [
            (-7200, "the guest's clock is 2h behind the host's"),
            (7, "the guest's clock is 6s ahead of the host's"),
            (86400, "the guest's clock is 1day ahead of the host's"),
        ] {
            let error = right_clock(&dated(by), now).expect_err(words);
            assert_eq!(error.to_string(), words);
        }
        assert!(right_clock(&HeaderMap::new(), now).is_ok(), "nothing known");
    }
}
