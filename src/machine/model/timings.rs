//! Where the time of a setup or start went, phase by phase.

use std::time::{Duration, Instant};

/// The phases so far. Waits for the guest or for k3s are distinguished from the program's own time.
#[derive(Debug)]
pub struct Timings {
    began: Instant,
    last: Instant,
    phases: Vec<Phase>,
}

/// One phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// The name of the step.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// Whose time it was.
    pub category: TimeSpentIn,
}

/// Whose time a phase is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeSpentIn {
    /// The program's own work.
    Own,
    /// Waiting for the network.
    Network,
    /// Waiting for the guest to boot or k3s to become ready.
    Guest,
}

impl Timings {
    /// The clock runs.
    pub fn start() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            last: now,
            phases: Vec::new(),
        }
    }

    /// The phase `name` is over; what has passed since the one before was its time.
    pub fn lap(&mut self, name: &'static str, category: TimeSpentIn) {
        let now = Instant::now();
        let took = now - self.last;
        tracing::debug!(phase = name, ?took, "done");
        self.phases.push(Phase {
            name,
            took,
            category,
        });
        self.last = now;
    }

    /// The phases in their order.
    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// From the start to now.
    pub fn total(&self) -> Duration {
        self.began.elapsed()
    }

    /// The time that was not spent on the network or in the guest.
    pub fn own(&self) -> Duration {
        self.phases
            .iter()
            .filter(|phase| phase.category == TimeSpentIn::Own)
            .map(|phase| phase.took)
            .sum()
    }
}
