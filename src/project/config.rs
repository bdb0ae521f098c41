//! The choices of a project: those of flags and of `.k3s-vm/config`, a small TOML file that users may edit.

use std::{
    num::NonZeroU16,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    config_values::{AccelChoice, FirmwareChoice, MOST_CPUS, Timeout},
    idle::Idle,
    settings::{K3s, Network},
};
use crate::base::{Digest, FileError, Forward, HostAccess, Mount, Size, files, forward, mount};

/// The choices of a project. `None` leaves a choice to the program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Virtual CPUs.
    #[serde(default, deserialize_with = "cpus")]
    pub cpus: Option<u8>,
    /// The guest's memory.
    pub memory: Option<Size>,
    /// The disk's size.
    pub disk: Option<Size>,
    /// The base image: a catalogue alias, a path or a URL.
    pub image: Option<String>,
    /// The SHA-256 that the base image must have.
    pub image_sha256: Option<Digest>,
    /// Downloads need no checksum. Set for one run, and never saved to the file.
    #[serde(skip)]
    pub insecure_no_checksum: bool,
    /// The k3s release, or `stable`.
    pub k3s_version: Option<String>,
    /// The source of k3s releases.
    pub k3s_mirror: Option<String>,
    /// The host port of the API; by default 6443 or a free one.
    #[serde(default, deserialize_with = "port")]
    pub api_port: Option<u16>,
    /// The accelerator.
    pub accel: Option<AccelChoice>,
    /// The CPU model, as QEMU calls it.
    pub cpu_model: Option<String>,
    /// The firmware.
    pub firmware: Option<FirmwareChoice>,
    /// The kubeconfig's path; relative to the project.
    pub kubeconfig: Option<PathBuf>,
    /// The limit of setup and start, like `5m`.
    pub timeout: Option<Timeout>,
    /// The guest has no network and no way to the host.
    pub isolated: Option<bool>,
    /// The ports of the host's loopback that the guest may reach.
    pub host_access: Option<HostAccess>,
    /// The forwarded ports; by default 8080 and 8443 forward to the ingress if they are free.
    #[serde(default, deserialize_with = "ports")]
    pub ports: Option<Vec<Forward>>,
    /// The mounts; relative paths start in the project.
    #[serde(default, deserialize_with = "mounts")]
    pub mounts: Option<Vec<Mount>>,
    /// `stop` suspends the VM.
    pub suspend: Option<bool>,
    /// The time without use after which the VM is suspended.
    pub idle_suspend: Option<Idle>,
    /// The VM shares its identity with other VMs of this user, keys and certificates included.
    pub share_identity: Option<bool>,
    /// The settings of k3s.
    #[serde(default)]
    pub k3s: K3s,
    /// The settings of the guest's network.
    #[serde(default)]
    pub network: Network,
}

fn cpus<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    let cpus = u64::deserialize(deserializer)?;
    match u8::try_from(cpus) {
        Ok(cpus @ 1..=MOST_CPUS) => Ok(Some(cpus)),
        _ => Err(serde::de::Error::custom(format!(
            "{cpus} CPUs: expected 1 to {MOST_CPUS}"
        ))),
    }
}

/// Port 0 would be any free port.
fn port<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    Ok(Some(NonZeroU16::deserialize(deserializer)?.get()))
}

/// Rejects a host port that occurs twice.
fn ports<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Forward>>, D::Error> {
    let ports = Vec::<Forward>::deserialize(deserializer)?;
    match forward::twice(&ports) {
        Some(port) => Err(serde::de::Error::custom(format!(
            "{port}: another forward has that host port"
        ))),
        None => Ok(Some(ports)),
    }
}

/// Rejects a directory of the guest that occurs twice.
fn mounts<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Mount>>, D::Error> {
    let mounts = Vec::<Mount>::deserialize(deserializer)?;
    match mount::twice(&mounts) {
        Some(mount) => Err(serde::de::Error::custom(format!(
            "{mount}: another mount has that path in the guest"
        ))),
        None => Ok(Some(mounts)),
    }
}

/// The longest config that is read, in bytes. The parser needs much time for text that is not a config.
const LONGEST: usize = 256 << 10;

/// The longest line of an excerpt, in characters.
const LONGEST_LINE: usize = 200;

/// The parser's message, with lines that fit a screen.
pub(super) fn reason(message: &str) -> String {
    let cut = |line: &str| {
        let mut characters = line.chars();
        let begin: String = characters.by_ref().take(LONGEST_LINE).collect();
        let mark = if characters.next().is_some() {
            "..."
        } else {
            ""
        };
        begin + mark
    };
    let lines = message.trim_end().lines().map(cut);
    lines.collect::<Vec<_>>().join("\n")
}

/// The reason why a config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A line is invalid.
    #[error("{}: {message}", path.display())]
    Invalid {
        /// The config.
        path: PathBuf,
        /// The line, the key and the reason.
        message: String,
    },
    /// It reaches the host without the user's approval.
    #[error("{} is not trusted: it {}", path.display(), reaches.join("; it "))]
    Untrusted {
        /// The config.
        path: PathBuf,
        /// The parts of the host that it reaches, each fitting after "it".
        reaches: Vec<String>,
    },
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Config {
    /// Reads the config; a missing file has no choices.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] names the line and the key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = files::read_own(path)?.unwrap_or_default();
        Self::parse(&text).map_err(|message| ConfigError::Invalid {
            path: path.to_owned(),
            message,
        })
    }

    /// Reads the config's text.
    ///
    /// # Errors
    ///
    /// Names the line, the key and what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Else the next save would replace text in another encoding.
        if let Some(line) = text.lines().position(|line| line.contains('\u{fffd}')) {
            return Err(format!("line {} is not UTF-8", line + 1));
        }
        if text.len() > LONGEST {
            return Err(format!("it has more than {LONGEST} bytes"));
        }
        toml_edit::de::from_str(text).map_err(|error| reason(&error.to_string()))
    }

    /// The choices of `self`, completed by those of `under`.
    #[must_use]
    pub fn over(self, under: Self) -> Self {
        Self {
            cpus: self.cpus.or(under.cpus),
            memory: self.memory.or(under.memory),
            disk: self.disk.or(under.disk),
            // A checksum belongs to the image that it was given with.
            image_sha256: if self.image.is_some() {
                self.image_sha256
            } else {
                self.image_sha256.or(under.image_sha256)
            },
            image: self.image.or(under.image),
            insecure_no_checksum: self.insecure_no_checksum,
            k3s_version: self.k3s_version.or(under.k3s_version),
            k3s_mirror: self.k3s_mirror.or(under.k3s_mirror),
            api_port: self.api_port.or(under.api_port),
            accel: self.accel.or(under.accel),
            cpu_model: self.cpu_model.or(under.cpu_model),
            firmware: self.firmware.or(under.firmware),
            kubeconfig: self.kubeconfig.or(under.kubeconfig),
            timeout: self.timeout.or(under.timeout),
            isolated: self.isolated.or(under.isolated),
            host_access: self.host_access.or(under.host_access),
            ports: self.ports.or(under.ports),
            mounts: self.mounts.or(under.mounts),
            suspend: self.suspend.or(under.suspend),
            idle_suspend: self.idle_suspend.or(under.idle_suspend),
            share_identity: self.share_identity.or(under.share_identity),
            k3s: self.k3s.over(under.k3s),
            network: self.network.over(under.network),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_line_and_key() {
        for (text, line, word) in [
            ("cpus = 2\nmemry = \"4GiB\"\n", "line 2", "memry"),
            ("cpus = 0\n", "line 1", "cpus"),
            ("cpus = 2\n\nmemory = \"4 elephants\"\n", "line 3", "memory"),
            ("accel = \"fast\"\n", "line 1", "fast"),
            ("disk = \"20GiB\n", "line 1", "disk"),
            ("timeout = \"soon\"", "line 1", "timeout"),
            ("idle_suspend = \"soon\"", "line 1", "30m or 2h, or off"),
            ("api_port = 70000", "line 1", "api_port"),
            ("api_port = 0", "line 1", "api_port"),
            ("ports = [\"80\"]", "line 1", "HOST:GUEST"),
            (
                "ports = [\"81:80\", \"81:81\"]",
                "line 1",
                "another forward",
            ),
            ("mounts = [\"src:/etc\"]", "line 1", "cannot mount at /etc"),
            (
                "mounts = [\"a:/a\", \"b:/a/:ro\"]",
                "line 1",
                "another mount",
            ),
            ("cpus = 2 # \u{fffd}", "line 1", "UTF-8"),
        ] {
            let message = Config::parse(text).expect_err(text);
            assert!(
                message.contains(line) && message.contains(word),
                "{message}"
            );
        }
    }

    #[test]
    fn errors_are_short() {
        let error = Config::parse(&" ".repeat(LONGEST + 1)).expect_err("too long");
        assert!(error.contains("more than"), "{error}");
        for garbage in ["\0", "x", "é", "[", "a="] {
            let error = Config::parse(&garbage.repeat(20_000)).expect_err("garbage");
            assert!(error.len() < 2000, "{}", error.len());
        }
        let ports: Vec<String> = (1..20_000).map(|it| format!("'{it}:80'")).collect();
        Config::parse(&format!("ports = [{}]", ports.join(","))).expect("each once");
    }

    #[test]
    fn another_image_does_not_inherit_a_checksum() {
        let file = Config {
            image: Some("a.img".into()),
            image_sha256: Some(Digest::of(b"a")),
            ..Config::default()
        };
        let flags = Config {
            image: Some("b.img".into()),
            ..Config::default()
        };
        assert_eq!(flags.over(file).image_sha256, None);
    }
}
