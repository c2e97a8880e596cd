//! A product of two 512×512 matrices of seeded small integers in f32, and its check.
//!
//! The integers are -8 to 7, so no sum, in the product or in its check, exceeds 2²⁴: f32 holds all of
//! them exactly, and they come out the same in any order, at any vector width, and with or without
//! fused multiply-add.
//!
//! The kernel keeps a tile of C in registers over the whole depth: 12×32 with AVX-512, 6×16 with
//! AVX2, 2×16 else. A and B lie in strips as high and as wide as a tile, so that each is read from its
//! start to its end; a block of A's strips stays in the second cache while all of B passes.

use fearless_simd::prelude::*;

use super::splitmix::SplitMix64;

pub(super) const N: usize = 512;
/// Divisible by the height of each tile. What the rows beyond [`N`] hold does not matter.
const HEIGHT: usize = 516;
/// Rows of A that stay in the second cache (270 KB), again whole tiles of each height.
const BLOCK: usize = 132;
/// Of f32 in a cache line, and in the widest vector.
const LANES: usize = 16;
/// Integers in a word of the seeded stream.
const PACKED: usize = 8;
const WORD: usize = size_of::<u32>();
/// Bytes in a row of words. Not a power of two, or all rows would meet in a few sets of the cache.
const WORDS: usize = (N + LANES) * WORD;
/// Depths for each turn of the innermost loop, whose counting would else cost a tenth of the speed.
const UNROLL: usize = 4;

/// Aligned to a cache line: a vector that crosses two is loaded at half the speed.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Aligned<const LEN: usize>([f32; LEN]);

type Line = Aligned<LANES>;

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
    pub(super) fn fill<S: Simd>(&mut self, simd: S, seed: u64, index: u64) -> Expected {
        let [for_a, for_b, for_signs] =
            [0, 1, 2].map(|part| SplitMix64::stream(seed, index * 3 + part));
        let signs = signs(for_signs);
        self.draw_words(for_a);
        let through_a = match S::f32s::LEN {
            16 => self.unpack_a::<S, 12>(simd, &signs),
            8 => self.unpack_a::<S, 6>(simd, &signs),
            _ => self.unpack_a::<S, 2>(simd, &signs),
        };
        self.draw_words(for_b);
        let sums = match S::f32s::LEN {
            16 => self.unpack_b::<S, 2, 2>(simd, &through_a),
            8 => self.unpack_b::<S, 1, 2>(simd, &through_a),
            _ => self.unpack_b::<S, 1, 4>(simd, &through_a),
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
    fn unpack_a<S: Simd, const H: usize>(&mut self, simd: S, signs: &[f32; N]) -> [f32; N] {
        let len = S::f32s::LEN;
        let mut sums = [S::f32s::splat(simd, 0.0); N];
        let a = self.a.as_chunks_mut::<H>().0.as_chunks_mut::<N>().0;
        for (strip, (a, signs)) in a.iter_mut().zip(signs.chunks(H)).enumerate() {
            let mut padded = [0.0; LANES];
            padded[..signs.len()].copy_from_slice(signs);
            let signs = S::f32s::from_slice(simd, &padded[..len]);
            let blocks =
                a.as_chunks_mut::<PACKED>().0.iter_mut().zip(sums.as_chunks_mut::<PACKED>().0);
            for ((places, sums), words) in blocks.zip(self.words.chunks_exact(WORDS)) {
                let columns = unpack(simd, &words[strip * H * WORD..]);
                for ((column, place), sum) in columns.iter().zip(places).zip(sums) {
                    place.copy_from_slice(&column.as_slice()[..H]);
                    *sum = signs.mul_add(*column, *sum);
                }
            }
        }
        let mut totals = [0.0; N];
        for (total, sums) in totals.iter_mut().zip(sums) {
            *total = sums.to_array().into_iter().sum();
        }
        totals
    }

    /// Lays B into strips as wide as `L` lines, which are `V` vectors. Returns the scales times B.
    #[inline(always)]
    fn unpack_b<S: Simd, const L: usize, const V: usize>(
        &mut self,
        simd: S,
        scales: &[f32; N],
    ) -> Aligned<N> {
        let len = S::f32s::LEN;
        let mut totals = Aligned([0.0; N]);
        let b = self.b.as_chunks_mut::<L>().0.as_chunks_mut::<N>().0;
        for (strip, (b, totals)) in
            b.iter_mut().zip(totals.0.chunks_exact_mut(L * LANES)).enumerate()
        {
            let mut sums = [S::f32s::splat(simd, 0.0); V];
            let blocks =
                b.as_chunks_mut::<PACKED>().0.iter_mut().zip(scales.as_chunks::<PACKED>().0);
            for ((lines, scales), words) in blocks.zip(self.words.chunks_exact(WORDS)) {
                let words = &words[strip * L * LANES * WORD..][..L * LANES * WORD];
                for (v, sum) in sums.iter_mut().enumerate() {
                    let rows = unpack(simd, &words[v * len * WORD..]);
                    for ((row, scale), lines) in rows.iter().zip(scales).zip(&mut *lines) {
                        let line = &mut lines[v * len / LANES].0;
                        row.store_slice(&mut line[v * len % LANES..][..len]);
                        *sum = row.mul_add(*scale, *sum);
                    }
                }
            }
            for (sum, total) in sums.iter().zip(totals.chunks_exact_mut(len)) {
                sum.store_slice(total);
            }
        }
        totals
    }

    #[inline(always)]
    pub(super) fn multiply<S: Simd>(&mut self, simd: S) {
        match S::f32s::LEN {
            16 => self.tiles::<S, 12, 2, 2>(simd),
            8 => self.tiles::<S, 6, 1, 2>(simd),
            _ => self.tiles::<S, 2, 1, 4>(simd),
        }
    }

    /// Tiles of `H` rows, as wide as `L` lines, which are `V` vectors.
    #[inline(always)]
    fn tiles<S: Simd, const H: usize, const L: usize, const V: usize>(&mut self, simd: S) {
        let b = self.b.as_chunks::<L>().0.as_chunks::<N>().0;
        for (a, c) in self.a.chunks(BLOCK * N).zip(self.c.chunks_mut(BLOCK)) {
            for (n, b) in b.iter().enumerate() {
                let a = a.as_chunks::<H>().0.as_chunks::<N>().0;
                for (a, c) in a.iter().zip(c.as_chunks_mut::<H>().0) {
                    tile::<S, H, L, V>(simd, a, b, c, n * L * LANES);
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

#[inline(always)]
fn tile<S: Simd, const H: usize, const L: usize, const V: usize>(
    simd: S,
    a: &[[f32; H]; N],
    b: &[[Line; L]; N],
    c: &mut [Aligned<N>; H],
    column: usize,
) {
    let len = S::f32s::LEN;
    let mut sums = [[S::f32s::splat(simd, 0.0); V]; H];
    for (a, b) in a.as_chunks::<UNROLL>().0.iter().zip(b.as_chunks::<UNROLL>().0) {
        for (a, lines) in a.iter().zip(b) {
            let mut b = [S::f32s::splat(simd, 0.0); V];
            for (v, b) in b.iter_mut().enumerate() {
                *b = S::f32s::from_slice(simd, &lines[v * len / LANES].0[v * len % LANES..][..len]);
            }
            for (value, sums) in a.iter().zip(&mut sums) {
                let value = S::f32s::splat(simd, *value);
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = value.mul_add(b, *sum);
                }
            }
        }
    }
    for (row, sums) in c.iter_mut().zip(sums) {
        for (sum, place) in sums.iter().zip(row.0[column..].chunks_exact_mut(len)) {
            sum.store_slice(place);
        }
    }
}

/// The integers in the first words, one vector for each four bits from the lowest up.
#[inline(always)]
fn unpack<S: Simd>(simd: S, words: &[u8]) -> [S::f32s; PACKED] {
    let words: S::i32s = S::u8s::from_slice(simd, &words[..S::f32s::LEN * WORD]).bitcast();
    let mut unpacked = [S::f32s::splat(simd, 0.0); PACKED];
    for (shift, values) in (0..).step_by(4).zip(&mut unpacked) {
        let integers: S::f32s = ((words >> shift) & 15).to_float();
        *values = integers - 8.0;
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
    use fearless_simd::{Level, dispatch};

    use super::*;

    /// One for each tile that this machine can run.
    fn levels() -> Vec<Level> {
        let best = Level::new();
        #[cfg(target_arch = "x86_64")]
        let between = best.as_avx512().and(best.as_avx2()).map(Simd::level);
        #[cfg(not(target_arch = "x86_64"))]
        let between = None;
        [Level::baseline(), best].into_iter().chain(between).collect()
    }

    fn multiplied(level: Level, seed: u64, index: u64) -> (Matrices, Expected) {
        let mut matrices = Matrices::new();
        let expected = dispatch!(level, simd => {
            let expected = matrices.fill(simd, seed, index);
            matrices.multiply(simd);
            expected
        });
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
        let checksums = levels().into_iter().map(|level| {
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
        let level = Level::new();
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
        dispatch!(level, simd => matrices.multiply(simd));
        assert_eq!(matrices.checksums(&expected), None);
    }
}
