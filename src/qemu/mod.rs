//! The QEMU process: its command line, acceleration and firmware, how it is started, watched and ended.

pub mod accel;
mod answer;
pub mod command_line;
mod connect_filter;
pub mod features;
pub mod file_access;
pub mod firmware;
pub mod guest_abi;
pub mod kvm;
pub mod log_writer;
pub mod migration;
pub mod monitor;
pub mod peer;
pub mod process;
pub mod process_error;
mod setuid_filter;
pub mod spawn;
pub mod usernet;
pub mod version;

pub use accel::Accelerator;
pub use command_line::Launch;
pub use migration::{Layout, MigrationError};
pub use monitor::{Monitor, MonitorError};
pub use peer::monitor_of;
pub use process::Process;
pub use process_error::ProcessError;
pub use version::{Version, VersionError};
