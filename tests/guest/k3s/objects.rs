//! The Kubernetes objects that this cluster has, and the tables that `kubectl get` asks for.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::state::{State, timestamp};

/// How long after a start the node says that it is ready.
const NODE_READY_AFTER: Duration = Duration::from_secs(2);

/// What is known about the one node before anything is asked.
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    /// Its address.
    pub(crate) address: String,
    /// The version of its kubelet.
    pub(crate) version: String,
    /// When this process began to serve.
    pub(crate) started: SystemTime,
}

impl Node {
    /// How long the server has been serving.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed().unwrap_or_default()
    }

    fn object(&self, state: &State) -> Value {
        let ready_at = self.started + NODE_READY_AFTER;
        let ready = self.uptime() >= NODE_READY_AFTER;
        let (status, since, reason, message) = if ready {
            (
                "True",
                ready_at,
                "KubeletReady",
                "kubelet is posting ready status",
            )
        } else {
            (
                "False",
                self.started,
                "KubeletNotReady",
                "container runtime network not ready: cni plugin not initialized",
            )
        };
        let condition = |kind: &str,
                         status: &str,
                         since: SystemTime,
                         reason: &str,
                         message: &str| {
            json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": timestamp(SystemTime::now()), "lastTransitionTime": timestamp(since),
            })
        };
        let quiet = |kind: &str, reason: &str| {
            condition(
                kind,
                "False",
                self.started,
                reason,
                "kubelet has enough of it",
            )
        };
        let read = |path: &str| {
            std::fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.name, "uid": state.node_uid(), "creationTimestamp": state.created(),
                "resourceVersion": format!("{}", self.started.elapsed().map_or(1, |it| it.as_secs() + 1)),
                "labels": {
                    "kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                    "node.kubernetes.io/instance-type": "k3s",
                    "node-role.kubernetes.io/control-plane": "true", "node-role.kubernetes.io/master": "true",
                },
                "annotations": { "k3s.io/internal-ip": self.address, "k3s.io/hostname": self.name },
            },
            "spec": { "podCIDR": "10.42.0.0/24", "providerID": format!("k3s://{}", self.name) },
            "status": {
                "addresses": [
                    { "type": "InternalIP", "address": self.address },
                    { "type": "Hostname", "address": self.name },
                ],
                "conditions": [
                    quiet("MemoryPressure", "KubeletHasSufficientMemory"),
                    quiet("DiskPressure", "KubeletHasNoDiskPressure"),
                    quiet("PIDPressure", "KubeletHasSufficientPID"),
                    condition("Ready", status, since, reason, message),
                ],
                "nodeInfo": {
                    "kubeletVersion": self.version, "kubeProxyVersion": self.version,
                    "operatingSystem": "linux", "architecture": "amd64",
                    "osImage": "Debian GNU/Linux", "kernelVersion": read("/proc/sys/kernel/osrelease"),
                    "containerRuntimeVersion": "containerd://2.1.4-k3s1",
                    "machineID": read("/etc/machine-id"), "bootID": read("/proc/sys/kernel/random/boot_id"),
                    "systemUUID": "",
                },
            },
        })
    }
}

/// The kinds that discovery lists: plural, kind, whether they live in a namespace, short name, verbs.
pub(crate) const KINDS: [(&str, &str, bool, &str, &[&str]); 6] = [
    (
        "configmaps",
        "ConfigMap",
        true,
        "cm",
        &["create", "delete", "get", "list"],
    ),
    ("namespaces", "Namespace", false, "ns", &["get", "list"]),
    ("nodes", "Node", false, "no", &["get", "list"]),
    ("pods", "Pod", true, "po", &["get", "list"]),
    (
        "serviceaccounts",
        "ServiceAccount",
        true,
        "sa",
        &["get", "list"],
    ),
    ("services", "Service", true, "svc", &["get", "list"]),
];

/// Every object of a kind.
pub(crate) fn all(resource: &str, node: &Node, state: &State) -> Vec<Value> {
    let plain = |kind: &str, name: &str| {
        json!({
            "apiVersion": "v1", "kind": kind,
            "metadata": { "name": name, "uid": "", "creationTimestamp": state.created(), "resourceVersion": "1" },
        })
    };
    match resource {
        "nodes" => vec![node.object(state)],
        "configmaps" => state.config_maps().values().cloned().collect(),
        "namespaces" => ["default", "kube-node-lease", "kube-public", "kube-system"]
            .map(|name| {
                let mut namespace = plain("Namespace", name);
                namespace["status"] = json!({ "phase": "Active" });
                namespace
            })
            .to_vec(),
        "serviceaccounts" => {
            let mut account = plain("ServiceAccount", "default");
            account["metadata"]["namespace"] = json!("default");
            vec![account]
        }
        // The API's own, and that of the ingress that k3s brings along.
        "services" => {
            let service = |name: &str, namespace: &str, spec: Value| {
                let mut service = plain("Service", name);
                service["metadata"]["namespace"] = json!(namespace);
                service["spec"] = spec;
                service
            };
            let port =
                |name: &str, port: u16| json!({ "name": name, "port": port, "protocol": "TCP" });
            let node_port = |name: &str, port: u16, node_port: u16| json!({ "name": name, "port": port, "protocol": "TCP", "nodePort": node_port });
            vec![
                service(
                    "kubernetes",
                    "default",
                    json!({ "type": "ClusterIP", "ports": [port("https", 443)] }),
                ),
                service(
                    "traefik",
                    "kube-system",
                    json!({
                        "type": "LoadBalancer",
                        "ports": [node_port("web", 80, 30080), node_port("websecure", 443, 30443)],
                    }),
                ),
            ]
        }
        _ => vec![],
    }
}

/// Objects as the server-side table that `kubectl get` prints; columns of priority 1 are for `-o wide`.
pub(crate) fn table(resource: &str, objects: &[Value]) -> Value {
    let columns: &[(&str, u8)] = match resource {
        "nodes" => &[
            ("Name", 0),
            ("Status", 0),
            ("Roles", 0),
            ("Age", 0),
            ("Version", 0),
            ("Internal-IP", 1),
            ("External-IP", 1),
            ("OS-Image", 1),
            ("Kernel-Version", 1),
            ("Container-Runtime", 1),
        ],
        "configmaps" => &[("Name", 0), ("Data", 0), ("Age", 0)],
        "namespaces" => &[("Name", 0), ("Status", 0), ("Age", 0)],
        _ => &[("Name", 0), ("Age", 0)],
    };
    let definitions: Vec<Value> = columns
        .iter()
        .map(|(name, priority)| {
            let format = if *name == "Name" { "name" } else { "" };
            json!({ "name": name, "type": "string", "format": format, "description": "", "priority": priority })
        })
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|(column, _)| cell(column, object)).collect();
            let partial = json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"],
            });
            json!({ "cells": cells, "object": partial })
        })
        .collect();
    json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "Table", "metadata": { "resourceVersion": "1" },
        "columnDefinitions": definitions, "rows": rows,
    })
}

fn cell(column: &str, object: &Value) -> Value {
    let info = &object["status"]["nodeInfo"];
    match column {
        "Name" => object["metadata"]["name"].clone(),
        "Age" => json!(age(object["metadata"]["creationTimestamp"]
            .as_str()
            .unwrap_or_default())),
        "Data" => json!(
            object["data"]
                .as_object()
                .map_or(0, serde_json::Map::len)
                .to_string()
        ),
        "Status" if object["kind"] == "Node" => {
            let ready = object["status"]["conditions"]
                .as_array()
                .is_some_and(|all| {
                    all.iter()
                        .any(|it| it["type"] == "Ready" && it["status"] == "True")
                });
            json!(if ready { "Ready" } else { "NotReady" })
        }
        "Status" => object["status"]["phase"].clone(),
        "Roles" => json!("control-plane,master"),
        "Version" => info["kubeletVersion"].clone(),
        "Internal-IP" => object["status"]["addresses"][0]["address"].clone(),
        "OS-Image" => info["osImage"].clone(),
        "Kernel-Version" => info["kernelVersion"].clone(),
        "Container-Runtime" => info["containerRuntimeVersion"].clone(),
        _ => json!("<none>"),
    }
}

/// The age of an object in kubectl's short form.
fn age(created: &str) -> String {
    let Ok(created) = humantime::parse_rfc3339(created) else {
        return "<unknown>".into();
    };
    let seconds = created.elapsed().unwrap_or_default().as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
