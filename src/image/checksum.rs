//! The checksums of publishers: SHA-256 from Ubuntu, Fedora, AlmaLinux, Rocky Linux and k3s, SHA-512 from Debian. The
//! cache names files by SHA-256, which is always computed.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha512};

use crate::base::{Digest, digest::Hasher};

/// The expected digest of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checksum {
    /// A SHA-256 digest.
    Sha256(Digest),
    /// A SHA-512 digest.
    Sha512(Box<[u8; 64]>),
}

/// The reason why a text is not a checksum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a SHA-256 nor a SHA-512 checksum")]
pub struct ParseChecksumError(String);

impl Checksum {
    /// The entry for `file` in the output of `sha256sum` or `sha512sum`, with `--tag` as well.
    pub fn find_in(sums: &str, file: &str) -> Option<Self> {
        let entries = sums
            .lines()
            .filter_map(|line| tagged(line).or_else(|| listed(line)));
        let mut checksums = entries.filter(|(name, _)| *name == file);
        checksums.find_map(|(_, checksum)| checksum.parse().ok())
    }
}

/// The name and checksum of a line like `SHA256 (image.qcow2) = 0123...`.
fn tagged(line: &str) -> Option<(&str, &str)> {
    let (name, checksum) = line.trim_end().rsplit_once(") = ")?;
    let (kind, name) = name.split_once(" (")?;
    ["SHA256", "SHA512"]
        .contains(&kind)
        .then_some((name, checksum))
}

/// The name and checksum of a line like `0123...  image.qcow2`, with `*` before the name of a binary file.
fn listed(line: &str) -> Option<(&str, &str)> {
    let (checksum, name) = line.trim_end().split_once(char::is_whitespace)?;
    let name = name.trim_start();
    Some((name.strip_prefix('*').unwrap_or(name), checksum))
}

impl FromStr for Checksum {
    type Err = ParseChecksumError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseChecksumError(text.to_owned());
        if text.len() != 128 {
            return text.parse().map(Self::Sha256).map_err(|_| error());
        }
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(error());
        }
        let mut bytes = Box::new([0; 64]);
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..][..2], 16).map_err(|_| error())?;
        }
        Ok(Self::Sha512(bytes))
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => write!(f, "SHA-256 {digest}"),
            Self::Sha512(bytes) => {
                f.write_str("SHA-512 ")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// Both digests of bytes that are read; SHA-512 only if it is expected.
#[derive(Debug)]
pub(super) struct Sums {
    sha256: Hasher,
    sha512: Option<Sha512>,
}

impl Sums {
    /// No bytes yet; to be compared with `expected`.
    pub(super) fn toward(expected: Option<&Checksum>) -> Self {
        let sha512 = matches!(expected, Some(Checksum::Sha512(_))).then(Sha512::new);
        Self {
            sha256: Hasher::default(),
            sha512,
        }
    }

    /// Adds bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
    }

    /// The SHA-256 of all bytes, and the checksum of the expected kind.
    pub(super) fn finish(self) -> (Digest, Checksum) {
        let digest = self.sha256.finish();
        let actual = match self.sha512 {
            Some(sha512) => Checksum::Sha512(Box::new(sha512.finalize().into())),
            None => Checksum::Sha256(digest),
        };
        (digest, actual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_file_in_both_checksum_formats() {
        let sha256 = Digest::of(b"x").to_string();
        let sha512 = "ab".repeat(64);
        let sums = format!(
            "# d.img: 4 bytes\n{sha256} *a.img\n{sha512}  b.qcow2\nnonsense\nzz  c.img\n\n\
             SHA256 (d.img) = {sha256}\nSHA512 (e (1).img) = {sha512}\nMD5 (f.img) = {sha256}\n"
        );
        assert_eq!(
            Checksum::find_in(&sums, "a.img"),
            Some(Checksum::Sha256(Digest::of(b"x")))
        );
        assert_eq!(
            Checksum::find_in(&sums, "b.qcow2"),
            Some(Checksum::Sha512(Box::new([0xab; 64])))
        );
        for (file, length) in [("d.img", 64), ("e (1).img", 128)] {
            let found = Checksum::find_in(&sums, file).expect(file).to_string();
            assert_eq!(found.len(), "SHA-256 ".len() + length, "{file}");
        }
        for absent in ["a", "img", "c.img", "*a.img", "f.img", ""] {
            assert_eq!(Checksum::find_in(&sums, absent), None, "{absent}");
        }
    }

    #[test]
    fn computes_the_requested_digest() {
        // FIPS 180-4's example: SHA-512 of "abc".
        let abc: Checksum = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
            .parse()
            .expect("128 digits");
        let mut sums = Sums::toward(Some(&abc));
        sums.update(b"a");
        sums.update(b"bc");
        assert_eq!(sums.finish(), (Digest::of(b"abc"), abc));
        assert!("zz".repeat(64).parse::<Checksum>().is_err());
        assert!("é".repeat(64).parse::<Checksum>().is_err());
    }
}
