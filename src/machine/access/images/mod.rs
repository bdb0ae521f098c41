//! The images of the node: sent from the host, listed, removed.

pub mod load;
mod node;
pub mod source;
pub mod stock;

pub use source::Source;
