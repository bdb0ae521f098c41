//! k3s-vm gives a developer a local k3s cluster in a virtual VM: rootless, with nothing installed but QEMU.
//!
//! Imports run only to the right:
//!
//! ```text
//! cli  →  VM  →  qemu | image | seed | guest | k3s  →  project  →  base
//! ```
//!
//! - [`cli`]: the only part that knows clap and the terminal.
//! - [`machine`]: the story of one VM, top to bottom: setup, start, stop, status, reset.
//! - [`qemu`]: the process: command line, acceleration, firmware, liveness, monitor (QMP).
//! - [`image`]: base images: catalogue, downloads, cache, overlay (qcow2).
//! - [`seed`]: what the guest reads at its first boot, as a FAT image.
//! - [`guest`]: what is said to the guest and heard from it: SSH, stage reports, console.
//! - [`k3s`]: k3s: release, configuration, readiness, kubeconfig, kubectl and k9s.
//! - [`project`]: what lies under `.k3s-vm/`.
//! - [`base`]: small types, durable files.
//!
//! The five rooms in the middle do not know each other; `machine` wires them. Inside a room, planning is kept apart
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
