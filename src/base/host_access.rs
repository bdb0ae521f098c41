//! The ports of the host's loopback that a guest may reach: `none`, `all`, `5432,6379`.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::base::as_text::deserialize_from_text;

/// The ports of the host's loopback (10.0.2.2 in the guest) that the guest may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostAccess {
    /// Every port.
    All,
    /// These ports, of TCP and of UDP.
    Ports(BTreeSet<u16>),
}

impl HostAccess {
    /// Returns `true` when the guest may reach `port`.
    pub fn includes(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Ports(ports) => ports.contains(&port),
        }
    }

    /// Returns `true` when it may reach no port.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Adds ports.
    #[must_use]
    pub fn with(self, more: impl IntoIterator<Item = u16>) -> Self {
        match self {
            Self::All => Self::All,
            Self::Ports(ports) => Self::Ports(ports.into_iter().chain(more).collect()),
        }
    }
}

impl Default for HostAccess {
    fn default() -> Self {
        Self::Ports(BTreeSet::new())
    }
}

impl FromStr for HostAccess {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = |part: &str| part.trim().parse().ok().filter(|it| *it != 0);
        match text {
            "all" => Ok(Self::All),
            "none" => Ok(Self::default()),
            _ => text
                .split(',')
                .map(port)
                .collect::<Option<_>>()
                .map(Self::Ports)
                .ok_or_else(|| {
                    format!("invalid ports {text:?}: expected e.g. 5432,6379, or all, or none")
                }),
        }
    }
}

deserialize_from_text!(HostAccess);

impl fmt::Display for HostAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Ports(_) if self.is_none() => f.write_str("none"),
            Self::Ports(ports) => {
                let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
                f.write_str(&ports.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_its_own_output() {
        for (text, shown) in [
            ("all", "all"),
            ("none", "none"),
            ("6379, 5432,6379", "5432,6379"),
        ] {
            let access: HostAccess = text.parse().expect(text);
            assert_eq!(access.to_string(), shown);
            assert_eq!(shown.parse(), Ok(access));
        }
        for wrong in ["", "0", "65536", "5432,", "5432/udp", "some", "-1"] {
            assert!(wrong.parse::<HostAccess>().is_err(), "{wrong}");
        }
    }
}
