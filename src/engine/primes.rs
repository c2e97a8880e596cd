//! The `primes` kernel: counts the primes below `max(10, round(amount · 10⁹))` by a segmented sieve
//! of Eratosthenes. The result is the count, a number; the seed plays no part.

use serde_json::Value;

use super::compute::{Computed, units};
use super::split::{self, Plan};
use super::vector::{Level, compiled_for};
use super::{Error, Progress};
use crate::work::Compute;

const LIMIT_PER_UNIT: f64 = 1e9;
/// 64 KiB of bits, one for each odd number: fits in the second cache, often in the first.
const MIN_SEGMENT: u64 = 1 << 20;
/// Struck out by copying a pattern, which has as many bytes as their product.
const SMALL: [usize; 5] = [3, 5, 7, 11, 13];
const PATTERN: usize = 3 * 5 * 7 * 11 * 13;

pub(super) fn run(
    task: &Compute,
    threads: usize,
    report: &mut dyn FnMut(Progress),
) -> Result<Computed, Error> {
    let limit = units(task.amount, LIMIT_PER_UNIT, f64::round).max(10);
    let (segments, count) = count_below(limit, threads, report)?;
    Ok(Computed { iterations: segments, result: Value::from(count), gflops: None })
}

fn count_below(
    limit: u64,
    threads: usize,
    report: &mut dyn FnMut(Progress),
) -> Result<(u64, u64), Error> {
    let level = Level::best();
    let sieve = Sieve::below(limit);
    let plan = Plan { name: "primes", pieces: limit.div_ceil(sieve.segment), threads };
    let worker = || {
        let mut bits = vec![];
        let sieve = &sieve;
        move |index| Ok(compiled_for!(level, _W => sieve.count(index, &mut bits)))
    };
    // The prime 2 has no bit.
    let mut count = 1;
    split::in_order(plan, worker, |found: u64| count += found, report)?;
    Ok((plan.pieces, count))
}

struct Sieve {
    limit: u64,
    /// How many numbers, odd and even, a segment spans: a power of two.
    segment: u64,
    /// Byte `b`, bit `i` tells of the number 2(8b + i) + 1 whether a small prime divides it.
    pattern: Vec<u8>,
    /// The other primes up to the root of the limit.
    primes: Vec<u64>,
}

impl Sieve {
    fn below(limit: u64) -> Self {
        let root = limit.isqrt();
        // A segment costs a division for each prime, so there are to be fewer where primes are many.
        let segment = MIN_SEGMENT.max(root.next_power_of_two());
        let primes = primes_to(root).into_iter().filter(|prime| *prime > 13).collect();
        Self { limit, segment, pattern: pattern(), primes }
    }

    /// Counts the odd primes of a segment. Bit `n` stands for the number `start + 2n + 1`, and is
    /// set when it is not prime.
    #[inline(always)]
    fn count(&self, index: u64, bits: &mut Vec<u8>) -> u64 {
        let start = index * self.segment;
        let end = self.limit.min(start + self.segment);
        let len = in_memory((end - start) / 2);
        self.lay_pattern(start, len.div_ceil(64) * 8, bits);
        if start == 0 {
            bits[0] |= 1;
            SMALL.iter().for_each(|prime| bits[prime / 16] &= !(1 << (prime / 2 % 8)));
        }
        for &prime in self.primes.iter().take_while(|prime| *prime * *prime < end) {
            let odd = ((start / prime + 1) | 1).max(prime);
            strike(bits, in_memory((prime * odd - start) / 2), in_memory(prime));
        }
        // What lies beyond the end is not to be counted.
        (len..bits.len() * 8).for_each(|n| bits[n / 8] |= 1 << (n % 8));
        bits.as_chunks()
            .0
            .iter()
            .map(|word| u64::from(u64::from_le_bytes(*word).count_zeros()))
            .sum()
    }

    #[inline(always)]
    fn lay_pattern(&self, start: u64, bytes: usize, bits: &mut Vec<u8>) {
        bits.clear();
        bits.extend_from_slice(&self.pattern[in_memory(start / 16 % PATTERN as u64)..]);
        while bits.len() < bytes {
            bits.extend_from_slice(&self.pattern);
        }
        bits.truncate(bytes);
    }
}

/// Sets every `step`th bit from `first` on.
#[inline(always)]
fn strike(bits: &mut [u8], first: usize, step: usize) {
    let mut n = first;
    while let Some(byte) = bits.get_mut(n / 8) {
        *byte |= 1 << (n % 8);
        n += step;
    }
}

fn pattern() -> Vec<u8> {
    let mut pattern = vec![0; PATTERN];
    SMALL.iter().for_each(|prime| strike(&mut pattern, prime / 2, *prime));
    pattern
}

fn primes_to(last: u64) -> Vec<u64> {
    let mut composite = vec![false; in_memory(last) + 1];
    let mut primes = vec![];
    for n in 2..composite.len() {
        if !composite[n] {
            primes.push(n as u64);
            (n * n..composite.len()).step_by(n).for_each(|multiple| composite[multiple] = true);
        }
    }
    primes
}

/// For bits of a segment, and for primes, which are at most the root of a u64.
fn in_memory(n: u64) -> usize {
    // A root of 64 bits has 32, and a segment is as long as the root or 2²⁰.
    usize::try_from(n).expect("fits in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(limit: u64, threads: usize) -> u64 {
        count_below(limit, threads, &mut |_| {}).unwrap().1
    }

    #[test]
    fn counts_what_is_known() {
        // π(10), π(10²) … from the literature (OEIS A006880).
        let known = [(10, 4), (100, 25), (1000, 168), (10_000, 1229), (1_000_000, 78_498)];
        for (limit, primes) in known {
            assert_eq!(count(limit, 2), primes, "below {limit}");
        }
    }

    #[test]
    fn the_limit_itself_is_not_counted() {
        let counts: Vec<_> = [11, 12, 13, 14, 17, 18, 19, 20].map(|limit| count(limit, 1)).into();
        assert_eq!(counts, [4, 5, 5, 6, 6, 7, 7, 8]);
    }

    #[test]
    fn no_number_is_lost_or_counted_twice_where_segments_and_words_meet() {
        let primes = primes_to(2 * MIN_SEGMENT + 200);
        let borders = [64, 128, 1024, MIN_SEGMENT, 2 * MIN_SEGMENT];
        for limit in borders.into_iter().flat_map(|border| border - 2..border + 4) {
            let plain = primes.iter().filter(|prime| **prime < limit).count();
            assert_eq!(count(limit, 1), plain as u64, "below {limit}");
        }
    }

    #[test]
    fn the_count_depends_on_no_threads() {
        let counts = [1, 2, 3].map(|threads| count_below(5_000_000, threads, &mut |_| {}).unwrap());
        assert_eq!(counts, [(5, 348_513); 3]);
    }

    #[test]
    fn large_limits_have_larger_segments_not_more_of_them() {
        // Of 10¹³ numbers the last segment alone, as a sieve in Python counts it.
        let sieve = Sieve::below(10_000_000_000_000);
        assert_eq!(sieve.segment, 1 << 22);
        let last = sieve.limit / sieve.segment;
        assert_eq!(sieve.count(last, &mut vec![]), 110583);
    }

    #[test]
    fn the_least_amount_reaches_to_ten() {
        let task = Compute { kernel: crate::work::Kernel::Primes, seed: 1, amount: 1e-9 };
        let least = Computed { iterations: 1, result: Value::from(4), gflops: None };
        assert_eq!(run(&task, 1, &mut |_| {}).unwrap(), least);
    }
}
