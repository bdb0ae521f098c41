//! One running QEMU and its guest: the handle that holds the lock, keys, virtual CPUs, commands in the guest, logs, and the end.

pub mod guest;
pub mod guest_logs;
pub mod handle;
pub mod keys;
pub mod terminate;
pub mod vcpu;
pub mod wake;
