//! Flags of `k3s server`, as users write them: `--cluster-cidr=10.52.0.0/16`, with or without the dashes.

use std::{fmt, str::FromStr};

use crate::base::as_text::serialize_as_text;

/// A flag of `k3s server`. k3s decides whether it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct K3sFlag {
    /// Its name, without dashes.
    pub name: String,
    /// Its value; a flag without one is a switch.
    pub value: Option<String>,
}

/// The reason why a text is not a flag of k3s.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseFlagError {
    /// Its form is wrong.
    #[error("invalid k3s flag {0:?}: expected one word, e.g. --cluster-cidr=10.52.0.0/16")]
    Malformed(String),
    /// This program sets it.
    #[error("cannot set --{0}: k3s-vm sets it and relies on it")]
    Ours(String),
}

/// The flags that this program sets, to reach the cluster.
const OURS: [&str; 8] = [
    "config",
    "data-dir",
    "https-listen-port",
    "node-ip",
    "node-name",
    "with-node-id",
    "write-kubeconfig",
    "write-kubeconfig-mode",
];

impl FromStr for K3sFlag {
    type Err = ParseFlagError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ParseFlagError::Malformed(text.to_owned());
        let bare = text.strip_prefix("--").unwrap_or(text);
        let (name, value) = match bare.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (bare, None),
        };
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let sound = name.len() > 1
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(allowed)
            && !text.chars().any(char::is_control);
        if !sound {
            return Err(malformed());
        }
        if OURS.contains(&name) {
            return Err(ParseFlagError::Ours(name.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            value,
        })
    }
}

impl fmt::Display for K3sFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "--{}={value}", self.name),
            None => write!(f, "--{}", self.name),
        }
    }
}

serialize_as_text!(K3sFlag);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_flags_with_and_without_dashes() {
        for (text, shown) in [
            ("--secrets-encryption", "--secrets-encryption"),
            ("flannel-backend=none", "--flannel-backend=none"),
            ("--kubelet-arg=max-pods=50", "--kubelet-arg=max-pods=50"),
        ] {
            assert_eq!(
                text.parse::<K3sFlag>().map(|it| it.to_string()),
                Ok(shown.to_owned())
            );
        }
        for (wrong, word) in [
            ("", "invalid k3s flag"),
            ("-v", "invalid k3s flag"),
            ("--cluster-cidr 10.52.0.0/16", "one word"),
            ("--Disable=traefik", "invalid k3s flag"),
            ("--token=a\nb", "invalid k3s flag"),
            ("--node-name=x", "relies on it"),
            ("data-dir=/x", "relies on it"),
        ] {
            let message = wrong.parse::<K3sFlag>().expect_err(wrong).to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
