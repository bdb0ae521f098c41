//! The accelerator: KVM or emulation (TCG).

use std::fmt;

use super::Version;

/// The chosen accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The CPU, through `/dev/kvm`.
    Kvm,
    /// QEMU's emulation: works everywhere, five to twenty times slower.
    Tcg,
}

/// QEMU's translator computes the flags of `cmpxchg16b` from a stale state before this release, which rewrote it; Linux
/// since 6.5 allocates memory with that instruction and crashes with a double fault within seconds. (Measured: QEMU 7.2 and
/// Linux 6.12 panicked in 3 of 3 boots, and in 0 of 7 without the instruction.)
const SOUND_CMPXCHG16B: Version = Version { major: 8, minor: 0 };

impl Accelerator {
    /// The CPU model: the chosen one, or all features of the host or of this QEMU's emulation that work.
    pub fn cpu(self, qemu: Version, chosen: Option<&str>) -> String {
        let model = chosen.unwrap_or(match self {
            Self::Kvm => "host",
            Self::Tcg => "max",
        });
        if self == Self::Tcg && qemu < SOUND_CMPXCHG16B {
            return format!("{model},cx16=off");
        }
        model.to_owned()
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}
