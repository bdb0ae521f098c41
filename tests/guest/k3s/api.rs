//! The answers of the API server: a request in plain values goes in, a status and a body come out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::objects::{self, KINDS, Node};
use crate::protobuf;
use crate::state::{self, State};
use crate::{Failure, log};

/// How long after a start the API says that it is still starting.
const READY_AFTER: Duration = Duration::from_secs(1);

/// The cluster behind the API.
pub(crate) struct Api {
    /// Its node.
    pub(crate) node: Node,
    /// What it keeps.
    pub(crate) state: Mutex<State>,
}

/// A request, as far as it matters here.
pub(crate) struct Question<'a> {
    /// Whether the client's certificate is signed by this cluster.
    pub(crate) authenticated: bool,
    /// The HTTP method.
    pub(crate) method: &'a str,
    /// The path without its query.
    pub(crate) path: &'a str,
    /// Whether the client wants to hear of changes.
    pub(crate) watch: bool,
    /// The `Accept` header.
    pub(crate) accept: &'a str,
    /// The body.
    pub(crate) body: &'a [u8],
}

/// An answer.
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// Its body; what is not an object is plain text.
    pub(crate) body: Value,
}

fn ok(body: Value) -> Answer {
    Answer { status: 200, body }
}

fn failure(status: u16, reason: &str, message: &str) -> Answer {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": status,
    });
    Answer { status, body }
}

fn not_found(resource: &str, name: &str) -> Answer {
    failure(404, "NotFound", &format!("{resource} \"{name}\" not found"))
}

/// A path below `/api/v1`, taken apart.
struct Target<'a> {
    namespace: Option<&'a str>,
    resource: &'a str,
    name: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn parse(segments: &[&'a str]) -> Option<Self> {
        let (namespace, rest) = match segments {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        match rest {
            [resource] => Some(Self {
                namespace,
                resource,
                name: None,
            }),
            [resource, name] => Some(Self {
                namespace,
                resource,
                name: Some(name),
            }),
            _ => None,
        }
    }
}

impl Api {
    /// Answers a question.
    pub(crate) fn answer(&self, question: &Question<'_>) -> Answer {
        if !question.authenticated {
            return failure(401, "Unauthorized", "Unauthorized");
        }
        let segments: Vec<&str> = question
            .path
            .split('/')
            .filter(|it| !it.is_empty())
            .collect();
        match segments.as_slice() {
            ["readyz" | "livez" | "healthz"] => self.health(segments[0]),
            ["version"] => ok(self.version()),
            ["api"] => ok(
                json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }),
            ),
            ["apis"] => ok(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [] })),
            ["api", "v1"] => ok(discovery()),
            ["api", "v1", rest @ ..] => match Target::parse(rest) {
                Some(target) if KINDS.iter().any(|kind| kind.0 == target.resource) => {
                    self.resource(question, &target).unwrap_or_else(|error| {
                        log(
                            "error",
                            &format!("{} {}: {error}", question.method, question.path),
                        );
                        failure(500, "InternalError", &error.to_string())
                    })
                }
                _ => failure(
                    404,
                    "NotFound",
                    "the server could not find the requested resource",
                ),
            },
            _ => failure(
                404,
                "NotFound",
                "the server could not find the requested resource",
            ),
        }
    }

    fn health(&self, which: &str) -> Answer {
        if which == "livez" || self.node.uptime() >= READY_AFTER {
            return ok(json!("ok"));
        }
        let body = format!(
            "[+]ping ok\n[-]poststarthook/rbac/bootstrap-roles failed: not finished\n{which} check failed"
        );
        Answer {
            status: 500,
            body: json!(body),
        }
    }

    fn version(&self) -> Value {
        let version = &self.node.version;
        let mut numbers = version.trim_start_matches('v').split('.');
        json!({
            "major": numbers.next(), "minor": numbers.next(), "gitVersion": version, "gitCommit": "",
            "gitTreeState": "clean", "buildDate": "2025-09-15T00:00:00Z", "goVersion": "go1.24.6",
            "compiler": "gc", "platform": "linux/amd64",
        })
    }

    fn resource(&self, question: &Question<'_>, target: &Target<'_>) -> Result<Answer, Failure> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match (question.method, target.resource, target.name) {
            // "Too old, list again" is an answer that every watcher must know what to do with, and all the news it needs.
            ("GET", _, _) if question.watch => {
                let gone = failure(410, "Expired", "too old resource version");
                Ok(ok(json!({ "type": "ERROR", "object": gone.body })))
            }
            ("GET", _, _) => Ok(self.get(question, target, &state)),
            ("POST", "configmaps", None) => create(&mut state, target, question.body),
            ("DELETE", "configmaps", Some(name)) => Ok(match state.remove(name)? {
                Some(object) => ok(json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                    "details": { "name": name, "kind": "configmaps", "uid": object["metadata"]["uid"] },
                })),
                None => not_found(target.resource, name),
            }),
            _ => Ok(failure(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            )),
        }
    }

    fn get(&self, question: &Question<'_>, target: &Target<'_>, state: &State) -> Answer {
        let mut found = objects::all(target.resource, &self.node, state);
        // The controller that makes the default service accounts starts after the API.
        if target.resource == "serviceaccounts" && self.node.uptime() < READY_AFTER {
            found.clear();
        }
        found.retain(|object| {
            let in_namespace = target
                .namespace
                .is_none_or(|it| object["metadata"]["namespace"] == it);
            in_namespace
                && target
                    .name
                    .is_none_or(|it| object["metadata"]["name"] == it)
        });
        if let (Some(name), true) = (target.name, found.is_empty()) {
            return not_found(target.resource, name);
        }
        if question.accept.contains("as=Table") {
            return ok(objects::table(target.resource, &found));
        }
        match (target.name, found.pop()) {
            (Some(_), Some(object)) => ok(object),
            (_, last) => {
                found.extend(last);
                let kind = KINDS
                    .iter()
                    .find(|kind| kind.0 == target.resource)
                    .map_or("", |kind| kind.1);
                ok(json!({
                    "kind": format!("{kind}List"), "apiVersion": "v1",
                    "metadata": { "resourceVersion": "1" }, "items": found,
                }))
            }
        }
    }
}

fn create(state: &mut State, target: &Target<'_>, body: &[u8]) -> Result<Answer, Failure> {
    let Some(mut object) = serde_json::from_slice::<Value>(body)
        .ok()
        .or_else(|| protobuf::config_map(body))
    else {
        return Ok(failure(
            400,
            "BadRequest",
            "the body is no config map in JSON or protobuf",
        ));
    };
    let Some(name) = object["metadata"]["name"].as_str().map(str::to_owned) else {
        return Ok(failure(422, "Invalid", "metadata.name: Required value"));
    };
    if target.namespace != Some("default") {
        return Ok(failure(
            403,
            "Forbidden",
            "config maps are kept in the namespace default only",
        ));
    }
    if state.config_maps().contains_key(&name) {
        return Ok(failure(
            409,
            "AlreadyExists",
            &format!("configmaps \"{name}\" already exists"),
        ));
    }
    object["kind"] = json!("ConfigMap");
    object["apiVersion"] = json!("v1");
    object["metadata"]["namespace"] = json!("default");
    object["metadata"]["uid"] = json!(state::uid()?);
    object["metadata"]["creationTimestamp"] = json!(state::now());
    object["metadata"]["resourceVersion"] = json!("1");
    state.insert(name, object.clone())?;
    Ok(Answer {
        status: 201,
        body: object,
    })
}

fn discovery() -> Value {
    let resources: Vec<Value> = KINDS
        .iter()
        .map(|(plural, kind, namespaced, short, verbs)| {
            json!({
                "name": plural, "singularName": kind.to_lowercase(), "kind": kind, "namespaced": namespaced,
                "shortNames": [short], "verbs": verbs,
            })
        })
        .collect();
    json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": resources })
}
