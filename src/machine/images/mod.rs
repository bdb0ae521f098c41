//! The images of the node: sent from the host, listed, removed.

pub mod error;
pub mod load;
mod node;
pub mod source;
pub mod stock;

pub use error::ImagesError;
pub use source::Source;
