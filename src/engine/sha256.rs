//! The `sha256` kernel: hashes seeded bytes, 1 GiB for an amount of 1.0.
//!
//! Leaf `i` is 1 MiB: 131 072 outputs of SplitMix64 stream `i` of the seed, little-endian. There are
//! `max(1, ceil(amount · 1024))` leaves. The result is the SHA-256, in hexadecimal, of the leaves'
//! SHA-256 digests one after the other.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::compute::{Computed, units};
use super::split::{self, Plan};
use super::splitmix::SplitMix64;
use super::vector::{Level, compiled_for};
use super::{Error, Progress};
use crate::text;
use crate::work::Compute;

const LEAF: usize = 1 << 20;
const LEAVES_PER_UNIT: f64 = 1024.0;
/// Small enough to be hashed while it is still in the nearest cache.
const CHUNK: usize = 8 << 10;

pub(super) fn run(
    task: &Compute,
    threads: usize,
    report: &mut dyn FnMut(Progress),
) -> Result<Computed, Error> {
    let leaves = units(task.amount, LEAVES_PER_UNIT, f64::ceil).max(1);
    let plan = Plan { name: "sha256", pieces: leaves, threads };
    let mut root = Sha256::new();
    split::in_order(
        plan,
        || |index| Ok(leaf(task.seed, index)),
        |digest| root.update(digest),
        report,
    )?;
    let result = Value::from(text::hex(&root.finalize()));
    Ok(Computed { iterations: leaves, result, gflops: None })
}

fn leaf(seed: u64, index: u64) -> [u8; 32] {
    let level = Level::best();
    let mut numbers = SplitMix64::stream(seed, index);
    let mut chunk = [0; CHUNK];
    let mut hash = Sha256::new();
    for _ in 0..LEAF / CHUNK {
        compiled_for!(level, _W => numbers.fill(&mut chunk));
        hash.update(chunk);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Kernel;

    fn result(seed: u64, amount: f64, threads: usize) -> Computed {
        run(&Compute { kernel: Kernel::Sha256, seed, amount }, threads, &mut |_| {}).unwrap()
    }

    #[test]
    fn equals_what_python_computes_with_any_number_of_threads() {
        // By a script that follows the head of this file with hashlib.
        let result_of_three = "045e9b185952affcf9af17857787d9e865a1c1acfa070fb586f3fbc08736501f";
        for threads in [1, 2, 3] {
            let found = result(1, 2.5 / 1024.0, threads);
            assert_eq!(found.result, Value::from(result_of_three), "{threads} threads");
            assert_eq!(found.iterations, 3);
        }
    }

    #[test]
    fn the_least_amount_is_one_leaf() {
        let mut numbers = SplitMix64::stream(42, 0);
        let bytes: Vec<u8> = (0..LEAF / 8).flat_map(|_| numbers.next().to_le_bytes()).collect();
        let root = text::hex(&Sha256::digest(Sha256::digest(bytes)));
        let found = result(42, 1e-9, 1);
        assert_eq!(found, Computed { iterations: 1, result: Value::from(root), gflops: None });
    }
}
