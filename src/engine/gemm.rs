//! A product of two 512×512 matrices of seeded small integers in f32, and its check.
//!
//! The integers are -8 to 7, so no sum, in the product or in its check, exceeds 2²⁴: f32 holds all of
//! them exactly, and they come out the same in any order, at any vector width, and with or without
//! fused multiply-add.
//!
//! The kernel (`tile`) keeps a tile of C in registers over the whole depth: 12×32 with AVX-512, 6×16
//! with AVX2, 2×16 else. A and B lie in strips as high and as wide as a tile, so that each is read from its
//! start to its end; a block of A's strips stays in the second cache while all of B passes.

use super::splitmix::SplitMix64;
use super::tile;
use super::vector::{Aligned, LANES, Level, Line, mul_add};

pub(super) const N: usize = 512;
/// Of one product.
pub(super) const FLOP: f64 = 2.0 * (N * N * N) as f64;
/// Divisible by the height of each tile. What the rows beyond [`N`] hold does not matter.
const HEIGHT: usize = 516;
/// Rows of A that stay in the second cache (270 KB), again whole tiles of each height.
const BLOCK: usize = 132;
/// Integers in a word of the seeded stream.
const PACKED: usize = 8;
const WORD: usize = size_of::<u32>();
/// Bytes in a row of words. Not a power of two, or all rows would meet in a few sets of the cache.
const WORDS: usize = (N + LANES) * WORD;
/// The matrices of one thread, C = A·B.
pub(super) struct Matrices {
    /// In strips as high as a tile; in each column by column.
    a: Vec<f32>,
    /// In strips as wide as a tile; in each row by row.
    b: Vec<Line>,
    /// Row by row.
    c: Vec<Aligned<N>>,
    /// What a matrix is unpacked from, in rows.
    words: Vec<u8>,
}

/// What the columns of C add up to when its rows are taken with these signs.
pub(super) struct Expected {
    signs: [f32; N],
    sums: Aligned<N>,
}

impl Matrices {
    pub(super) fn new() -> Self {
        Self {
            a: vec![0.0; HEIGHT * N],
            b: vec![Aligned([0.0; LANES]); N * N / LANES],
            c: vec![Aligned([0.0; N]); HEIGHT],
            words: vec![0; N / PACKED * WORDS],
        }
    }

    /// Fills A and B, and works out by the way what a product of them has to satisfy.
    ///
    /// This is Freivalds' check with signs y: yᵀC = (yᵀA)B, for a cost of n². It finds any single
    /// wrong element, and more of them with a chance of at least one half for each column.
    #[inline(always)]
    pub(super) fn fill<const W: usize>(&mut self, seed: u64, index: u64) -> Expected {
        let [for_a, for_b, for_signs] =
            [0, 1, 2].map(|part| SplitMix64::stream(seed, index * 3 + part));
        let signs = signs(for_signs);
        self.draw_words(for_a);
        let through_a = match W {
            16 => self.unpack_a::<W, 12>(&signs),
            8 => self.unpack_a::<W, 6>(&signs),
            _ => self.unpack_a::<W, 2>(&signs),
        };
        self.draw_words(for_b);
        let sums = match W {
            16 => self.unpack_b::<W, 2, 2>(&through_a),
            8 => self.unpack_b::<W, 1, 2>(&through_a),
            _ => self.unpack_b::<W, 1, 4>(&through_a),
        };
        Expected { signs, sums }
    }

    #[inline(always)]
    fn draw_words(&mut self, mut numbers: SplitMix64) {
        for row in self.words.chunks_exact_mut(WORDS) {
            numbers.fill(&mut row[..N * WORD]);
        }
    }

    /// Lays A into strips of `H` rows. Returns the signs times A.
    #[inline(always)]
    fn unpack_a<const W: usize, const H: usize>(&mut self, signs: &[f32; N]) -> [f32; N] {
        let mut sums = [[0.0; W]; N];
        let a = self.a.as_chunks_mut::<H>().0.as_chunks_mut::<N>().0;
        for (strip, (a, signs)) in a.iter_mut().zip(signs.chunks(H)).enumerate() {
            let mut padded = [0.0; W];
            padded[..signs.len()].copy_from_slice(signs);
            let blocks =
                a.as_chunks_mut::<PACKED>().0.iter_mut().zip(sums.as_chunks_mut::<PACKED>().0);
            for ((places, sums), words) in blocks.zip(self.words.chunks_exact(WORDS)) {
                let columns: [[f32; W]; PACKED] = unpack(&words[strip * H * WORD..]);
                for ((column, place), sum) in columns.iter().zip(places).zip(sums) {
                    place.copy_from_slice(&column[..H]);
                    *sum = mul_add(padded, *column, *sum);
                }
            }
        }
        let mut totals = [0.0; N];
        for (total, sums) in totals.iter_mut().zip(sums) {
            *total = sums.into_iter().sum();
        }
        totals
    }

    /// Lays B into strips as wide as `L` lines, which are `V` vectors. Returns the scales times B.
    #[inline(always)]
    fn unpack_b<const W: usize, const L: usize, const V: usize>(
        &mut self,
        scales: &[f32; N],
    ) -> Aligned<N> {
        let mut totals = Aligned([0.0; N]);
        let b = self.b.as_chunks_mut::<L>().0.as_chunks_mut::<N>().0;
        for (strip, (b, totals)) in
            b.iter_mut().zip(totals.0.chunks_exact_mut(L * LANES)).enumerate()
        {
            let mut sums = [[0.0; W]; V];
            let blocks =
                b.as_chunks_mut::<PACKED>().0.iter_mut().zip(scales.as_chunks::<PACKED>().0);
            for ((lines, scales), words) in blocks.zip(self.words.chunks_exact(WORDS)) {
                let words = &words[strip * L * LANES * WORD..][..L * LANES * WORD];
                for (v, sum) in sums.iter_mut().enumerate() {
                    let rows: [[f32; W]; PACKED] = unpack(&words[v * W * WORD..]);
                    for ((row, scale), lines) in rows.iter().zip(scales).zip(&mut *lines) {
                        let line = &mut lines[v * W / LANES].0;
                        line[v * W % LANES..][..W].copy_from_slice(row);
                        *sum = mul_add([*scale; W], *row, *sum);
                    }
                }
            }
            totals.copy_from_slice(sums.as_flattened());
        }
        totals
    }

    pub(super) fn multiply(&mut self, level: Level) {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(proof) => self.tiles(|a, b, c, n| tile::avx512(proof, a, b, c, n)),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(proof) => self.tiles(|a, b, c, n| tile::avx2(proof, a, b, c, n)),
            Level::Baseline => self.tiles(tile::baseline),
        }
    }

    /// Tiles of `H` rows, as wide as `L` lines.
    fn tiles<const H: usize, const L: usize>(
        &mut self,
        tile: impl Fn(&[[f32; H]; N], &[[Line; L]; N], &mut [Aligned<N>; H], usize),
    ) {
        let b = self.b.as_chunks::<L>().0.as_chunks::<N>().0;
        for (a, c) in self.a.chunks(BLOCK * N).zip(self.c.chunks_mut(BLOCK)) {
            for (n, b) in b.iter().enumerate() {
                let a = a.as_chunks::<H>().0.as_chunks::<N>().0;
                for (a, c) in a.iter().zip(c.as_chunks_mut::<H>().0) {
                    tile(a, b, c, n * L * LANES);
                }
            }
        }
    }

    /// Sums the columns of C, as bit patterns modulo 2³²; nothing if C is not as expected.
    #[inline(always)]
    pub(super) fn checksums(&self, expected: &Expected) -> Option<[u32; N]> {
        let mut sums = [0.0; N];
        let mut bits = [0_u32; N];
        for (row, sign) in self.c.iter().zip(&expected.signs) {
            for ((value, sum), bits) in row.0.iter().zip(&mut sums).zip(&mut bits) {
                *sum += sign * value;
                *bits = bits.wrapping_add(value.to_bits());
            }
        }
        (sums == expected.sums.0).then_some(bits)
    }
}

/// The integers in the first words, one vector for each four bits from the lowest up.
#[inline(always)]
fn unpack<const W: usize>(words: &[u8]) -> [[f32; W]; PACKED] {
    let mut unpacked = [[0.0; W]; PACKED];
    for (shift, values) in (0..).step_by(4).zip(&mut unpacked) {
        for (word, value) in words.as_chunks().0.iter().zip(values) {
            let bits = u32::from_le_bytes(*word) >> shift & 15;
            *value = bits as f32 - 8.0;
        }
    }
    unpacked
}

fn signs(mut numbers: SplitMix64) -> [f32; N] {
    let mut signs = [0.0; N];
    for signs in signs.as_chunks_mut::<64>().0 {
        let bits = numbers.next();
        for (n, sign) in signs.iter_mut().enumerate() {
            *sign = if bits >> n & 1 == 0 { -1.0 } else { 1.0 };
        }
    }
    signs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::vector::compiled_for;

    fn multiplied(level: Level, seed: u64, index: u64) -> (Matrices, Expected) {
        let mut matrices = Matrices::new();
        let expected = compiled_for!(level, W => matrices.fill::<W>(seed, index));
        matrices.multiply(level);
        (matrices, expected)
    }

    /// A matrix by its definition, row by row.
    fn plain(seed: u64, stream: u64) -> Vec<i32> {
        let mut numbers = SplitMix64::stream(seed, stream);
        let mut words = vec![];
        for _ in 0..N * N / PACKED / 2 {
            let bytes = numbers.next().to_le_bytes();
            words.extend(bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)));
        }
        let value = |row: usize, column: usize| {
            let word = words[row / PACKED * N + column];
            i32::try_from(word >> (row % PACKED * 4) & 15).unwrap() - 8
        };
        (0..N)
            .flat_map(|row| (0..N).map(move |column| (row, column)))
            .map(|(r, c)| value(r, c))
            .collect()
    }

    #[test]
    fn every_tile_gives_the_sums_written_out() {
        let (a, b) = (plain(7, 15), plain(7, 16));
        let checksums = Level::all().map(|level| {
            let (matrices, expected) = multiplied(level, 7, 5);
            // Rows at the borders of tiles, of blocks and of the matrix.
            for row in [0, 1, 2, 5, 6, 11, 12, 131, 132, 503, 504, 509, 510, 511] {
                for (column, found) in matrices.c[row].0.iter().enumerate() {
                    let sum: i32 = (0..N).map(|k| a[k * N + row] * b[k * N + column]).sum();
                    assert_eq!(f64::from(*found), f64::from(sum), "{level:?} {row} {column}");
                }
            }
            matrices.checksums(&expected).unwrap()
        });
        let checksums: Vec<_> = checksums.collect();
        assert!(checksums.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn one_wrong_element_anywhere_fails_the_check() {
        let level = Level::best();
        let (mut matrices, expected) = multiplied(level, 1, 0);
        for (row, column) in [(0, 0), (17, 300), (511, 511)] {
            for wrong in [1.0, -1.0, 1e30, f32::NAN] {
                let right = matrices.c[row].0[column];
                matrices.c[row].0[column] += wrong;
                assert_eq!(matrices.checksums(&expected), None, "{row} {column} {wrong}");
                matrices.c[row].0[column] = right;
            }
        }
        assert!(matrices.checksums(&expected).is_some());

        // A factor that changes in memory between its making and its use.
        matrices.b[1234].0[5] += 1.0;
        matrices.multiply(level);
        assert_eq!(matrices.checksums(&expected), None);
    }
}
