//! The innermost loops of the product: a tile of C that stays in registers over the whole depth.
//!
//! Here the instructions are named, for the compiler does not find them reliably.

use super::gemm::N;
use super::vector::{Aligned, LANES, Line};

/// Depths for each turn of the innermost loop, whose counting would else cost a tenth of the speed.
#[cfg(target_arch = "x86_64")]
const UNROLL: usize = 4;

#[cfg(target_arch = "x86_64")]
macro_rules! tile {
    ($name:ident, $proof:ident, $rows:literal x $lines:literal lines, $width:literal, [$zero:ident, $splat:ident, $load:ident, $mul_add:ident, $store:ident]) => {
        #[archmage::arcane]
        pub(super) fn $name(
            _proof: archmage::$proof,
            a: &[[f32; $rows]; N],
            b: &[[Line; $lines]; N],
            c: &mut [Aligned<N>; $rows],
            column: usize,
        ) {
            use archmage::intrinsics::x86_64::{$load, $mul_add, $splat, $store, $zero};
            let mut sums = [[$zero(); 2]; $rows];
            for (a, b) in a.as_chunks::<UNROLL>().0.iter().zip(b.as_chunks::<UNROLL>().0) {
                for (a, lines) in a.iter().zip(b) {
                    let halves = lines.map(|line| line.0);
                    let b = halves.as_flattened().as_chunks::<$width>().0;
                    let b = [$load(&b[0]), $load(&b[1])];
                    for (value, sums) in a.iter().zip(&mut sums) {
                        let value = $splat(*value);
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum = $mul_add(value, b, *sum);
                        }
                    }
                }
            }
            for (row, sums) in c.iter_mut().zip(sums) {
                let places = row.0[column..].as_chunks_mut::<$width>().0;
                for (sum, place) in sums.into_iter().zip(places) {
                    $store(place, sum);
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
tile!(avx512, X64V4Token, 12 x 2 lines, 16,
    [_mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_fmadd_ps, _mm512_storeu_ps]);
#[cfg(target_arch = "x86_64")]
tile!(avx2, X64V3Token, 6 x 1 lines, 8,
    [_mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_fmadd_ps, _mm256_storeu_ps]);

/// For any processor: 2 rows and one line.
pub(super) fn baseline(
    a: &[[f32; 2]; N],
    b: &[[Line; 1]; N],
    c: &mut [Aligned<N>; 2],
    column: usize,
) {
    let mut sums = [[0.0; LANES]; 2];
    for (a, [b]) in a.iter().zip(b) {
        for (value, sums) in a.iter().zip(&mut sums) {
            for (sum, b) in sums.iter_mut().zip(&b.0) {
                // Where it is one instruction; both are exact for these integers.
                *sum = if cfg!(target_arch = "aarch64") {
                    value.mul_add(*b, *sum)
                } else {
                    value * b + *sum
                };
            }
        }
    }
    for (row, sums) in c.iter_mut().zip(sums) {
        row.0[column..][..LANES].copy_from_slice(&sums);
    }
}
