//! Image references in the full form of a container runtime.

use std::{fmt, str::FromStr};

/// An image's whole name: a registry, a path, a tag or a digest, like `docker.io/library/busybox:latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference(String);

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid image name {0:?}: expected e.g. busybox:1.36 or registry.example.org/team/app:dev"
)]
pub struct ParseReferenceError(String);

impl Reference {
    /// The name as the runtime writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether Kubernetes asks the registry each time for an image of that name: the tag is `latest`.
    pub fn is_pulled_always(&self) -> bool {
        self.0.ends_with(":latest")
    }
}

/// Users write short references: without a registry it is Docker's, without a tag `latest`.
impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseReferenceError(text.to_owned());
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let path_begins = name.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match name[path_begins..].find(':') {
            Some(colon) => (
                &name[..path_begins + colon],
                Some(&name[path_begins + colon + 1..]),
            ),
            None => (name, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, rest.to_owned())
            }
            Some(_) => ("docker.io", name.to_owned()),
            None => ("docker.io", format!("library/{name}")),
        };
        let (registry, path) = match registry {
            "index.docker.io" => ("docker.io", path),
            "docker.io" if !path.contains('/') => ("docker.io", format!("library/{path}")),
            other => (other, path),
        };
        let sound = is_registry(registry)
            && path.split('/').all(is_part)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest)
            && text.len() < 512;
        if !sound {
            return Err(error());
        }
        let mut whole = format!("{registry}/{path}");
        match (tag, digest) {
            (Some(tag), None) => whole = format!("{whole}:{tag}"),
            (None, None) => whole += ":latest",
            (Some(tag), Some(digest)) => whole = format!("{whole}:{tag}@{digest}"),
            (None, Some(digest)) => whole = format!("{whole}@{digest}"),
        }
        Ok(Self(whole))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_registry(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".-:".contains(c))
}

fn is_part(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(letter)
        && text.ends_with(letter)
        && text.chars().all(|c| letter(c) || "._-".contains(c))
}

fn is_tag(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && !text.starts_with(['.', '-'])
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| {
        digits.len() == 64
            && digits
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed() {
        for (short, whole) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("docker.io/busybox:1", "docker.io/library/busybox:1"),
            ("index.docker.io/a/b:1", "docker.io/a/b:1"),
            ("team/app:dev", "docker.io/team/app:dev"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("reg.example.org:5000/a/b:v1", "reg.example.org:5000/a/b:v1"),
        ] {
            assert_eq!(short.parse(), Ok(Reference(whole.to_owned())), "{short}");
        }
        let digest = format!("sha256:{}", "ab".repeat(32));
        let pinned: Reference = format!("a/b@{digest}").parse().expect("a name");
        assert_eq!(pinned.as_str(), format!("docker.io/a/b@{digest}"));
    }

    #[test]
    fn invalid_names_are_rejected() {
        for text in [
            "",
            ":",
            "a:",
            "App",
            "a//b",
            "a b",
            "a;b",
            "a:$(x)",
            "-a",
            "a@sha256:1",
            "/a",
            "a/",
            "a:b:c",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_latest_is_pulled_always() {
        let always = |text: &str| {
            text.parse::<Reference>()
                .expect("a name")
                .is_pulled_always()
        };
        assert!(always("a"));
        assert!(always("a:latest"));
        assert!(!always("a:1"));
    }
}
