//! What goes wrong, provoked for real: each fault is a clear error that names the thing and the way out, nothing is
//! lost, nothing stays running, and without the fault the same command continues.
//!
//! The guest is mostly a boot sector that does nothing, so that a test takes seconds.
//! `cargo test --test it faults -- --nocapture` shows each fault with the message that it gives.

mod boot;
mod cached;
mod choices;
mod copies;
mod crash;
mod dns;
mod durable;
mod file_access;
mod files;
mod flush;
mod foreign;
mod guest;
mod hindered;
mod host;
mod image;
mod kill;
mod kvm;
mod live;
mod load;
mod machines;
mod mirror;
mod mount_namespace;
mod moved;
mod network;
mod notes;
mod outdated;
mod paths;
mod ports;
mod private;
mod process;
mod refused;
mod sandbox;
mod secrets;
pub(crate) mod server;
mod shared;
mod signals;
mod small;
mod space;
mod steps;
mod streams;
mod suspend;
mod suspended;
mod table;
mod trust;
