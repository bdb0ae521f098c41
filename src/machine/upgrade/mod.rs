//! `upgrade`: a newer k3s in the machine that runs, or the machine as it was.
//!
//! What the guest has is asked of the guest: whatever dies on the way, the next upgrade goes on from there, and every start
//! finds a machine that it can start. Record and config follow when the node is Ready with the new release.

mod error;
mod kept;
mod outcome;
mod story;

pub use error::{Fell, UpgradeError};
pub use story::{Target, Upgraded, upgrade};
