//! What commands that were killed left behind is finished or cleared, once at the beginning of each command.

pub mod interrupted;
pub mod replacement;
pub mod running;
pub mod unfinished_snapshot;
