//! Names of snapshots, which are directory names as well.

use std::{fmt, str::FromStr};

/// The name of a snapshot: 1 to 64 ASCII letters, digits, `.`, `_` and `-`, with a letter or digit first. It is a valid
/// file name everywhere, never hidden, never a path, and never an option.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName(String);

/// The reason why a text is not such a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid name {0:?}: expected 1 to 64 of a-z, A-Z, 0-9, ., _ and -, with a letter or digit first"
)]
pub struct ParseSnapshotNameError(String);

const LONGEST: usize = 64;

impl SnapshotName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SnapshotName {
    type Err = ParseSnapshotNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let sound = (1..=LONGEST).contains(&text.len())
            && text.chars().all(allowed)
            && text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if sound {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseSnapshotNameError(text.to_owned()))
        }
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_plain_file_names() {
        let longest = "a".repeat(64);
        for text in [
            "a",
            "0",
            "v1.2_rc-3",
            "2026-11-23T20-05-17Z",
            "a..",
            &longest,
        ] {
            assert_eq!(
                text.parse::<SnapshotName>().map(|it| it.to_string()),
                Ok(text.into())
            );
        }
        let longer = "a".repeat(65);
        for text in [
            "", ".", "..", ".a", "-a", "_a", "a/b", "../a", "a b", "a\n", "a\0", "é", "a:b",
            &longer,
        ] {
            assert!(text.parse::<SnapshotName>().is_err(), "{text:?}");
        }
    }
}
