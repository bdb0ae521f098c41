//! Values that are decided before anything runs: the resolved choices, the host, time limits.

pub mod deadlines;
pub mod host;
pub mod spec;
pub mod staging_dir;
pub mod timings;
