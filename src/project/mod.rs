//! The state of a project in `.k3s-vm/`: paths, the config that users edit, the record of the VM, and the lock of
//! commands that change it.

pub mod approval;
pub mod config;
mod config_file;
pub mod config_values;
pub mod foreign;
mod id;
pub mod identity;
pub mod idle;
pub mod lock;
pub mod paths;
pub mod record;
pub mod seal;
pub mod settings;
pub mod snapshot;
pub mod suspended;
pub mod user;

pub use config::{Config, ConfigError};
pub use identity::Identity;
pub use lock::{Lock, LockError};
pub use paths::Project;
pub use record::{Record, RecordError};
pub use snapshot::Snapshot;
pub use suspended::Suspended;
