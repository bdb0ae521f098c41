//! k3s: its release, its configuration, when it is ready, and the tools that talk to it.

pub mod api;
pub mod config;
pub mod images;
pub mod kubeconfig;
pub mod kubeconfig_edit;
pub mod release;
pub mod tools;
pub mod version_skew;

pub use api::{Api, ApiError, Node};
pub use kubeconfig::{Kubeconfig, KubeconfigError};
pub use kubeconfig_edit::MergeError;
