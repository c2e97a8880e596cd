//! The exponential and the logarithm, as polynomials of our own: those of the platforms' libraries differ
//! in the last bit, and so would the weights.

use crate::engine::vector::{Aligned, LANES, Line};

/// Adding it to a number of moderate size rounds that to a whole one, which is then in the lowest bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts, of which the first has few bits: a whole number times it is exact.
const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Of (eˣ - 1 - x) / x² on ±ln 2 / 2, the highest power first (Cephes, Moshier, 1989).
const EXP: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];

/// Of artanh(t) / t, in t², the highest power first.
const SERIES: [f64; 11] = [
    1.0 / 21.0,
    1.0 / 19.0,
    1.0 / 17.0,
    1.0 / 15.0,
    1.0 / 13.0,
    1.0 / 11.0,
    1.0 / 9.0,
    1.0 / 7.0,
    1.0 / 5.0,
    1.0 / 3.0,
    1.0,
];

/// eˣ for x ≤ 0, within 2 units in the last place; what would be below e⁻⁸⁷ is that.
#[inline(always)]
pub(super) fn exp(x: Line) -> Line {
    let mut out = [0.0; LANES];
    for (out, x) in out.iter_mut().zip(x.0) {
        let x = if x > -87.0 { x } else { -87.0 };
        let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
        let power = shifted - ROUND;
        let rest = power.mul_add(-LN2[1], power.mul_add(-LN2[0], x));
        let mut sum = 0.0;
        for factor in EXP {
            sum = rest.mul_add(sum, factor);
        }
        let value = (rest * rest).mul_add(sum, rest + 1.0);
        // Times 2 to that power: added to the exponent's bits.
        let bits = value.to_bits().wrapping_add(shifted.to_bits() << 23);
        *out = f32::from_bits(bits);
    }
    Aligned(out)
}

/// ln x for x ≥ 1, within 1e-15.
pub(super) fn ln(x: f64) -> f64 {
    const SIGNIFICAND: u64 = (1 << 52) - 1;
    const ONE: u64 = 1023 << 52;
    let bits = x.to_bits();
    let (mut power, mut part) =
        ((bits >> 52) as f64 - 1023.0, f64::from_bits(bits & SIGNIFICAND | ONE));
    if part > std::f64::consts::SQRT_2 {
        (power, part) = (power + 1.0, part * 0.5);
    }
    // 2·artanh(t) = ln((1 + t) / (1 - t)), with t up to 0.1716.
    let t = (part - 1.0) / (part + 1.0);
    let sum = SERIES.into_iter().fold(0.0, |sum, factor| sum * (t * t) + factor);
    power * std::f64::consts::LN_2 + 2.0 * t * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_right_to_two_units_in_the_last_place() {
        for n in 0..=870_u16 {
            let x = -f32::from(n) / 10.0;
            let wanted = f64::from(x).exp();
            let off = (f64::from(exp(Line::splat(x)).0[0]) / wanted - 1.0).abs();
            assert!(off < 2.4e-7, "{x}: off by {off:e}");
        }
        assert_eq!(exp(Line::splat(0.0)).0[0], 1.0);
        let least = exp(Line::splat(-87.0)).0[0];
        assert_eq!(exp(Line::splat(-1e30)).0[0], least);
        assert_eq!(exp(Line::splat(f32::NEG_INFINITY)).0[0], least);
    }

    #[test]
    fn the_logarithm_is_right() {
        for n in 0..4000 {
            let x = 1.0 + f64::from(n) * f64::from(n) / 1000.0;
            assert!((ln(x) - x.ln()).abs() < 1e-13, "{x}");
        }
        assert_eq!(ln(1.0), 0.0);
        assert!((ln(1e300) - 1e300_f64.ln()).abs() < 1e-12);
    }
}
