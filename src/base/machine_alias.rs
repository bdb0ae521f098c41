//! Names of additional VMs of a project.

use std::{fmt, str::FromStr};

use crate::base::{as_text::serialize_as_text, dns_label::is_dns_label};

/// The name of an additional VM, which is part of the names of its directory, kubeconfig and node: a DNS label of at
/// most 32 characters, other than the names of files beside them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineAlias(String);

/// The reason why a text is not such a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseMachineAliasError {
    /// It cannot be a part of a host name.
    #[error("expected 1 to 32 of a-z, 0-9 and -, with no - at either end")]
    Characters,
    /// It has another meaning.
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
            // Its kubeconfig would be .kube/config, or be in kubectl's cache.
            "config" | "cache" => Err(ParseMachineAliasError::Reserved(
                "a file in .kube/ is called so already",
            )),
            _ if text.len() <= LONGEST && is_dns_label(text) => Ok(Self(text.to_owned())),
            _ => Err(ParseMachineAliasError::Characters),
        }
    }
}

serialize_as_text!(MachineAlias);

impl fmt::Display for MachineAlias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_names_for_directories_and_hosts() {
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
