//! Disks and memory that several VMs begin from.

pub mod backing;
pub mod capture;
pub mod keys;
pub mod publish;
pub mod ready;
