//! What a setup needs, carried to a host without internet: one archive with base images and releases, as files, and before
//! them a list that says what they are and their checksums.

mod export;
mod import;
mod list;
#[cfg(test)]
mod tests;

pub use export::{collect, collect_all, write};
pub use import::import;
pub use list::{ArchiveEntry, ArchiveManifest, Kind};
