//! Disks and memory that new VMs start from.

pub mod backing;
pub mod capture;
pub mod keys;
pub mod publish;
pub mod ready;
