//! The innermost loops of a network: products whose sums stay in registers.
//!
//! Every sum takes its terms in one order, each by a fused multiply-add, so that it comes out the same
//! to the bit for any width of vectors. Here the instructions are named, for the compiler does not find
//! them reliably; what is done with a finished sum is plain Rust around them.
//!
//! Numbers lie in lines of 16. Of a batch, the first line of each row comes first, then the second of
//! each row, and so on. A panel has the weights of 16 or 32 outputs: for each input in turn its one or
//! two lines, in the end those of the bias.

#[cfg(target_arch = "x86_64")]
use archmage::intrinsics::x86_64::{
    __m256, __m512, _CMP_GT_OQ, _mm256_and_ps, _mm256_cmp_ps, _mm256_setzero_ps,
    _mm512_cmp_ps_mask, _mm512_maskz_mov_ps, _mm512_setzero_ps,
};

use super::adam::{Adam, Moments};
use crate::engine::vector::{LANES, Level, Line};

/// A batch has a multiple of so many rows: the last ones are made of zeros.
pub(super) const ROWS: usize = 8;
/// Lines of inputs whose weights (at most 16 KB) stay in the first cache while a batch passes.
const DEPTH: usize = 8;
/// Rows for each turn of the innermost loop, whose counting would else cost a tenth of the speed.
const UNROLL: usize = 4;
const ZERO: Line = Line::splat(0.0);

/// `out = bias + input · weights` for the rows of a batch and one panel of `lines` lines, whose weights are
/// for as many inputs as there are in a row.
pub(super) fn product(
    level: Level,
    lines: usize,
    input: &[Line],
    weights: &[Line],
    bias: &[Line],
    out: &mut [Line],
) {
    match (level, lines) {
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512(proof), 1) => avx512::product::<1>(proof, input, weights, bias, out),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512(proof), _) => avx512::product::<2>(proof, input, weights, bias, out),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx2(proof), 1) => avx2::product::<1>(proof, input, weights, bias, out),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx2(proof), _) => avx2::product::<2>(proof, input, weights, bias, out),
        (Level::Baseline, 1) => baseline::product::<1>((), input, weights, bias, out),
        (Level::Baseline, _) => baseline::product::<2>((), input, weights, bias, out),
    }
}

/// The weights of one panel, and what the optimiser remembers of them.
pub(super) struct Learned<'a> {
    pub(super) weights: &'a mut [Line],
    pub(super) moments: &'a mut [Moments],
}

/// Works out the gradient of one panel's weights, `inputᵀ · gradient`, and moves them by it.
pub(super) fn update(
    level: Level,
    lines: usize,
    input: &[Line],
    gradient: &[Line],
    panel: Learned<'_>,
    adam: &Adam,
) {
    match (level, lines) {
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512(proof), 1) => avx512::update::<1, 16>(proof, input, gradient, panel, adam),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512(proof), _) => avx512::update::<2, 8>(proof, input, gradient, panel, adam),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx2(proof), 1) => avx2::update::<1, 4>(proof, input, gradient, panel, adam),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx2(proof), _) => avx2::update::<2, 2>(proof, input, gradient, panel, adam),
        (Level::Baseline, 1) => baseline::update::<1, 4>((), input, gradient, panel, adam),
        (Level::Baseline, _) => baseline::update::<2, 2>((), input, gradient, panel, adam),
    }
}

/// What is negative becomes 0.
pub(super) fn relu(level: Level, values: &mut [Line]) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(proof) => avx512::relu(proof, values),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(proof) => avx2::relu(proof, values),
        Level::Baseline => baseline::relu((), values),
    }
}

/// A gradient passes back where [`relu`] let the value pass.
pub(super) fn unrelu(level: Level, gradients: &mut [Line], values: &[Line]) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(proof) => avx512::unrelu(proof, gradients, values),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(proof) => avx2::unrelu(proof, gradients, values),
        Level::Baseline => baseline::unrelu((), gradients, values),
    }
}

/// The kernels for one level: `$group` rows of a batch, or `G` inputs, pass together, as many as there are
/// registers for their sums.
macro_rules! kernels {
    ($module:ident, [$($proof:tt)*], $group:literal together, $width:literal wide, [$($attribute:meta)?], $gate:ident, $($instructions:tt)*) => {
        mod $module {
            use super::{Adam, DEPTH, LANES, Learned, Line, UNROLL, ZERO};
            use super::$gate as gate;
            use $($instructions)*;

            /// Vectors in a line.
            const PARTS: usize = LANES / $width;

            $(#[$attribute])?
            pub(super) fn product<const L: usize>(
                _proof: $($proof)*,
                input: &[Line],
                weights: &[Line],
                bias: &[Line],
                out: &mut [Line],
            ) {
                let rows = out.len() / L;
                let mut outs = out.chunks_exact_mut(rows);
                let mut outs: [&mut [[Line; $group]]; L] =
                    std::array::from_fn(|_| outs.next().unwrap_or_default().as_chunks_mut().0);
                let start: [[Line; $group]; L] = std::array::from_fn(|l| [bias[l]; $group]);
                let weights = weights.as_chunks::<L>().0.as_chunks::<LANES>().0;
                let blocks = input.chunks(DEPTH * rows).zip(weights.chunks(DEPTH));
                for (block, (input, weights)) in blocks.enumerate() {
                    for group in 0..rows / $group {
                        let mut sums = [[[zero(); PARTS]; L]; $group];
                        for (l, (out, start)) in outs.iter().zip(&start).enumerate() {
                            let before = if block == 0 { start } else { &out[group] };
                            for (line, sums) in before.iter().zip(&mut sums) {
                                for (part, sum) in line.0.as_chunks().0.iter().zip(&mut sums[l]) {
                                    *sum = load(part);
                                }
                            }
                        }
                        for (lines, weights) in input.chunks_exact(rows).zip(weights) {
                            let lines: &[Line; $group] = &lines.as_chunks().0[group];
                            for (k, weights) in weights.iter().enumerate() {
                                for (line, sums) in lines.iter().zip(&mut sums) {
                                    let value = splat(line.0[k]);
                                    for (line, sums) in weights.iter().zip(sums) {
                                        for (part, sum) in line.0.as_chunks().0.iter().zip(sums) {
                                            *sum = fused(value, load(part), *sum);
                                        }
                                    }
                                }
                            }
                        }
                        for (l, out) in outs.iter_mut().enumerate() {
                            for (line, sums) in out[group].iter_mut().zip(&sums) {
                                for (part, sum) in line.0.as_chunks_mut().0.iter_mut().zip(sums[l]) {
                                    store(part, sum);
                                }
                            }
                        }
                    }
                }
            }

            $(#[$attribute])?
            pub(super) fn relu(_proof: $($proof)*, values: &mut [Line]) {
                for line in values {
                    for part in line.0.as_chunks_mut().0 {
                        let value = load(part);
                        store(part, gate(value, value));
                    }
                }
            }

            $(#[$attribute])?
            pub(super) fn unrelu(_proof: $($proof)*, gradients: &mut [Line], values: &[Line]) {
                for (gradient, value) in gradients.iter_mut().zip(values) {
                    let values = value.0.as_chunks().0;
                    for (part, value) in gradient.0.as_chunks_mut().0.iter_mut().zip(values) {
                        store(part, gate(load(part), load(value)));
                    }
                }
            }

            $(#[$attribute])?
            pub(super) fn update<const L: usize, const G: usize>(
                _proof: $($proof)*,
                input: &[Line],
                gradient: &[Line],
                panel: Learned<'_>,
                adam: &Adam,
            ) {
                let rows = gradient.len() / L;
                let gradients: [&[[Line; UNROLL]]; L] = std::array::from_fn(|l| {
                    &gradient[l * rows..].as_chunks().0[..rows / UNROLL]
                });
                let weights = panel.weights.as_chunks_mut::<L>().0;
                let moments = panel.moments.as_chunks_mut::<L>().0;
                let (inputs, bias) = weights.as_chunks_mut::<G>();
                let (inputs_moments, bias_moments) = moments.as_chunks_mut::<G>();
                let tiles = inputs.iter_mut().zip(inputs_moments).enumerate();
                for (tile, (weights, moments)) in tiles {
                    let (line, at) = (tile * G / LANES, tile * G % LANES);
                    let lines = &input[line * rows..].as_chunks::<UNROLL>().0[..rows / UNROLL];
                    let mut sums = [[[zero(); PARTS]; L]; G];
                    for (r, lines) in lines.iter().enumerate() {
                        for (n, line) in lines.iter().enumerate() {
                            let values: &[f32; G] = &line.0.as_chunks().0[at / G];
                            for (value, sums) in values.iter().zip(&mut sums) {
                                let value = splat(*value);
                                for (gradient, sums) in gradients.iter().zip(sums) {
                                    let parts = gradient[r][n].0.as_chunks().0;
                                    for (part, sum) in parts.iter().zip(sums) {
                                        *sum = fused(value, load(part), *sum);
                                    }
                                }
                            }
                        }
                    }
                    for ((sums, weights), moments) in sums.iter().zip(weights).zip(moments) {
                        for ((sums, weight), moments) in sums.iter().zip(weights).zip(moments) {
                            let mut gradient = ZERO;
                            for (part, sum) in gradient.0.as_chunks_mut().0.iter_mut().zip(sums) {
                                store(part, *sum);
                            }
                            adam.step(weight, moments, &gradient);
                        }
                    }
                }
                for (weights, moments) in bias.iter_mut().zip(bias_moments) {
                    for ((gradient, weight), moments) in gradients.iter().zip(weights).zip(moments) {
                        let mut sum = ZERO;
                        for line in gradient.as_flattened() {
                            sum.add(line);
                        }
                        adam.step(weight, moments, &sum);
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(avx512, [archmage::X64V4Token], 8 together, 16 wide, [archmage::arcane], gate512,
    archmage::intrinsics::x86_64::{
        _mm512_fmadd_ps as fused, _mm512_loadu_ps as load, _mm512_set1_ps as splat,
        _mm512_setzero_ps as zero, _mm512_storeu_ps as store,
    }
);

#[cfg(target_arch = "x86_64")]
kernels!(avx2, [archmage::X64V3Token], 2 together, 8 wide, [archmage::arcane], gate256,
    archmage::intrinsics::x86_64::{
        _mm256_fmadd_ps as fused, _mm256_loadu_ps as load, _mm256_set1_ps as splat,
        _mm256_setzero_ps as zero, _mm256_storeu_ps as store,
    }
);

/// The first where the second is above 0, and 0 elsewhere.
#[cfg(target_arch = "x86_64")]
#[archmage::rite(v4)]
fn gate512(value: __m512, by: __m512) -> __m512 {
    _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(by, _mm512_setzero_ps()), value)
}

#[cfg(target_arch = "x86_64")]
#[archmage::rite(v3)]
fn gate256(value: __m256, by: __m256) -> __m256 {
    _mm256_and_ps(value, _mm256_cmp_ps::<_CMP_GT_OQ>(by, _mm256_setzero_ps()))
}

fn gate(mut value: [f32; 4], by: [f32; 4]) -> [f32; 4] {
    for (value, by) in value.iter_mut().zip(by) {
        *value = if by > 0.0 { *value } else { 0.0 };
    }
    value
}

kernels!(baseline, [()], 2 together, 4 wide, [], gate, super::plain::{fused, load, splat, store, zero});

/// The instructions as plain Rust.
mod plain {
    const WIDTH: usize = 4;

    pub(super) fn zero() -> [f32; WIDTH] {
        [0.0; WIDTH]
    }

    pub(super) fn splat(value: f32) -> [f32; WIDTH] {
        [value; WIDTH]
    }

    pub(super) fn load(from: &[f32; WIDTH]) -> [f32; WIDTH] {
        *from
    }

    pub(super) fn store(to: &mut [f32; WIDTH], from: [f32; WIDTH]) {
        *to = from;
    }

    pub(super) fn fused(a: [f32; WIDTH], b: [f32; WIDTH], mut c: [f32; WIDTH]) -> [f32; WIDTH] {
        for ((c, a), b) in c.iter_mut().zip(a).zip(b) {
            *c = a.mul_add(b, *c);
        }
        c
    }
}
