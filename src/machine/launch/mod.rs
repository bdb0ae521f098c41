//! From a record to a QEMU process: the files on disk, the argument vector, and the spawn.

pub mod disk_files;
pub mod disk_state;
pub mod inputs;
pub mod plan;
pub mod spawn;
mod startup;

pub(crate) use startup::{CapturedMemory, Launched, Startup};
