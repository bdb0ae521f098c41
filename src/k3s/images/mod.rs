//! Container images: what they are called, what an archive of them holds, what the node has.

pub mod archive;
mod contents;
pub mod error;
pub mod listing;
mod parts;
mod passing;
pub mod pending;
pub mod reference;

pub use archive::pass;
pub use error::ArchiveError;
pub use listing::Listed;
pub use pending::{Arrival, Guest, Passed};
pub use reference::Reference;
