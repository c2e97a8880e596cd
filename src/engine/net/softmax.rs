//! From logits to probabilities, and to the gradient of the cross-entropy by the logits.

use super::Score;
use super::math::{exp, ln};
use crate::engine::vector::{LANES, Level, Line, compiled_for};

/// What is less probable moves nothing. Numbers that shrink without end would get below those that a
/// processor handles at full speed.
const LEAST: f32 = 1e-9;

/// Rows whose sums, each at most the number of classes, are multiplied to one logarithm.
const TOGETHER: usize = 64;

/// Compares each row's logits with its label. The gradient is that of the mean over the rows; rows that
/// have no label get none.
pub(super) fn compare(
    level: Level,
    logits: &[Line],
    gradient: &mut [Line],
    labels: &[u32],
    classes: usize,
) -> Score {
    compiled_for!(level, _W => compare_rows(logits, gradient, labels, classes))
}

#[inline(always)]
fn compare_rows(logits: &[Line], gradient: &mut [Line], labels: &[u32], classes: usize) -> Score {
    let rows = logits.len() / classes.div_ceil(LANES);
    let share = 1.0 / labels.len() as f32;
    let mut score = Score { rows: labels.len(), ..Score::default() };
    gradient.fill(Line::splat(0.0));
    for (labels, first) in labels.chunks(TOGETHER).zip((0..).step_by(TOGETHER)) {
        let mut product = 1.0;
        for (label, r) in labels.iter().zip(first..) {
            let (max, sum) = exponents(logits, gradient, r, rows, classes);
            let (line, lane) = (*label as usize / LANES, *label as usize % LANES);
            let logit = logits[line * rows + r].0[lane];
            product *= f64::from(sum);
            score.loss += f64::from(max - logit);
            // Of equal logits the first is the answer. Each has 1 in the sum, so they show there.
            let is_first = sum < 2.0 || is_first(logits, r, rows, *label as usize);
            score.right += usize::from(logit >= max && is_first);
            let (scale, least) = (share / sum, LEAST * sum);
            for line in gradient[r..].iter_mut().step_by(rows) {
                *line = line.scaled(scale, least);
            }
            gradient[line * rows + r].0[lane] -= share;
        }
        score.loss += ln(product);
    }
    score
}

/// Whether no class before this one has as large a logit.
fn is_first(logits: &[Line], row: usize, rows: usize, class: usize) -> bool {
    let logit = |class: usize| logits[class / LANES * rows + row].0[class % LANES];
    (0..class).all(|before| logit(before) < logit(class))
}

/// The most probable class of each row and how probable it is, which is no number where a logit is none.
pub(super) fn answer(
    level: Level,
    logits: &[Line],
    rows: usize,
    classes: usize,
) -> Vec<(u32, f32)> {
    compiled_for!(level, _W => (0..rows).map(|row| answer_row(logits, row, classes)).collect())
}

#[inline(always)]
fn answer_row(logits: &[Line], row: usize, classes: usize) -> (u32, f32) {
    let rows = logits.len() / classes.div_ceil(LANES);
    let mut best = (0, f32::NEG_INFINITY);
    let mut are_finite = true;
    let mut at = 0;
    for line in logits[row..].iter().step_by(rows) {
        for value in line.0.iter().take(classes - at as usize) {
            if *value > best.1 {
                best = (at, *value);
            }
            are_finite &= value.is_finite();
            at += 1;
        }
    }
    if !are_finite {
        return (best.0, f32::NAN);
    }
    let mut sums = Line::splat(0.0);
    for (line, first) in logits[row..].iter().step_by(rows).zip((0..classes).step_by(LANES)) {
        sums.add(&exp(line.less(best.1)).first(classes - first, 0.0));
    }
    (best.0, 1.0 / sums.sum())
}

/// Writes e to each logit of a row, less the largest; returns that and the sum.
#[inline(always)]
fn exponents(
    logits: &[Line],
    out: &mut [Line],
    row: usize,
    rows: usize,
    classes: usize,
) -> (f32, f32) {
    let lines = || logits[row..].iter().step_by(rows).zip((0..classes).step_by(LANES));
    let max = lines().fold(f32::NEG_INFINITY, |max, (line, first)| {
        let most = line.first(classes - first, f32::NEG_INFINITY).max();
        if most > max { most } else { max }
    });
    let mut sums = Line::splat(0.0);
    for ((line, first), out) in lines().zip(out[row..].iter_mut().step_by(rows)) {
        *out = exp(line.less(max)).first(classes - first, 0.0);
        sums.add(out);
    }
    (max, sums.sum())
}
