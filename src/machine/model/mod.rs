//! What is decided before anything runs: the resolved choices, the host, deadlines, and values that are passed on.

pub mod deadlines;
pub mod host;
pub mod spec;
pub mod staging_dir;
pub mod timings;
