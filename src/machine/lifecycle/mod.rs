//! The commands that change a VM. Each is a sequence of idempotent steps, so that a second run continues where the first one was killed.

pub mod autostart;
pub mod boot;
pub mod boot_checks;
pub mod boot_progress;
pub mod configure;
pub mod create;
pub mod idle;
pub mod power;
pub mod preflight;
pub mod readiness;
pub mod reset;
pub mod setup;
pub mod stop;
pub mod trim;
