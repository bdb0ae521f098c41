//! The next steps after an error, chosen by its variant.

mod boot;
mod cache_archive;
mod downloads;
mod files;
mod host;
mod images;
mod kubeconfig;
mod mounts;
mod ports;
mod snapshots;
mod text;
mod upgrade;
mod vm;

pub(crate) use host::{
    DISTRIBUTIONS, Fix, INSTALL_K9S, INSTALL_KUBECTL, INSTALL_QEMU, INSTALL_UEFI, JOIN_KVM,
    LOAD_KVM, for_this_host, of_kvm, this_distribution,
};
pub(crate) use vm::of;
