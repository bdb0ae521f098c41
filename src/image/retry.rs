//! Timeouts and retries of downloads.

use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::ImageError;
use crate::base::causes::with_causes;

/// The timeouts and tries of a download.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// The number of failures in a row without progress.
    pub tries: u32,
    /// The pause after the first failure; each further one is twice as long.
    pub pause: Duration,
    /// How long a transfer may stall. The whole transfer has no limit.
    pub idle: Duration,
    /// How long an unreachable server is tried.
    pub first_contact: Duration,
}

impl RetryPolicy {
    /// One try and a short wait, for requests with a fallback.
    pub const BRIEF: Self = Self {
        tries: 1,
        pause: Duration::ZERO,
        idle: Duration::from_secs(5),
        first_contact: Duration::ZERO,
    };
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            tries: 5,
            pause: Duration::from_millis(200),
            idle: Duration::from_secs(30),
            first_contact: Duration::from_secs(5),
        }
    }
}

/// Decides after each failure whether to retry, and waits before it.
#[derive(Debug)]
pub(super) struct Retries<'a> {
    retry: &'a RetryPolicy,
    started: Instant,
    failed: u32,
    furthest: u64,
    answered: bool,
    /// The last error.
    told: String,
}

impl<'a> Retries<'a> {
    /// No failure yet, with `reached` bytes.
    pub(super) fn new(retry: &'a RetryPolicy, reached: u64) -> Self {
        Self {
            retry,
            started: Instant::now(),
            failed: 0,
            furthest: reached,
            answered: false,
            told: String::new(),
        }
    }

    /// Returns when it is time to retry, or returns the error if that is useless. A try that got further than all
    /// before it resets the count.
    pub(super) async fn after(
        &mut self,
        error: ImageError,
        reached: u64,
    ) -> Result<(), ImageError> {
        if reached > self.furthest {
            self.furthest = reached;
            self.failed = 0;
            self.answered = true;
        }
        self.failed += 1;
        self.answered |= error.server_answered();
        let is_unreachable = !self.answered && self.started.elapsed() >= self.retry.first_contact;
        if !error.may_pass() || self.failed >= self.retry.tries || is_unreachable {
            return Err(error);
        }
        let pause = self.retry.pause * 2u32.pow((self.failed - 1).min(6));
        let reason = with_causes(&error);
        if reason == self.told {
            debug!("{reason}; trying again");
        } else {
            warn!("{reason}; trying again");
        }
        self.told = reason;
        debug!(failed = self.failed, ?pause, "pausing");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
