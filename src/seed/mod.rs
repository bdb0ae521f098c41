//! The seed: what cloud-init reads at the first boot (its NoCloud data source), as a small FAT image.

pub mod cloud_config;
pub mod fat;

pub use cloud_config::Identity;
pub use fat::SeedFile;
