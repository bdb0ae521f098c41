//! The terminal's side: arguments, output, errors and exit codes. Nothing below knows clap or a terminal.

pub mod args;
mod choices;
pub mod commands;
mod complete;
mod context;
mod dispatch;
mod error;
mod global;
mod hints;
mod interrupt;
mod license;
mod run;
mod terminal;
mod topics;

pub use run::main;
pub use terminal::stdout::note_closed_stdout;
