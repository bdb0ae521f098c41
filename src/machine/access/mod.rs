//! The ways into a VM: the API, kubeconfig, ports, SSH, files, journals and images.

pub mod api;
pub mod copy;
pub mod images;
pub mod journal;
pub mod kubeconfig;
pub mod kubeconfig_merge;
pub mod ports;
pub mod shell;
pub mod ssh_config;
