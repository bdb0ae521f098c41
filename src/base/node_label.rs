//! Labels of a Kubernetes node: `tier=dev`, `example.com/zone=a`.

use std::{fmt, str::FromStr};

use crate::base::as_text::serialize_as_text;

/// A label of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLabel(String);

/// The reason why a text is not a label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseNodeLabelError {
    /// Kubernetes would refuse it (its documentation, "Labels and Selectors").
    #[error("invalid label {0:?}: expected NAME=VALUE, e.g. tier=dev or example.com/zone=a")]
    Malformed(String),
    /// A kubelet may not set it (NodeRestriction), and would not start.
    #[error("invalid label {0:?}: Kubernetes does not allow a node to set labels of {1}")]
    Reserved(String, &'static str),
}

/// The longest name and the longest value.
const LONGEST: usize = 63;
/// The namespaces of Kubernetes in which a kubelet may label itself.
const ALLOWED: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

impl FromStr for NodeLabel {
    type Err = ParseNodeLabelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ParseNodeLabelError::Malformed(text.to_owned());
        let (key, value) = text.split_once('=').ok_or_else(malformed)?;
        let (prefix, name) = match key.split_once('/') {
            Some((prefix, name)) => (Some(prefix), name),
            None => (None, key),
        };
        let domain = |it: &str| {
            let allowed =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
            it.len() <= 253 && is_bounded(it) && it.chars().all(allowed)
        };
        if !is_word(name) || !(value.is_empty() || is_word(value)) || !prefix.is_none_or(domain) {
            return Err(malformed());
        }
        for own in ["kubernetes.io", "k8s.io"] {
            let within =
                |it: &str| it == own || it.strip_suffix(own).is_some_and(|it| it.ends_with('.'));
            if prefix.is_some_and(within) && !prefix.is_some_and(|it| ALLOWED.contains(&it)) {
                return Err(ParseNodeLabelError::Reserved(text.to_owned(), own));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

fn is_word(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.len() <= LONGEST && is_bounded(text) && text.chars().all(allowed)
}

fn is_bounded(text: &str) -> bool {
    let end = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(end) && text.ends_with(end)
}

impl fmt::Display for NodeLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serialize_as_text!(NodeLabel);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_labels_of_kubernetes() {
        for sound in [
            "tier=dev",
            "example.com/zone=a.b",
            "empty=",
            "node.kubernetes.io/kind=x",
        ] {
            assert!(sound.parse::<NodeLabel>().is_ok(), "{sound}");
        }
        for wrong in [
            "",
            "tier",
            "=x",
            "a b=c",
            "x=-",
            "UPPER.com/x=y",
            "a/b/c=d",
            "x=é",
        ] {
            assert!(wrong.parse::<NodeLabel>().is_err(), "{wrong}");
        }
        let own = "node-role.kubernetes.io/x=y".parse::<NodeLabel>();
        assert!(own.is_err_and(|it| it.to_string().contains("kubernetes.io")));
    }
}
