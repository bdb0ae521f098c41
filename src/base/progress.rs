//! Progress of long work. The lower layers own the trait, the terminal implements it.

use std::fmt::Debug;

/// Where transfers report what they do; several may be under way at once.
pub trait Progress: Debug + Send + Sync {
    /// A transfer called `what` begins with `done` of `total` bytes at hand already (a resumed download);
    /// the total is unknown when the server does not tell. Returns the transfer's handle.
    fn begin(&self, what: &str, done: u64, total: Option<u64>) -> usize;

    /// So many more bytes have come.
    fn advance(&self, transfer: usize, bytes: u64);

    /// The transfer is over, well or not.
    fn end(&self, transfer: usize);
}

/// Without a display.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _done: u64, _total: Option<u64>) -> usize {
        0
    }

    fn advance(&self, _transfer: usize, _bytes: u64) {}

    fn end(&self, _transfer: usize) {}
}
