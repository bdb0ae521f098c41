//! The terminal: what is printed, drawn, logged and asked.

pub(super) mod confirm;
pub(super) mod events;
pub(super) mod lines;
pub(super) mod log;
pub(super) mod machine_flag;
pub(super) mod markup;
pub(super) mod output;
pub(super) mod sanitize;
pub(super) mod screen;
pub(super) mod stdout;
