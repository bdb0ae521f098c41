//! Names of additional VMs of a project.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::base::dns_label::is_dns_label;

/// A part of a VM's name, of which a directory and a kubeconfig have the name as well: a DNS label of at most 32
/// characters, and none that a file beside it has already.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineAlias(String);

/// Why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseMachineAliasError {
    /// It cannot be a part of a host's name.
    #[error("expected 1 to 32 of a-z, 0-9 and -, with no - at either end")]
    Characters,
    /// It means something else.
    #[error("{0}")]
    Reserved(&'static str),
}

const LONGEST: usize = 32;

impl MachineAlias {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MachineAlias {
    type Err = ParseMachineAliasError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "default" => Err(ParseMachineAliasError::Reserved(
                "the project's own VM has no name: leave it out",
            )),
            // Its kubeconfig would be .kube/config, or lie where kubectl has its cache.
            "config" | "cache" => Err(ParseMachineAliasError::Reserved(
                "a file in .kube/ is called so already",
            )),
            _ if text.len() <= LONGEST && is_dns_label(text) => Ok(Self(text.to_owned())),
            _ => Err(ParseMachineAliasError::Characters),
        }
    }
}

impl TryFrom<String> for MachineAlias {
    type Error = ParseMachineAliasError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MachineAlias> for String {
    fn from(name: MachineAlias) -> Self {
        name.0
    }
}

impl fmt::Display for MachineAlias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_folders_hosts_and_kubeconfigs_can_be_called() {
        let longest = "a".repeat(32);
        for text in ["a", "staging", "k8s-1-33", "0", &longest] {
            assert_eq!(
                text.parse::<MachineAlias>().map(|it| it.to_string()),
                Ok(text.into())
            );
        }
        let longer = "a".repeat(33);
        for text in [
            "", "-a", "a-", "A", "a_b", "a.b", "a b", "a/b", "..", "a\n", "é", "config", "cache",
            "default", &longer,
        ] {
            assert!(text.parse::<MachineAlias>().is_err(), "{text:?}");
        }
    }
}
