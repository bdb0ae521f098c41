//! Archives of the cache for hosts without internet: base images and releases as files, after a list of them with
//! checksums.

mod export;
mod import;
mod list;
#[cfg(test)]
mod tests;

pub use export::{collect, collect_all, write};
pub use import::import;
pub use list::{ArchiveEntry, ArchiveManifest, Kind};
