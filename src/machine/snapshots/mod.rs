//! Snapshots of a VM: created, restored and deleted.

pub mod create;
pub mod delete;
pub mod restore;
