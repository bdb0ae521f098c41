//! Names of VMs: valid as host name, Kubernetes node name and file name.

use std::{fmt, path::Path, str::FromStr};

use crate::base::{
    Digest, MachineAlias,
    as_text::serialize_as_text,
    dns_label::{LONGEST, is_dns_label},
};

/// The name of a VM, of its node, and of its cluster, user and context in the kubeconfig.
///
/// A DNS label (RFC 1123): 1 to 63 characters of `a-z`, `0-9` and `-`, neither first nor last a `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// The reason why a text is not a VM name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid VM name {0:?}: expected 1 to 63 of a-z, 0-9 and -, with no - at either end")]
pub struct ParseNameError(String);

impl Name {
    /// `k3s-<directory>-<6 digits of the hash of the path>`: readable, and different for two projects with the same
    /// directory name. An additional VM has its own name before the digits.
    pub fn for_project(root: &Path, alias: Option<&MachineAlias>) -> Self {
        let directory = root
            .file_name()
            .map(|name| name.to_string_lossy().to_ascii_lowercase())
            .unwrap_or_default();
        let words: Vec<&str> = directory
            .split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit())
            .filter(|word| !word.is_empty())
            .collect();
        let readable = if words.is_empty() {
            "project".to_owned()
        } else {
            words.join("-")
        };
        let hash = Digest::of(root.as_os_str().as_encoded_bytes()).short(6);
        let alias = alias.map_or_else(String::new, |name| format!("-{name}"));
        let room = LONGEST - "k3s--".len() - alias.len() - hash.len();
        let readable = readable
            .get(..room.min(readable.len()))
            .unwrap_or_default()
            .trim_end_matches('-');
        Self(format!("k3s-{readable}{alias}-{hash}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_dns_label(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseNameError(text.to_owned()))
        }
    }
}

serialize_as_text!(Name);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_project_path_gives_a_name() {
        for path in [
            "/home/ada/My Shop",
            "/",
            "/srv/--",
            "/x/ünïcode",
            &format!("/{}", "a".repeat(200)),
        ] {
            let longest = "b".repeat(32).parse().ok();
            for alias in [None, longest.as_ref()] {
                let name = Name::for_project(Path::new(path), alias);
                assert_eq!(name.as_str().parse(), Ok(name.clone()), "{path}");
            }
        }
        let shop = Path::new("/home/ada/My Shop");
        let name = Name::for_project(shop, None);
        assert!(name.as_str().starts_with("k3s-my-shop-"), "{name}");
        let staging = "staging".parse().ok();
        let name = Name::for_project(shop, staging.as_ref());
        assert!(name.as_str().starts_with("k3s-my-shop-staging-"), "{name}");
    }

    #[test]
    fn same_directory_name_elsewhere_gives_another_vm_name() {
        assert_ne!(
            Name::for_project(Path::new("/a/shop"), None),
            Name::for_project(Path::new("/b/shop"), None)
        );
    }

    #[test]
    fn rejects_invalid_node_names() {
        for text in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a.b",
            "a b",
            "a\n",
            &"a".repeat(64),
            "é",
        ] {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
        assert!("a".repeat(63).parse::<Name>().is_ok());
    }
}
