//! k3s releases: their files, their places on GitHub and on mirrors, and the texts that describe them.

use std::{cmp::Ordering, fmt, str::FromStr};

use serde::Deserialize;
use url::Url;

use crate::base::{
    Digest,
    address::{shown, shown_text},
    as_text::serialize_as_text,
};

/// The k3s binary, which is also a kubectl when it is called so.
pub const BINARY: &str = "k3s";

/// The images of k3s's own containers, for a guest without internet.
pub const AIRGAP: &str = "k3s-airgap-images-amd64.tar.zst";

/// The checksums of both.
pub const CHECKSUMS: &str = "sha256sum-amd64.txt";

/// The server that names the current version of each channel.
pub const CHANNELS: &str = "https://update.k3s.io/v1-release/channels";

/// The default channel.
pub const STABLE: &str = "stable";

/// How many channels an error lists, the newest first.
const SHOWN: usize = 8;

const GITHUB: &str = "https://github.com/k3s-io/k3s/releases/download";

/// The reason why a release cannot be named or parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// An invalid release name.
    #[error("invalid k3s version {0:?}: expected e.g. v1.33.5+k3s1")]
    Version(String),
    /// An invalid mirror.
    #[error("invalid mirror {url:?}: {reason}")]
    Mirror {
        /// The URL.
        url: String,
        /// The reason.
        reason: String,
    },
    /// A checksum file without an entry for the binary.
    #[error("the checksums of the release have none for {BINARY}")]
    NoChecksum,
    /// The channel server's answer has no such channel.
    #[error("the channels of k3s name no version for {channel:?}: {reason}")]
    NoChannel {
        /// The channel.
        channel: String,
        /// The content of the answer.
        reason: String,
    },
}

/// The version of a k3s release: `v1.33.5+k3s1`, `v1.36.0-rc2+k3s1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(String);

impl Version {
    /// The version as text, with its `v`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The major and the minor number: 1 and 33.
    pub fn minor(&self) -> (u32, u32) {
        let [major, minor, ..] = self.numbers();
        (major, minor)
    }

    /// The order of releases: by numbers, then alpha, beta and candidates before the release itself, then k3s's own
    /// build of it.
    fn numbers(&self) -> [u32; 6] {
        let (kubernetes, build) = self.0[1..].split_once("+k3s").unwrap_or_default();
        let (numbers, candidate) = kubernetes.split_once('-').unwrap_or((kubernetes, ""));
        let number = |text: &str| text.parse().unwrap_or_default();
        let mut numbers = numbers.split('.').map(number);
        let mut next = || numbers.next().unwrap_or_default();
        let digits = candidate.trim_start_matches(|it: char| it.is_ascii_alphabetic());
        let stage = match &candidate[..candidate.len() - digits.len()] {
            "alpha" => 0,
            "beta" => 1,
            "rc" => 2,
            _ => 3,
        };
        [next(), next(), next(), stage, number(digits), number(build)]
    }
}

/// The newer one is the greater one.
impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers().cmp(&other.numbers())
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for Version {
    type Err = ReleaseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.strip_prefix('v').unwrap_or(text);
        if is_version(bare) {
            Ok(Self(format!("v{bare}")))
        } else {
            Err(ReleaseError::Version(text.to_owned()))
        }
    }
}

/// `1.33.5+k3s1` or `1.36.0-rc2+k3s1`. The version becomes a part of URLs and paths, so all other texts are refused.
fn is_version(text: &str) -> bool {
    let Some((kubernetes, build)) = text.split_once("+k3s") else {
        return false;
    };
    let (numbers, candidate) = match kubernetes.split_once('-') {
        Some((numbers, candidate)) => (numbers, Some(candidate)),
        None => (kubernetes, None),
    };
    let is_stage = |candidate: &str| {
        let stages = ["alpha", "beta", "rc"];
        stages
            .iter()
            .any(|stage| candidate.strip_prefix(stage).is_some_and(is_number))
    };
    let parts: Vec<&str> = numbers.split('.').collect();
    parts.len() == 3
        && parts.into_iter().all(is_number)
        && is_number(build)
        && candidate.is_none_or(is_stage)
}

/// A number as versions write it, of few enough digits for a file name.
fn is_number(text: &str) -> bool {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits && (1..=6).contains(&text.len()) && (text == "0" || !text.starts_with('0'))
}

serialize_as_text!(Version);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A source of releases, with a directory for each version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror(Url);

/// The releases of k3s on GitHub.
impl Default for Mirror {
    fn default() -> Self {
        Self(Url::parse(GITHUB).expect("a constant, which a test parses"))
    }
}

impl FromStr for Mirror {
    type Err = ReleaseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |reason: &str| ReleaseError::Mirror {
            url: shown_text(text),
            reason: reason.to_owned(),
        };
        let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
        match url.scheme() {
            "http" | "https" => {}
            "file" if url.to_file_path().is_ok() => {}
            "file" => return Err(bad("it names no directory of this host")),
            _ => return Err(bad("it takes http, https or file")),
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("it takes no ? and no #"));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

/// The URLs of the files of one release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseUrls {
    /// [`BINARY`].
    pub binary: Url,
    /// [`CHECKSUMS`].
    pub checksums: Url,
    /// [`AIRGAP`], which a mirror may lack.
    pub airgap: Url,
}

/// The URLs of `version` on `mirror`. The `+` is escaped, for some servers read it as a space; in a file URL it still
/// names a directory with a plain `+`.
pub fn plan(mirror: &Mirror, version: &Version) -> ReleaseUrls {
    let directory = format!(
        "{}/{}",
        mirror.0.path().trim_end_matches('/'),
        version.as_str().replace('+', "%2B")
    );
    let file = |name: &str| {
        let mut url = mirror.0.clone();
        url.set_path(&format!("{directory}/{name}"));
        url
    };
    ReleaseUrls {
        binary: file(BINARY),
        checksums: file(CHECKSUMS),
        airgap: file(AIRGAP),
    }
}

/// The digests of the files of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksums {
    /// Of [`BINARY`].
    pub binary: Digest,
    /// Of [`AIRGAP`], where the release has it.
    pub airgap: Option<Digest>,
}

/// Reads `sha256sum`'s output.
///
/// # Errors
///
/// When it has no line for [`BINARY`].
pub fn parse_checksums(text: &str) -> Result<Checksums, ReleaseError> {
    let find = |file: &str| {
        text.lines().find_map(|line| {
            let (digest, name) = line.trim_end().split_once(char::is_whitespace)?;
            let name = name.trim_start();
            let is_it = name.strip_prefix('*').unwrap_or(name) == file;
            is_it.then(|| digest.parse().ok()).flatten()
        })
    };
    Ok(Checksums {
        binary: find(BINARY).ok_or(ReleaseError::NoChecksum)?,
        airgap: find(AIRGAP),
    })
}

/// The version that the `stable` channel names, from the JSON at [`CHANNELS`].
///
/// # Errors
///
/// Those of [`channel`].
pub fn stable_channel(json: &str) -> Result<Version, ReleaseError> {
    channel(json, STABLE)
}

/// The version that a channel names, from the JSON at [`CHANNELS`].
///
/// # Errors
///
/// When the text is something else, or has no such channel.
pub fn channel(json: &str, name: &str) -> Result<Version, ReleaseError> {
    #[derive(Deserialize)]
    struct Channels {
        data: Vec<Channel>,
    }
    #[derive(Deserialize)]
    struct Channel {
        name: String,
        #[serde(default)]
        latest: Option<String>,
    }
    let unnamed = |reason: String| ReleaseError::NoChannel {
        channel: name.to_owned(),
        reason,
    };
    let channels: Channels =
        serde_json::from_str(json).map_err(|error| unnamed(error.to_string()))?;
    let found = channels.data.iter().find(|channel| channel.name == name);
    match found.map(|channel| &channel.latest) {
        Some(Some(latest)) => latest.parse(),
        Some(None) => Err(unnamed("it has no release".to_owned())),
        None => {
            let known = channels.data.iter().filter(|it| it.latest.is_some());
            let known: Vec<&str> = known.map(|it| it.name.as_str()).take(SHOWN).collect();
            Err(unnamed(format!("expected one of {}", known.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_with_and_without_their_v() {
        for text in [
            "v1.33.5+k3s1",
            "1.33.5+k3s1",
            "v1.36.0-rc2+k3s1",
            "v1.0.10+k3s12",
        ] {
            let version: Version = text.parse().expect(text);
            assert_eq!(
                version.as_str(),
                format!("v{}", text.trim_start_matches('v'))
            );
            assert_eq!(version.to_string().parse(), Ok(version));
        }
    }

    #[test]
    fn newer_versions_are_greater() {
        let versions: Vec<Version> = [
            "v0.9.99+k3s9",
            "v1.9.10+k3s1",
            "v1.33.5-alpha9+k3s1",
            "v1.33.5-beta1+k3s1",
            "v1.33.5-rc2+k3s1",
            "v1.33.5-rc10+k3s1",
            "v1.33.5+k3s1",
            "v1.33.5+k3s2",
            "v1.33.5+k3s10",
            "v1.33.10+k3s1",
            "v1.100.0+k3s1",
            "v2.0.0+k3s1",
        ]
        .map(|it| it.parse().expect(it))
        .to_vec();
        let mut sorted = versions.clone();
        sorted.reverse();
        sorted.sort();
        assert_eq!(sorted, versions);
        assert_eq!(versions[10].minor(), (1, 100));
    }

    #[test]
    fn invalid_versions_are_rejected() {
        for text in [
            "",
            "v",
            "stable",
            "latest",
            "v1.33.5",
            "v1.33+k3s1",
            "v1.33.5+k3s",
            "v1.33.5+k3s1x",
            "vv1.33.5+k3s1",
            "v1.33.5 +k3s1",
            "v1.33.5+k3s1\n",
            " v1.33.5+k3s1",
            "v1.33.5+rke2r1",
            "v01.33.5+k3s1",
            "v1.33.5-+k3s1",
            "v1.33.5-rc+k3s1",
            "v1.33.5-x1+k3s1",
            "../v1.33.5+k3s1",
            "v1.33.5+k3s1/..",
            "v1/../1+k3s1",
            "v1.33.-5+k3s1",
            "v1.33.5%2Bk3s1",
            "v1.33.5-k3s1",
            "v1.٣.5+k3s1",
            "v1.2.3+k3s1+k3s1",
            "v1.2.3.4+k3s1",
            "v1.2.1234567+k3s1",
        ] {
            assert_eq!(
                text.parse::<Version>(),
                Err(ReleaseError::Version(text.to_owned()))
            );
        }
    }

    #[test]
    fn a_mirror_has_a_directory_for_each_version() {
        let version: Version = "v1.33.5+k3s1".parse().expect("a version");
        for (mirror, binary) in [
            (
                GITHUB,
                "https://github.com/k3s-io/k3s/releases/download/v1.33.5%2Bk3s1/k3s",
            ),
            ("http://[::1]:8080", "http://[::1]:8080/v1.33.5%2Bk3s1/k3s"),
            (
                "http://u:p@h/a%20b//",
                "http://u:p@h/a%20b/v1.33.5%2Bk3s1/k3s",
            ),
            (
                "file:///srv/k%203s/",
                "file:///srv/k%203s/v1.33.5%2Bk3s1/k3s",
            ),
        ] {
            let urls = plan(&mirror.parse().expect(mirror), &version);
            assert_eq!(urls.binary.as_str(), binary);
            assert_eq!(
                urls.checksums,
                urls.binary.join(CHECKSUMS).expect("beside it")
            );
            assert_eq!(urls.airgap, urls.binary.join(AIRGAP).expect("beside it"));
        }
        let local = plan(&"file:///srv/m".parse().expect("a mirror"), &version).airgap;
        let path = local.to_file_path().expect("a path");
        assert_eq!(
            path,
            std::path::Path::new("/srv/m/v1.33.5+k3s1").join(AIRGAP)
        );
        assert_eq!(Mirror::default().to_string(), GITHUB);
    }

    #[test]
    fn invalid_mirrors_are_rejected() {
        for text in [
            "",
            "/srv/mirror",
            "ftp://h/k3s",
            "file://host/k3s",
            "http://",
            "http://h/?a",
            "http://h/#a",
        ] {
            let error = text.parse::<Mirror>().expect_err(text).to_string();
            assert!(
                error.starts_with(&format!("invalid mirror {text:?}: ")),
                "{error}"
            );
        }
    }

    #[test]
    fn checksums_are_found_by_name() {
        let [binary, airgap, other] =
            ["k3s", "airgap", "other"].map(|text| Digest::of(text.as_bytes()));
        let text = format!(
            "{other}  k3s-airgap-images-amd64.tar\n{airgap}  {AIRGAP}\n{binary} *k3s\r\n\nnonsense\n"
        );
        let checksums = Checksums {
            binary,
            airgap: Some(airgap),
        };
        assert_eq!(parse_checksums(&text), Ok(checksums));
        let alone = parse_checksums(&format!("{binary}  k3s")).expect("enough");
        assert_eq!(alone.airgap, None);
        for text in [
            "",
            "<html>Not Found</html>",
            &format!("{other}  k3s-arm64\n"),
            "abc  k3s\n",
        ] {
            assert_eq!(
                parse_checksums(text),
                Err(ReleaseError::NoChecksum),
                "{text}"
            );
        }
    }

    #[test]
    fn the_stable_channel_is_read_from_the_servers_answer() {
        let answer = r#"{"type":"collection","links":{"self":"https://update.k3s.io/v1-release/channels"},"data":[
            {"id":"testing","type":"channel","name":"testing","latest":"v1.37.0-rc1+k3s1","latestRegexp":"x"},
            {"id":"v1.99","type":"channel","name":"v1.99"},
            {"id":"stable","type":"channel","links":{},"name":"stable","latest":"v1.36.5+k3s1"}]}"#;
        assert_eq!(
            stable_channel(answer).expect("named").as_str(),
            "v1.36.5+k3s1"
        );
        assert_eq!(
            channel(answer, "testing").expect("named").as_str(),
            "v1.37.0-rc1+k3s1"
        );
        let error = channel(answer, "v1.98").expect_err("none").to_string();
        assert!(
            error.ends_with("\"v1.98\": expected one of testing, stable"),
            "{error}"
        );
        for text in [
            "",
            "<html>",
            "{}",
            r#"{"data":[]}"#,
            r#"{"data":[{"name":"stable"}]}"#,
        ] {
            assert!(
                matches!(stable_channel(text), Err(ReleaseError::NoChannel { .. })),
                "{text}"
            );
        }
        let strange = r#"{"data":[{"name":"stable","latest":"v1/../x"}]}"#;
        assert_eq!(
            stable_channel(strange),
            Err(ReleaseError::Version("v1/../x".to_owned()))
        );
    }
}
