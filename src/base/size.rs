//! Amounts of bytes, in the usual notation: `4GiB`, `512M`, `20G`.

use std::{fmt, str::FromStr};

use crate::base::as_text::serialize_as_text;

/// A number of bytes.
///
/// Parsed units are binary with and without the `i` (`4G`, `4GB` and `4GiB` are the same), as in QEMU. A bare number is
/// refused, for it could mean bytes or gigabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

/// The reason why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid size {0:?}: expected a number and a unit, e.g. 512MiB or 4GiB")]
pub struct ParseSizeError(String);

impl Size {
    /// A number of bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A number of mebibytes (2^20 bytes).
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// A number of gibibytes (2^30 bytes).
    pub const fn gib(gib: u64) -> Self {
        Self(gib << 30)
    }

    /// The number of bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// The number of whole mebibytes.
    pub const fn as_mib(self) -> u64 {
        self.0 >> 20
    }

    /// For messages: at most one decimal, in the largest unit that leaves at least 1.
    pub fn approximate(self) -> String {
        let (unit, shift) = UNITS
            .iter()
            .find(|(_, shift)| self.0 >> shift > 0)
            .copied()
            .unwrap_or(("B", 0));
        #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
        let value = self.0 as f64 / (1u64 << shift) as f64;
        if value.fract() < 0.05 {
            format!("{value:.0} {unit}")
        } else {
            format!("{value:.1} {unit}")
        }
    }
}

impl FromStr for Size {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseSizeError(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(error()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = whole.parse().map_err(|_| error())?;
        let mut bytes = whole.checked_mul(1 << shift).ok_or_else(error)?;
        if !fraction.is_empty() {
            let numerator: u64 = fraction
                .get(..fraction.len().min(6))
                .unwrap_or_default()
                .parse()
                .map_err(|_| error())?;
            let scale = 10u64.pow(u32::try_from(fraction.len().min(6)).map_err(|_| error())?);
            bytes = bytes
                .checked_add((u128::from(numerator << shift.min(40)) / u128::from(scale)) as u64)
                .ok_or_else(error)?;
        } else if number.contains('.') {
            return Err(error());
        }
        Ok(Self(bytes))
    }
}

serialize_as_text!(Size);

/// Exact: the largest unit that divides the size, so that it is parsed as the same size.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = UNITS
            .iter()
            .find(|(_, shift)| self.0 >> shift > 0 && self.0.is_multiple_of(1 << shift))
            .copied()
            .unwrap_or(("B", 0));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_common_spellings() {
        for (text, bytes) in [
            ("4GiB", 4 << 30),
            ("4g", 4 << 30),
            ("4 GB", 4 << 30),
            ("512M", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("1024B", 1024),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(
                text.parse::<Size>().map(Size::as_bytes),
                Ok(bytes),
                "{text}"
            );
        }
    }

    #[test]
    fn rejects_other_texts() {
        for text in [
            "",
            "G",
            "-1G",
            "4X",
            "1.2.3G",
            "1.",
            "99999999999T",
            "4 G iB",
            "０G",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn shown_sizes_read_back() {
        for size in [
            Size::gib(20),
            Size::mib(1536),
            Size::bytes(4097),
            Size::bytes(0),
        ] {
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        assert_eq!(Size::mib(1536).to_string(), "1536MiB");
        assert_eq!(Size::mib(1536).approximate(), "1.5 GiB");
    }
}
