//! A compute job: so much of one kernel, from a seed, on so many threads.
//!
//! The result depends on kernel, seed and amount alone, never on the threads or the processor. How
//! each kernel's result is defined stands at the head of its file.

use serde_json::Value;

use super::{Error, Progress, matmul, primes, sha256};
use crate::work::{Compute, Kernel};

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Computed {
    /// Products, leaves or segments.
    pub(crate) iterations: u64,
    /// A hash in hexadecimal, or the number of primes.
    pub(crate) result: Value,
    /// Work over time, from start to end: what seeding and checking take is in the time alone.
    pub(crate) gflops: Option<f64>,
}

/// Computes, and calls `report` on this thread at most ten times a second.
pub(crate) fn run(
    task: &Compute,
    threads: usize,
    report: &mut dyn FnMut(Progress),
) -> Result<Computed, Error> {
    match task.kernel {
        Kernel::Matmul => matmul::run(task, threads, report),
        Kernel::Sha256 => sha256::run(task, threads, report),
        Kernel::Primes => primes::run(task, threads, report),
    }
}

/// The amount in units of which 1.0 holds `scale`, as a whole number, by the given rounding.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and no caller can want more than u64::MAX"
)]
pub(super) fn units(amount: f64, scale: f64, round: fn(f64) -> f64) -> u64 {
    round(amount * scale) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_amount_gives_a_number_of_units() {
        let ceil = |amount, scale| units(amount, scale, f64::ceil);
        let table = [
            (1e-9, 1e3),
            (1.0, 1024.0),
            (1e6, 1e9),
            (f64::INFINITY, 1.0),
            (f64::NAN, 1.0),
            (-1.0, 1.0),
        ];
        let found = table.map(|(amount, scale)| ceil(amount, scale));
        assert_eq!(found, [1, 1024, 1_000_000_000_000_000, u64::MAX, 0, 0]);
    }
}
