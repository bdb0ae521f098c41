//! The story of one machine, top to bottom. Each verb is a straight function of idempotent steps, so that a second
//! run goes on where the first one died; state is observed (who locks the pidfile, does the monitor answer, does the
//! API answer) and never believed from a file.

pub mod assets;
pub mod autostart;
pub mod boot;
pub mod bundle;
pub mod cached;
pub mod carried;
pub mod configure;
pub mod copy;
mod draft;
pub mod error;
pub mod files;
pub mod host;
pub mod host_dns;
pub mod idle;
pub mod images;
pub mod journal;
pub mod kubeconfig;
pub mod limits;
pub mod list;
pub mod logs;
pub mod make;
pub mod memory;
pub mod merge;
pub mod mounts;
pub mod ports;
pub mod power;
mod prepare;
mod proxies;
pub mod ready;
pub mod reset;
mod restore;
pub mod resume;
pub mod rollback;
mod running;
mod settings;
pub mod setup;
pub mod shell;
pub mod snapshot;
pub mod spec;
pub mod ssh_config;
pub mod state;
pub mod status;
pub mod stop;
mod suspend;
mod template;
pub mod timings;
pub mod trim;
pub mod upgrade;
pub mod watch;

pub use error::MachineError;
pub use limits::Limits;
pub use spec::Spec;
pub use state::{Machine, State};
pub use timings::Timings;
