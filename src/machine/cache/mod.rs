//! Files that VMs share on this host: base images and releases, their users, and archives of them.

pub mod archive;
pub mod assets;
pub mod contents;
mod needs;
pub mod references;
