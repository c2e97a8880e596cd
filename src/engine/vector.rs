//! Vectors as plain arrays, and code compiled for the widest vectors that this processor has.
//!
//! The compiler makes vector instructions of a loop over an array of fixed length, out of those that
//! the function around it may use. So most of the kernels is plain Rust, inlined by [`compiled_for`]
//! into a function that may use the level's; only `tile` names its instructions.

#[cfg(target_arch = "x86_64")]
use archmage::{SimdToken as _, X64V3Token, X64V4Token, arcane};

/// Of f32 in a cache line, and in the widest vector.
pub(super) const LANES: usize = 16;

/// Aligned to a cache line: a vector that crosses two is loaded at half the speed.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(align(64))]
pub(super) struct Aligned<const LEN: usize>(pub(super) [f32; LEN]);

pub(super) type Line = Aligned<LANES>;

impl Line {
    pub(super) const fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, value) in self.0.iter_mut().zip(&other.0) {
            *sum += value;
        }
    }

    /// All of it, halves on halves: the same order for any width of vectors.
    #[inline(always)]
    pub(super) fn sum(&self) -> f32 {
        self.halved(|a, b| a + b)
    }

    #[inline(always)]
    pub(super) fn max(&self) -> f32 {
        self.halved(|a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn halved(&self, join: impl Fn(f32, f32) -> f32) -> f32 {
        let mut values = self.0;
        for half in [8, 4, 2, 1] {
            let (low, high) = values.split_at_mut(half);
            for (low, high) in low.iter_mut().zip(high) {
                *low = join(*low, *high);
            }
        }
        values[0]
    }

    #[inline(always)]
    pub(super) fn less(&self, value: f32) -> Self {
        Aligned(self.0.map(|lane| lane - value))
    }

    /// The first so many numbers, and `rest` in place of the others.
    #[inline(always)]
    pub(super) fn first(&self, count: usize, rest: f32) -> Self {
        let mut out = [0.0; LANES];
        for (lane, (out, value)) in out.iter_mut().zip(self.0).enumerate() {
            *out = if lane < count { value } else { rest };
        }
        Aligned(out)
    }

    /// All numbers times `scale`, and 0 in place of those up to `least`.
    #[inline(always)]
    pub(super) fn scaled(&self, scale: f32, least: f32) -> Self {
        let mut out = [0.0; LANES];
        for (out, value) in out.iter_mut().zip(self.0) {
            *out = if value > least { value * scale } else { 0.0 };
        }
        Aligned(out)
    }
}

/// Which vectors: the proof that this processor has them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Level {
    /// What every server since Skylake-X has of it, not only those since Ice Lake.
    #[cfg(target_arch = "x86_64")]
    Avx512(X64V4Token),
    #[cfg(target_arch = "x86_64")]
    Avx2(X64V3Token),
    /// What every processor of this architecture has.
    Baseline,
}

impl Level {
    /// The best that this machine can run.
    pub(super) fn best() -> Self {
        // There is always the baseline.
        Self::all().next().unwrap_or(Self::Baseline)
    }

    /// Those that this machine can run, the best first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let wide = [X64V4Token::summon().map(Self::Avx512), X64V3Token::summon().map(Self::Avx2)];
        #[cfg(not(target_arch = "x86_64"))]
        let wide = [None];
        wide.into_iter().flatten().chain([Self::Baseline])
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "AVX2",
            Self::Baseline if cfg!(target_arch = "aarch64") => "NEON",
            Self::Baseline if cfg!(target_arch = "x86_64") => "SSE2",
            Self::Baseline => "plain",
        }
    }
}

/// Evaluates an expression in a function compiled for the level. The constant named before it is how
/// many f32 the level's vectors hold.
macro_rules! compiled_for {
    ($level:expr, $width:ident => $body:expr) => {
        match $level {
            #[cfg(target_arch = "x86_64")]
            $crate::engine::vector::Level::Avx512(proof) => $crate::engine::vector::avx512(
                proof,
                #[inline(always)]
                || {
                    const $width: usize = 16;
                    $body
                },
            ),
            #[cfg(target_arch = "x86_64")]
            $crate::engine::vector::Level::Avx2(proof) => $crate::engine::vector::avx2(
                proof,
                #[inline(always)]
                || {
                    const $width: usize = 8;
                    $body
                },
            ),
            $crate::engine::vector::Level::Baseline => {
                const $width: usize = 4;
                $body
            }
        }
    };
}
pub(super) use compiled_for;

#[cfg(target_arch = "x86_64")]
#[arcane]
pub(super) fn avx512<R>(_proof: X64V4Token, body: impl FnOnce() -> R) -> R {
    body()
}

#[cfg(target_arch = "x86_64")]
#[arcane]
pub(super) fn avx2<R>(_proof: X64V3Token, body: impl FnOnce() -> R) -> R {
    body()
}

/// a·b + c, in one instruction where the level has it: where it has not, that would be the call of a
/// function for each element. Both give the same for the integers of the kernels.
#[inline(always)]
pub(super) fn mul_add<const W: usize>(a: [f32; W], b: [f32; W], mut c: [f32; W]) -> [f32; W] {
    let fused = W > 4 || cfg!(target_arch = "aarch64");
    for ((c, a), b) in c.iter_mut().zip(a).zip(b) {
        *c = if fused { a.mul_add(b, *c) } else { a * b + *c };
    }
    c
}
