//! Values of the config that are written as text.

use std::{fmt, str::FromStr};

use serde::Deserialize;

use crate::base::as_text::deserialize_from_text;

/// The choice of an accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccelChoice {
    /// KVM if it works, else emulation with a warning.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// Emulation.
    Tcg,
}

/// The choice of a firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirmwareChoice {
    /// BIOS: every image of the catalogue boots with it, and it is faster.
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
            /// The accepted names.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

deserialize_from_text!(Timeout);

/// The largest number of CPUs of a VM.
pub const MOST_CPUS: u8 = 64;
