//! Reports about VMs: the status, the list, and the diagnostic bundle.

pub mod bundle;
pub mod list;
pub mod status;
