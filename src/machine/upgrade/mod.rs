//! `upgrade`: a newer k3s in the running VM, with a rollback on failure.
//!
//! Which release the guest has is asked of the guest. A second upgrade continues where the first one was killed, and every
//! start finds a VM that it can start. Record and config follow when the node is Ready with the new release.

pub mod outcome;
pub mod run;
pub mod safety_snapshot;

pub use run::{Target, Upgraded, upgrade};
