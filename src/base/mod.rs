//! Small types and habits that every room shares: addresses, sizes, digests, names, forwarded ports, durable files, trust
//! in places, progress, secrets.

pub mod address;
pub mod digest;
pub mod files;
pub mod forward;
pub mod label;
pub mod name;
pub mod progress;
pub mod secrets;
pub mod size;
pub mod sparse;
pub mod tls;
pub mod trust;

pub use digest::Digest;
pub use files::FileError;
pub use forward::{Forward, HostPort, Protocol};
pub use label::Label;
pub use name::Name;
pub use progress::Progress;
pub use size::Size;
