//! What the guest is configured with: the config archive, mounts, proxies, DNS, the seed, and the identity it receives.

pub mod cidata;
pub mod config_archive;
pub mod host_dns;
pub mod identity_channel;
pub mod mount_check;
pub mod mounts;
pub mod proxy_env;
