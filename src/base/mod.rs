//! Small types and functions that every room uses: addresses, sizes, digests, names, forwarded ports, mounts, k3s's
//! flags, labels, proxies, durable files, trusted paths, progress, secrets.

pub mod address;
pub(crate) mod as_text;
pub mod causes;
pub mod digest;
mod dns_label;
pub mod files;
pub mod forward;
pub mod host_access;
pub mod k3s_flag;
pub mod log_cap;
pub mod machine_alias;
pub mod mount;
pub mod name;
pub mod node_label;
pub mod progress;
pub mod proxy;
pub mod resolv_conf;
pub mod secrets;
pub mod size;
pub mod snapshot_name;
pub mod sparse;
pub mod tar_limit;
pub mod tls;
pub mod trust;
pub mod umask;
pub mod user_dirs;
pub mod yaml;

pub use digest::Digest;
pub use files::FileError;
pub use forward::{Forward, HostPort, Protocol};
pub use host_access::HostAccess;
pub use k3s_flag::K3sFlag;
pub use machine_alias::MachineAlias;
pub use mount::Mount;
pub use name::Name;
pub use node_label::NodeLabel;
pub use progress::Progress;
pub use proxy::Proxy;
pub use size::Size;
pub use snapshot_name::SnapshotName;
