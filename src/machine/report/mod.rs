//! What is shown of a VM: its status, the list of VMs, and the diagnostic bundle.

pub mod bundle;
pub mod list;
pub mod status;
