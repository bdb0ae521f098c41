//! One VM. Its rooms from low to high, and imports go only to lower ones: [`error`], [`model`], [`control`], [`cache`],
//! [`guest_config`], [`access`], [`launch`], [`memory`], [`template`], [`recover`], [`snapshots`], [`lifecycle`],
//! [`upgrade`], [`report`].
//!
//! State is observed (who locks the pidfile, does the monitor answer, does the API answer) and never believed from a file.

pub mod access;
pub mod cache;
pub mod control;
pub mod error;
pub mod guest_config;
pub mod launch;
pub mod lifecycle;
pub mod memory;
pub mod model;
pub mod recover;
pub mod report;
pub mod snapshots;
pub mod template;
pub mod upgrade;

pub use control::handle::{Machine, State};
pub use error::MachineError;
pub use model::{deadlines::Limits, spec::Spec, timings::Timings};
