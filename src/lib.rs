//! k3s-vm gives a developer a local k3s cluster in a QEMU VM: rootless, with nothing installed but QEMU.
//!
//! Imports run only to the right:
//!
//! ```text
//! cli  →  machine  →  qemu | image | seed | guest | k3s  →  project  →  base
//! ```
//!
//! - [`cli`]: the only part that knows clap and the terminal.
//! - [`machine`]: one VM: setup, start, stop, snapshots, upgrade, status.
//! - [`qemu`]: the process: command line, acceleration, firmware, liveness, monitor (QMP).
//! - [`image`]: base images: catalogue, downloads, cache, overlay (qcow2).
//! - [`seed`]: the cloud-init seed, a FAT image that the guest reads at its first boot.
//! - [`guest`]: communication with the guest: SSH, exec channel, stage reports, console.
//! - [`k3s`]: release, configuration, readiness, kubeconfig, kubectl and k9s.
//! - [`project`]: the files in `.k3s-vm/`: config, record, lock, trust.
//! - [`base`]: small types with FromStr and Display, atomic files.
//!
//! The five rooms in the middle do not import each other; `machine` connects them. Inside a room, planning is kept apart
//! from doing: a planner turns values into values and is tested without a VM.

pub mod base;
pub mod cli;
pub mod guest;
pub mod image;
pub mod k3s;
pub mod machine;
pub mod project;
pub mod qemu;
pub mod seed;
