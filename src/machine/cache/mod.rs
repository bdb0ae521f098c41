//! What VMs share on this host: base images and releases, who uses them, and archives of them.

pub mod archive;
pub mod assets;
pub mod contents;
mod needs;
pub mod references;
