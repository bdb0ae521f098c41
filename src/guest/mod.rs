//! Communication with the guest: keys and SSH, the exec port, and the stages that it reports.

mod answer;
pub mod boot_state;
pub mod console;
pub mod copy;
mod copy_error;
pub mod excerpt;
pub mod exec_channel;
pub mod k3s_upgrade;
pub mod keys;
mod pack;
pub mod session;
pub mod signs;
pub mod ssh;
mod ssh_error;
pub mod stages;
pub mod unpack;

pub use answer::Answer;
pub use boot_state::{BootState, CrashLoop, GuestFault};
pub use console::Console;
pub use copy_error::CopyError;
pub use excerpt::excerpt;
pub use keys::KeyPair;
pub use session::{Event, Order, Streams, Terminal, TerminalSize};
pub use signs::Sign;
pub use ssh::Ssh;
pub use ssh_error::SshError;
pub use stages::{Report, Stage, StageLog};
