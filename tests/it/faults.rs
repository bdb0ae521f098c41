//! What goes wrong, provoked for real: each fault is a clear error that names the thing and the way out, nothing is
//! lost, nothing stays running, and without the fault the same command goes on.
//!
//! The guest is mostly a boot sector that does nothing, so that a test takes seconds.
//! `cargo test --test it faults -- --nocapture` shows each fault with the message that it gives.

mod boot;
mod cage;
mod crash;
mod files;
mod guest;
mod host;
mod image;
mod kill;
mod live;
mod mirror;
mod network;
mod paths;
mod private;
mod scene;
mod secrets;
mod server;
mod shared;
mod small;
mod space;
mod steps;
mod table;
mod trust;
