//! Recovery from killed commands, once at the beginning of each command: their work is finished or removed.

pub mod interrupted;
pub mod replacement;
pub mod running;
pub mod unfinished_snapshot;
