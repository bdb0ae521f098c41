//! Time limits. An emulated guest has longer ones.

use std::time::{Duration, Instant};

use crate::{machine::MachineError, qemu::Accelerator};

/// The limit of a start by default.
const START_TIMEOUT_KVM: Duration = Duration::from_secs(5 * 60);

const START_TIMEOUT_TCG: Duration = Duration::from_secs(30 * 60);

/// How long the guest may be silent: no report and no line on its console. k3s prints nothing while it starts.
const SILENCE_TIMEOUT_KVM: Duration = Duration::from_secs(4 * 60);

const SILENCE_TIMEOUT_TCG: Duration = Duration::from_secs(12 * 60);

/// The limits of a start.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The time of its beginning.
    pub began: Instant,
    /// The limit of the whole start.
    pub within: Duration,
    /// How long the guest may be silent.
    pub silence: Duration,
}

impl Limits {
    /// The limits of a guest with `accelerator`, from now on.
    pub fn for_start(accelerator: Accelerator, chosen: Option<Duration>) -> Self {
        Self::since(Instant::now(), accelerator, chosen)
    }

    /// The limits of a start that `began` earlier, with another launch.
    pub fn since(began: Instant, accelerator: Accelerator, chosen: Option<Duration>) -> Self {
        let (within, silence) = match accelerator {
            Accelerator::Kvm => (START_TIMEOUT_KVM, SILENCE_TIMEOUT_KVM),
            Accelerator::Tcg => (START_TIMEOUT_TCG, SILENCE_TIMEOUT_TCG),
        };
        Self {
            began,
            within: chosen.unwrap_or(within),
            silence,
        }
    }

    /// The time left.
    pub fn left(&self) -> Duration {
        self.within.saturating_sub(self.began.elapsed())
    }

    /// Requires that there is time left to wait for something.
    ///
    /// # Errors
    ///
    /// [`MachineError::Deadline`] when there is none.
    pub fn check(&self, waiting_for: &dyn std::fmt::Display) -> Result<(), MachineError> {
        if self.began.elapsed() < self.within {
            return Ok(());
        }
        Err(MachineError::Deadline {
            waiting_for: waiting_for.to_string(),
            within: self.within,
        })
    }
}
