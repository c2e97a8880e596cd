//! SplitMix64 (Steele, Lea and Flood, 2014): the seeded numbers that the kernels work on.
//!
//! Stream `index` of `seed` is the generator whose state starts as
//! `first(first(seed) ^ index)`, where `first(s)` is the first output of the generator with state `s`.

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Debug, Clone)]
pub(super) struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    #[inline(always)]
    pub(super) fn stream(seed: u64, index: u64) -> Self {
        Self { state: first(first(seed) ^ index) }
    }

    #[inline(always)]
    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }

    /// Fisher and Yates' method from the last item on: a number below `n` is the upper half of the product
    /// of `n` and the next 64 bits.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = (u128::from(self.next()) * (last as u128 + 1)) >> 64;
            // At most `last`.
            items.swap(last, usize::try_from(other).unwrap_or(last));
        }
    }

    /// Fills `bytes` with the next numbers, little-endian.
    #[inline(always)]
    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for number in bytes.as_chunks_mut().0 {
            *number = self.next().to_le_bytes();
        }
    }
}

#[inline(always)]
fn first(state: u64) -> u64 {
    mix(state.wrapping_add(GAMMA))
}

#[inline(always)]
fn mix(state: u64) -> u64 {
    let x = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_published_numbers() {
        // Of the reference implementation in C, for the seed 1234567.
        let mut numbers = SplitMix64 { state: 1_234_567 };
        let found = [numbers.next(), numbers.next(), numbers.next()];
        assert_eq!(
            found,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }
}
