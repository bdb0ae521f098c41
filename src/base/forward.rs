//! Forwarded ports: `8080:80`, and `5353:53/udp`.

use std::{
    collections::BTreeSet,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    str::FromStr,
};

use serde::Serialize;

use crate::base::as_text::serialize_as_text;

/// A port of 127.0.0.1 that forwards to one of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forward {
    /// The host's end.
    pub host: HostPort,
    /// The guest's port.
    pub guest: u16,
}

/// A port of 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// Its number, never 0.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A protocol that QEMU's user networking forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The reason why a text is not a forward.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseForwardError {
    /// Its form is wrong.
    #[error("invalid port forward {0:?}: expected HOST:GUEST, e.g. 8080:80 or 5353:53/udp")]
    Forward(String),
    /// A port of it is wrong.
    #[error("invalid port {0:?}: expected 1 to 65535, e.g. 8080 or 5353/udp")]
    Port(String),
}

impl Forward {
    /// A TCP port.
    pub const fn tcp(host: u16, guest: u16) -> Self {
        Self {
            host: HostPort {
                port: host,
                protocol: Protocol::Tcp,
            },
            guest,
        }
    }
}

impl HostPort {
    /// The address on the host.
    pub fn address(self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

/// As users write it.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Tcp => write!(f, "{}", self.port),
            Protocol::Udp => write!(f, "{}/udp", self.port),
        }
    }
}

impl Protocol {
    /// As in QEMU and URLs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// The text before the protocol, and the protocol.
fn protocol(text: &str) -> Option<(&str, Protocol)> {
    match text.split_once('/') {
        None => Some((text, Protocol::Tcp)),
        Some((rest, "tcp")) => Some((rest, Protocol::Tcp)),
        Some((rest, "udp")) => Some((rest, Protocol::Udp)),
        Some(_) => None,
    }
}

fn number(text: &str) -> Option<u16> {
    // Rust's parser accepts a plus before a number.
    let digits = text.bytes().all(|it| it.is_ascii_digit());
    digits.then(|| text.parse().ok().map(NonZeroU16::get))?
}

/// The first forward whose host port another one before it has.
pub fn twice(forwards: &[Forward]) -> Option<&Forward> {
    let mut known = BTreeSet::new();
    forwards.iter().find(|it| !known.insert(it.host))
}

impl FromStr for Forward {
    type Err = ParseForwardError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (ports, protocol) = protocol(text)?;
            let (host, guest) = ports.split_once(':')?;
            let port = number(host)?;
            Some(Self {
                host: HostPort { port, protocol },
                guest: number(guest)?,
            })
        };
        parse().ok_or_else(|| ParseForwardError::Forward(text.to_owned()))
    }
}

impl FromStr for HostPort {
    type Err = ParseForwardError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (port, protocol) = protocol(text)?;
            let port = number(port)?;
            Some(Self { port, protocol })
        };
        parse().ok_or_else(|| ParseForwardError::Port(text.to_owned()))
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host.port, self.guest)?;
        match self.host.protocol {
            Protocol::Tcp => Ok(()),
            Protocol::Udp => f.write_str("/udp"),
        }
    }
}

serialize_as_text!(Forward);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_its_own_output() {
        for (text, shown) in [
            ("8080:80", "8080:80"),
            ("8080:80/tcp", "8080:80"),
            ("5353:53/udp", "5353:53/udp"),
        ] {
            assert_eq!(text.parse::<Forward>().expect(text).to_string(), shown);
        }
        let port: HostPort = "5353/udp".parse().expect("sound");
        assert_eq!((port.port, port.protocol), (5353, Protocol::Udp));
        assert_eq!(port.address().to_string(), "127.0.0.1:5353");
    }

    #[test]
    fn rejects_invalid_values() {
        for text in [
            "",
            "80",
            ":",
            "80:",
            ":80",
            "0:80",
            "80:0",
            "80:65536",
            "-1:80",
            "80:80/sctp",
            "80:80/",
            "80:80:80",
            "a:b",
            "80 :80",
            "1.2.3.4:80",
            "0x50:80",
            "+80:80",
        ] {
            assert!(text.parse::<Forward>().is_err(), "{text}");
        }
        assert!("80:80".parse::<HostPort>().is_err());
        assert!("0".parse::<HostPort>().is_err());
    }
}
