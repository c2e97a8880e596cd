//! Adam (Kingma and Ba, 2015) with β₁ = 0.9, β₂ = 0.999, and ε = 1e-8, whose square stands under the root.

use crate::engine::vector::Line;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f32 = 1e-8;
const LEAST: f32 = 1e-30;
/// What is new of the moments, and how much of the second one stays.
const NEW_MEAN: f32 = 0.1;
const NEW_SQUARE: f32 = 0.001;
const OLD_SQUARE: f32 = 0.999;

/// What Adam remembers of a line of weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moments {
    mean: Line,
    square: Line,
}

/// The optimiser between two steps.
#[derive(Debug, Clone)]
pub(super) struct Adam {
    rate: f64,
    /// β₁ᵗ and β₂ᵗ after t steps.
    powers: [f64; 2],
    /// The rate over 1 - β₁ᵗ.
    size: f32,
    /// 1 over 1 - β₂ᵗ.
    correction: f32,
}

impl Moments {
    pub(super) const ZERO: Self = Self { mean: Line::splat(0.0), square: Line::splat(0.0) };
}

impl Adam {
    pub(super) fn new(rate: f64) -> Self {
        Self { rate, powers: [1.0; 2], size: 0.0, correction: 0.0 }
    }

    /// Begins the next step.
    #[expect(clippy::cast_possible_truncation, reason = "rounded to the nearest f32")]
    pub(super) fn next(&mut self) {
        for (power, beta) in self.powers.iter_mut().zip([BETA1, BETA2]) {
            *power *= beta;
        }
        let [mean, square] = self.powers;
        self.size = (self.rate / (1.0 - mean)) as f32;
        self.correction = (1.0 - square).recip() as f32;
    }

    /// Moves a line of weights by its gradient.
    #[inline(always)]
    pub(super) fn step(&self, weight: &mut Line, moments: &mut Moments, gradient: &Line) {
        let moments = moments.mean.0.iter_mut().zip(&mut moments.square.0);
        for ((weight, (mean, square)), g) in weight.0.iter_mut().zip(moments).zip(&gradient.0) {
            *mean = settled((g - *mean).mul_add(NEW_MEAN, *mean));
            *square = settled((g * g).mul_add(NEW_SQUARE, *square * OLD_SQUARE));
            let steepness = square.mul_add(self.correction, EPSILON * EPSILON);
            *weight = (*mean * inverse_root(steepness)).mul_add(-self.size, *weight);
        }
    }
}

/// Nothing in place of next to nothing: what is left of a weight that no longer learns would shrink for ever,
/// and get below the numbers that a processor handles at full speed.
#[inline(always)]
fn settled(moment: f32) -> f32 {
    if moment.abs() > LEAST { moment } else { 0.0 }
}

/// 1/√x for a positive x, within 5e-6. Made of multiplications: many processors take several times as long
/// for roots and quotients of wide vectors.
#[inline(always)]
fn inverse_root(x: f32) -> f32 {
    let half = 0.5 * x;
    // Halves the exponent, within 4 %; each step squares the error.
    let mut root = f32::from_bits(0x5f37_59df_u32.wrapping_sub(x.to_bits() >> 1));
    for _ in 0..2 {
        root = root.mul_add((half * root).mul_add(-root, 0.5), root);
    }
    root
}
