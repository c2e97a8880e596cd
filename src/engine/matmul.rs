//! The `matmul` kernel: products of seeded 512×512 matrices, 10¹² floating-point operations for an
//! amount of 1.0, each checked. There are `max(1, ceil(amount · 10¹² / 2²⁸))` of them.
//!
//! The result is the SHA-256 of the products' digests one after the other. A digest is the SHA-256 of
//! 512 little-endian u32: the sums of C's columns modulo 2³², each element taken as the bits of its
//! f32 (so that no sum is to be had without the elements). With numpy, where `stream(i, n)` is the
//! first n numbers of SplitMix64 stream i of the seed, as `<u8`:
//!
//! ```text
//! def matrix(i):
//!     words = stream(i, 16384).view("<u4").reshape(64, 1, 512)
//!     return (words >> 4 * np.arange(8, dtype="<u4").reshape(8, 1) & 15).reshape(512, 512) - np.float32(8)
//! for i in range(products):
//!     c = (matrix(3 * i).T @ matrix(3 * i + 1) + 0).astype("<f4")
//!     root.update(sha256(c.view("<u4").sum(axis=0, dtype="<u4").tobytes()).digest())
//! ```

use std::time::Instant;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::compute::{Computed, units};
use super::gemm::{FLOP, Matrices};
use super::split::{self, Plan};
use super::vector::{Level, compiled_for};
use super::{Error, Progress};
use crate::text;
use crate::work::Compute;

const FLOP_PER_UNIT: f64 = 1e12;

pub(super) fn run(
    task: &Compute,
    threads: usize,
    report: &mut dyn FnMut(Progress),
) -> Result<Computed, Error> {
    let products = units(task.amount, FLOP_PER_UNIT / FLOP, f64::ceil).max(1);
    let plan = Plan { name: "matmul", pieces: products, threads };
    let mut root = Sha256::new();
    let worker = || {
        let mut matrices = Matrices::new();
        move |index| product(&mut matrices, task.seed, index)
    };
    let start = Instant::now();
    split::in_order(plan, worker, |digest| root.update(digest), report)?;
    let gflops = products as f64 * FLOP / start.elapsed().as_secs_f64() / 1e9;
    let result = Value::from(text::hex(&root.finalize()));
    Ok(Computed { iterations: products, result, gflops: Some(gflops) })
}

fn product(matrices: &mut Matrices, seed: u64, index: u64) -> Result<[u8; 32], Error> {
    let level = Level::best();
    let expected = compiled_for!(level, W => matrices.fill::<W>(seed, index));
    matrices.multiply(level);
    let checksums = compiled_for!(level, _W => matrices.checksums(&expected));
    let checksums = checksums.ok_or(Error::WrongProduct(index))?;
    let mut hash = Sha256::new();
    checksums.iter().for_each(|sum| hash.update(sum.to_le_bytes()));
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Kernel;

    fn check(task: &Compute, threads: usize, iterations: u64, result: &str) {
        let found = run(task, threads, &mut |_| {}).unwrap();
        assert!(found.gflops.unwrap() > 0.0);
        let expected = Computed { iterations, result: Value::from(result), gflops: found.gflops };
        assert_eq!(found, expected, "{task:?}");
    }

    // The results are those of a script that follows the head of this file with Python's integers.

    #[test]
    fn equals_what_python_computes_with_any_number_of_threads() {
        let result = "dcffbc83a42813e781426effb3f1fae9beedf546ea6d0ecc3cf11e808570f865";
        for threads in [1, 3] {
            let task = Compute { kernel: Kernel::Matmul, seed: 1, amount: 4e-4 };
            check(&task, threads, 2, result);
        }
    }

    #[test]
    fn the_least_amount_is_one_product() {
        let result = "2ac5998eddd77c1ae6d8de6af30c397084bb8f68af1a92bae35199d6509cfd56";
        let least = Compute { kernel: Kernel::Matmul, seed: u64::MAX, amount: 1e-9 };
        check(&least, 1, 1, result);
    }
}
