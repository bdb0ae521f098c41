//! What is said to the guest and heard from it: keys and SSH, the port on which it listens, and the stages that it reports.

pub mod console;
pub mod copy;
mod copy_error;
pub mod course;
pub mod excerpt;
pub mod flood;
pub mod keys;
pub mod listener;
mod pack;
pub mod session;
pub mod signs;
pub mod ssh;
mod ssh_error;
pub mod stages;
pub mod swap;
pub mod unpack;

pub use console::Console;
pub use copy_error::CopyError;
pub use course::{Course, CrashLoop, Trouble};
pub use excerpt::excerpt;
pub use keys::KeyPair;
pub use session::{Event, Order, Streams, Terminal, TerminalSize};
pub use signs::Sign;
pub use ssh::Ssh;
pub use ssh_error::SshError;
pub use stages::{Report, Stage, StageLog};
