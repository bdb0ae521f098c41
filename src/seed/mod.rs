//! The seed: the files that the guest reads at its first boot, as a small FAT image. For cloud-init it is a NoCloud
//! data source.

pub mod cloud_config;
pub mod fat;

pub use fat::SeedFile;
