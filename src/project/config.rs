//! `.k3s-vm/config`: the choices of one project, a small TOML that a person may edit. Flags are saved into it, with
//! the comments and the order that are there left alone.

use std::{
    num::NonZeroU16,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Deserialize;
use toml_edit::{DocumentMut, Item, TableLike, Value};

use super::{
    idle::Idle,
    settings::{Entry, K3s, Network},
};
use crate::base::{Digest, FileError, Forward, HostAccess, Mount, Size, files, forward, mount};

/// What a project chose; everything that it left open is `None`, and the program decides.
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
    /// Downloads need no checksum. Given for each run, and never saved to the file.
    #[serde(skip)]
    pub insecure_no_checksum: bool,
    /// The k3s release, or `stable`.
    pub k3s_version: Option<String>,
    /// Where k3s releases are fetched from.
    pub k3s_mirror: Option<String>,
    /// The host port of the API; left open, a free one is taken, 6443 first.
    #[serde(default, deserialize_with = "port")]
    pub api_port: Option<u16>,
    /// How the guest's instructions are run.
    pub accel: Option<AccelChoice>,
    /// The processor's model, as QEMU calls it.
    pub cpu_model: Option<String>,
    /// How the guest boots.
    pub firmware: Option<FirmwareChoice>,
    /// Where the kubeconfig is written; relative to the project.
    pub kubeconfig: Option<PathBuf>,
    /// How long setup and start may take, like `5m`.
    pub timeout: Option<Timeout>,
    /// Whether the guest is kept from the network and from the host.
    pub isolated: Option<bool>,
    /// The ports of the host's loopback that the guest may reach.
    pub host_access: Option<HostAccess>,
    /// The ports of the host that lead into the guest; left open, 8080 and 8443 lead to the ingress where they are free.
    #[serde(default, deserialize_with = "ports")]
    pub ports: Option<Vec<Forward>>,
    /// Folders of the host that the guest has; from the project where they are relative.
    #[serde(default, deserialize_with = "mounts")]
    pub mounts: Option<Vec<Mount>>,
    /// Whether `stop` suspends the VM.
    pub suspend: Option<bool>,
    /// After how long without use the VM is suspended.
    pub idle_suspend: Option<Idle>,
    /// Whether the VM is the same as all others of this user that say so, keys and certificates included.
    pub share_identity: Option<bool>,
    /// What k3s is set to.
    #[serde(default)]
    pub k3s: K3s,
    /// What the guest's network is set to.
    #[serde(default)]
    pub network: Network,
}

/// How the guest's instructions are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccelChoice {
    /// KVM where it works, emulation otherwise, with a warning.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// Emulation.
    Tcg,
}

/// How the guest boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirmwareChoice {
    /// BIOS: every image of the catalogue boots by it, and it is faster.
    #[default]
    Auto,
    /// SeaBIOS, which comes with QEMU.
    Bios,
    /// OVMF, from the host's firmware descriptors.
    Uefi,
}

macro_rules! choice {
    ($type:ident { $($name:literal => $variant:ident),+ $(,)? }) => {
        impl $type {
            /// The names that [`FromStr`] takes.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The choice's name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err(format!("invalid value {text:?}: expected one of {}", Self::NAMES.join(", "))),
                }
            }
        }
    };
}

choice!(AccelChoice { "auto" => Auto, "kvm" => Kvm, "tcg" => Tcg });
choice!(FirmwareChoice { "auto" => Auto, "bios" => Bios, "uefi" => Uefi });

/// A duration as users write it: `90s`, `5m`, `1h 30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Timeout(pub std::time::Duration);

impl FromStr for Timeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match humantime::parse_duration(text) {
            Ok(duration) if !duration.is_zero() => Ok(Self(duration)),
            _ => Err(format!(
                "invalid duration {text:?}: expected e.g. 90s or 5m"
            )),
        }
    }
}

impl TryFrom<String> for Timeout {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// The largest VM that makes sense to ask of one host process.
pub const MOST_CPUS: u8 = 64;

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

/// Each host port once.
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

/// Each of the guest's directories once.
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

/// The longest config that is read, in bytes. The parser takes much time for what is no config.
const LONGEST: usize = 256 << 10;

/// The longest line of an excerpt, in characters.
const LONGEST_LINE: usize = 200;

/// The parser's message, with lines that fit a screen.
fn reason(message: &str) -> String {
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

/// Why a config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A line of it is wrong.
    #[error("{}: {message}", path.display())]
    Invalid {
        /// The config.
        path: PathBuf,
        /// The line, the key and what is wrong.
        message: String,
    },
    /// It reaches the host, and its user has not approved that.
    #[error("{} is not trusted: it {}", path.display(), reaches.join("; it "))]
    Untrusted {
        /// The config.
        path: PathBuf,
        /// What it reaches, each fitting behind "it".
        reaches: Vec<String>,
    },
    /// The file itself makes trouble.
    #[error(transparent)]
    File(#[from] FileError),
}

const HEADER: &str = "\
# The config of this project's VM. Flags of `k3s-vm setup` and `k3s-vm configure` are saved here, and you can edit it.
# Changes take effect at the next start (k3s-vm restart). A disk grows and never shrinks. For another k3s_version, use
# k3s-vm upgrade. For another image, firmware or share_identity, recreate the VM: k3s-vm reset && k3s-vm setup
#
# image = \"debian-13\"      # or debian-12, ubuntu-26.04, ubuntu-24.04, ubuntu-22.04, a path, a URL
# image_sha256 = \"...\"     # the digest of the image
# k3s_version = \"stable\"   # or like \"v1.33.5+k3s1\"
# k3s_mirror = \"https://github.com/k3s-io/k3s/releases/download\"
# api_port = 6443           # default: 6443 or a free port
# accel = \"auto\"           # or \"kvm\", \"tcg\"
# cpu_model = \"Westmere\"   # a CPU model of QEMU; default: that of the host
# firmware = \"auto\"        # or \"bios\", \"uefi\"
# kubeconfig = \".kube/config\"
# timeout = \"5m\"
# ports = [\"8080:80\"]     # forwards of 127.0.0.1 to the guest; k3s-vm port add changes them at once
# mounts = [\"./src:/src\"]  # directories of the host in the guest; :ro after it is read-only
# host_access = \"5432\"      # ports of this host that the guest reaches at 10.0.2.2, or \"all\"
# isolated = true           # no network for the guest, and no way to the host
# share_identity = true     # a clone of a template, keys and certificates included
# suspend = true            # stop suspends the VM, and start resumes it
# idle_suspend = \"30m\"      # suspends the VM after this time without use; or \"off\"
#
# [k3s]
# args = [\"--flannel-backend=host-gw\"]   # flags of k3s server
# disable = [\"traefik\"]
# labels = [\"tier=dev\"]
# manifests = [\"deploy\"]                # files and directories that k3s deploys
# registries = \"registries.yaml\"        # mirrors and logins of registries
#
# [network]
# http_proxy = \"http://proxy.example:3128\"
# https_proxy = \"http://proxy.example:3128\"
# no_proxy = \"corp.example\"
# ca = [\"corp.pem\"]                     # certificates that the guest trusts
# dns = [\"192.0.2.53\"]

";

impl Config {
    /// Reads the config; a project without one has chosen nothing.
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
        // Else the next save would write it over what a person wrote in another encoding.
        if let Some(line) = text.lines().position(|line| line.contains('\u{fffd}')) {
            return Err(format!("line {} is not UTF-8", line + 1));
        }
        if text.len() > LONGEST {
            return Err(format!("it has more than {LONGEST} bytes"));
        }
        toml_edit::de::from_str(text).map_err(|error| reason(&error.to_string()))
    }

    /// Whatever `self` chose, and what `under` chose where `self` left it open.
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

    /// The text of the file at `path` with what is chosen in it and everything else as it is, and whether that is another
    /// text than it has.
    ///
    /// # Errors
    ///
    /// When the file is not TOML or cannot be read.
    pub fn merged_into_file(&self, path: &Path) -> Result<(String, bool), ConfigError> {
        let there = files::read_own(path)?;
        let text = there.clone().unwrap_or_else(|| HEADER.to_owned());
        let merged = self
            .merged_into(&text)
            .map_err(|message| ConfigError::Invalid {
                path: path.to_owned(),
                message,
            })?;
        let changed = there.as_ref() != Some(&merged);
        Ok((merged, changed))
    }

    /// The config's text `text` with what is chosen in it, and everything else left as it is.
    ///
    /// # Errors
    ///
    /// When `text` is not TOML.
    pub fn merged_into(&self, text: &str) -> Result<String, String> {
        let mut document: DocumentMut = text
            .parse()
            .map_err(|error: toml_edit::TomlError| reason(&error.to_string()))?;
        // Of a file without a key, all comments would come behind the first one.
        let header = if document.is_empty() {
            document.trailing().as_str().map(str::to_owned)
        } else {
            None
        };
        if header.is_some() {
            document.set_trailing("");
        }
        for (key, value) in self.entries() {
            match value {
                Some(mut value) => {
                    let (table, key) = table_of(&mut document, key);
                    match table.get_mut(key) {
                        Some(item) => {
                            if let Some(old) = item.as_value() {
                                *value.decor_mut() = old.decor().clone();
                            }
                            *item = Item::Value(value);
                        }
                        None => {
                            table.insert(key, Item::Value(value));
                        }
                    }
                }
                None if key == "image_sha256" => {
                    document.remove(key);
                }
                None => {}
            }
        }
        Ok(header.unwrap_or_default() + &document.to_string())
    }

    /// What the file at `path` would say with these choices and without those of `forgotten` keys (like `memory` or
    /// `k3s.args`), and what would be chosen then.
    ///
    /// # Errors
    ///
    /// When the key does not exist, or the file is not TOML.
    pub fn changed(self, path: &Path, forgotten: &[String]) -> Result<(Self, String), ConfigError> {
        let text = files::read_own(path)?.unwrap_or_else(|| HEADER.to_owned());
        let change = || {
            let mut text = text;
            for key in forgotten {
                text = Self::without(key, &text)?;
            }
            let config = self.over(Self::parse(&text)?);
            let text = config.merged_into(&text)?;
            Ok((config, text))
        };
        change().map_err(|message| ConfigError::Invalid {
            path: path.to_owned(),
            message,
        })
    }

    fn without(key: &str, text: &str) -> Result<String, String> {
        let keys = Self::default().entries();
        if !keys.iter().any(|&(known, _)| known == key) {
            let keys: Vec<_> = keys.into_iter().map(|(known, _)| known).collect();
            return Err(format!(
                "unknown key {key:?}: expected one of {}",
                keys.join(", ")
            ));
        }
        let mut document: DocumentMut = text
            .parse()
            .map_err(|error: toml_edit::TomlError| reason(&error.to_string()))?;
        match key.split_once('.') {
            Some((table, key)) => document
                .get_mut(table)
                .and_then(Item::as_table_like_mut)
                .and_then(|table| table.remove(key)),
            None => document.remove(key),
        };
        Ok(document.to_string())
    }

    fn entries(&self) -> Vec<Entry> {
        let text = |value: Option<String>| value.map(Value::from);
        let flat = [
            ("cpus", self.cpus.map(|cpus| Value::from(i64::from(cpus)))),
            ("memory", text(self.memory.map(|size| size.to_string()))),
            ("disk", text(self.disk.map(|size| size.to_string()))),
            ("image", text(self.image.clone())),
            (
                "image_sha256",
                text(self.image_sha256.map(|digest| digest.to_string())),
            ),
            ("k3s_version", text(self.k3s_version.clone())),
            ("k3s_mirror", text(self.k3s_mirror.clone())),
            (
                "api_port",
                self.api_port.map(|port| Value::from(i64::from(port))),
            ),
            (
                "accel",
                text(self.accel.map(|accel| accel.name().to_owned())),
            ),
            ("cpu_model", text(self.cpu_model.clone())),
            (
                "firmware",
                text(self.firmware.map(|firmware| firmware.name().to_owned())),
            ),
            (
                "kubeconfig",
                text(
                    self.kubeconfig
                        .as_ref()
                        .map(|path| path.to_string_lossy().into_owned()),
                ),
            ),
            (
                "timeout",
                text(
                    self.timeout
                        .map(|timeout| humantime::format_duration(timeout.0).to_string()),
                ),
            ),
            ("isolated", self.isolated.map(Value::from)),
            (
                "host_access",
                text(self.host_access.as_ref().map(ToString::to_string)),
            ),
            (
                "ports",
                self.ports
                    .as_ref()
                    .map(|ports| ports.iter().map(ToString::to_string).collect()),
            ),
            (
                "mounts",
                self.mounts
                    .as_ref()
                    .map(|mounts| mounts.iter().map(ToString::to_string).collect()),
            ),
            ("suspend", self.suspend.map(Value::from)),
            (
                "idle_suspend",
                text(self.idle_suspend.map(|idle| idle.to_string())),
            ),
            ("share_identity", self.share_identity.map(Value::from)),
        ];
        flat.into_iter()
            .chain(self.k3s.entries())
            .chain(self.network.entries())
            .collect()
    }
}

/// The table that has `key`, made if there is none, and what the key is called in it.
fn table_of<'a, 'b>(
    document: &'a mut DocumentMut,
    key: &'b str,
) -> (&'a mut dyn TableLike, &'b str) {
    let Some((table, key)) = key.split_once('.') else {
        return (document.as_table_mut(), key);
    };
    let item = document.entry(table).or_insert_with(toml_edit::table);
    if item.as_table_like().is_none() {
        *item = toml_edit::table();
    }
    (item.as_table_like_mut().expect("it is one"), key)
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
    fn what_is_no_config_is_told_in_short() {
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
    fn saving_keeps_what_a_person_wrote() {
        let before = "# mine\nmemory = \"4GiB\" # enough?\ncpus = 2\n";
        let config = Config {
            memory: Some(Size::gib(8)),
            accel: Some(AccelChoice::Tcg),
            ..Config::default()
        };
        let after = config.merged_into(before).expect("merged");
        assert_eq!(
            after,
            "# mine\nmemory = \"8GiB\" # enough?\ncpus = 2\naccel = \"tcg\"\n"
        );
    }

    #[test]
    fn what_is_forgotten_is_open_again() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("config");
        let text = "cpus = 2\n\n[k3s]\n# mine\ndisable = [\"traefik\"]\nlabels = [\"a=b\"]\n";
        std::fs::write(&path, text).expect("written");
        let flags = Config {
            network: Network {
                no_proxy: Some("x".into()),
                ..Network::default()
            },
            ..Config::default()
        };
        let forget = |key: &str| flags.clone().changed(&path, &[key.to_owned()]);
        let (config, text) = forget("k3s.labels").expect("a key");
        assert_eq!(config.k3s.labels, None);
        assert_eq!(
            text,
            "cpus = 2\n\n[k3s]\n# mine\ndisable = [\"traefik\"]\n\n[network]\nno_proxy = \"x\"\n"
        );
        assert_eq!(Config::parse(&text), Ok(config));
        let message = forget("k3s.label").expect_err("no key").to_string();
        assert!(message.contains("k3s.labels, k3s.manifests"), "{message}");
    }

    #[test]
    fn a_new_file_begins_with_its_comments() {
        let config = Config {
            cpus: Some(2),
            ..Config::default()
        };
        assert_eq!(
            config.merged_into(HEADER).expect("merged"),
            format!("{HEADER}cpus = 2\n")
        );
    }

    #[test]
    fn flags_go_over_the_file_and_read_back() {
        let file = Config::parse("cpus = 4\nimage = \"debian-13\"\n").expect("sound");
        let flags = Config {
            cpus: Some(3),
            ports: Some(vec![Forward::tcp(8080, 80)]),
            timeout: Some("90s".parse().expect("sound")),
            idle_suspend: Some("1h 30m".parse().expect("sound")),
            ..Config::default()
        };
        let both = flags.over(file);
        let saved = both.merged_into(HEADER).expect("merged");
        assert_eq!(Config::parse(&saved), Ok(both));
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
