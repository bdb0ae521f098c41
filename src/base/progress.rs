//! Progress of long work. This room owns the trait, the terminal implements it.

use std::fmt::Debug;

/// The receiver of progress; several transfers may run at once.
pub trait Progress: Debug + Send + Sync {
    /// A transfer called `what` begins, with `done` of `total` bytes present (a resumed download). The total is unknown
    /// if the server does not send it. Returns the transfer's handle.
    fn begin(&self, what: &str, done: u64, total: Option<u64>) -> usize;

    /// More bytes have come.
    fn advance(&self, transfer: usize, bytes: u64);

    /// The transfer has ended, successfully or not.
    fn end(&self, transfer: usize);
}

/// No display.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _done: u64, _total: Option<u64>) -> usize {
        0
    }

    fn advance(&self, _transfer: usize, _bytes: u64) {}

    fn end(&self, _transfer: usize) {}
}
