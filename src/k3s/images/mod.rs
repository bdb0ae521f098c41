//! Container images: their names, archives of them, and the images of the node.

pub mod archive;
mod archive_filter;
mod contents;
pub mod error;
pub mod listing;
mod parts;
pub mod pending;
pub mod reference;

pub use archive::pass;
pub use error::ArchiveError;
pub use listing::Listed;
pub use pending::{Guest, Passed, PendingImage};
pub use reference::Reference;
