//! The seed: what the guest reads at its first boot, as a small FAT image; for cloud-init it is a NoCloud data source.

pub mod cloud_config;
pub mod fat;

pub use fat::SeedFile;
