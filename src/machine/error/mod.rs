//! The errors of a VM's commands. They stand below all other rooms, because every room returns them.

pub mod cache_archive;
pub mod images;
pub mod machine;
pub mod upgrade;

pub use cache_archive::CacheArchiveError;
pub use images::ImagesError;
pub use machine::{BootFault, MachineError};
pub use upgrade::{UpgradeError, UpgradeFailure};
