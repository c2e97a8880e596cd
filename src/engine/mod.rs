//! The embedded compute, run in a child process of this same binary: work that needs nothing
//! installed, and whose result anyone can check by running the same thing again.
//!
//! Nothing here reads a file, the environment or the clock of the wall, and nothing can be
//! cancelled: whoever wants it to stop ends the process.

mod compute;
mod gemm;
mod matmul;
mod primes;
mod sha256;
mod speed;
mod split;
mod splitmix;
mod tile;
mod vector;

pub(crate) use compute::{Computed, run};
pub(crate) use speed::{Sustained, measure};

/// How far a piece of work is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// 0 to 100, never going back; 100 once, at the end.
    pub(crate) percent: u8,
    /// Such as `matmul 1200/3726`.
    pub(crate) operation: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The check of a product against its factors failed.
    #[error("product {0} failed its check: this machine's memory or processor gives wrong results")]
    WrongProduct(u64),
    /// The system has no room for another thread.
    #[error("cannot start thread {name}")]
    Thread { name: String, source: std::io::Error },
}
