//! The memory of a guest in a file: saved, checked for compatibility, and resumed from.

pub mod compatibility;
pub mod resume;
pub mod save;
pub mod suspend;
