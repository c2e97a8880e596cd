//! Puts every column on the same scale, so that one rate of learning fits all of them.

use super::Table;

/// A number `x` of a column becomes `(x - mean) * scale`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standard {
    pub(crate) mean: Vec<f32>,
    /// One over the standard deviation of the rows looked at; 1 for a column that is the same in all of
    /// them, which so becomes 0.
    pub(crate) scale: Vec<f32>,
}

/// By these rows alone: what is tested on later must not have a say. Sums are made in the order of
/// `rows`, in 64 bits, of operations that every processor rounds alike.
#[expect(clippy::cast_possible_truncation, reason = "a mean is within the numbers")]
pub(crate) fn standard(table: &Table, rows: &[u32]) -> Standard {
    let count = rows.len().max(1) as f64;
    let mut mean = vec![0.0_f64; table.features.len()];
    for row in rows {
        for (sum, value) in mean.iter_mut().zip(table.row(*row as usize)) {
            *sum += f64::from(*value);
        }
    }
    mean.iter_mut().for_each(|sum| *sum /= count);
    let mut squares = vec![0.0_f64; table.features.len()];
    for row in rows {
        for ((sum, mean), value) in squares.iter_mut().zip(&mean).zip(table.row(*row as usize)) {
            let off = f64::from(*value) - mean;
            *sum += off * off;
        }
    }
    let scale = mean.iter().zip(&squares).map(|(mean, sum)| scale(*mean, (sum / count).sqrt()));
    Standard { scale: scale.collect(), mean: mean.iter().map(|mean| *mean as f32).collect() }
}

/// A deviation that 32 bits cannot tell from the mean is what rounding left of none.
#[expect(clippy::cast_possible_truncation, reason = "what becomes infinite is looked for")]
fn scale(mean: f64, deviation: f64) -> f32 {
    let scale = (1.0 / deviation) as f32;
    let is_constant = deviation <= mean.abs() * f64::from(f32::EPSILON) / 1024.0;
    if is_constant || !scale.is_finite() { 1.0 } else { scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(width: usize, values: &[f32]) -> Table {
        let features = (0..width).map(|at| at.to_string()).collect();
        let labels = vec![0; values.len() / width];
        Table { features, classes: vec![], values: values.to_vec(), labels }
    }

    #[test]
    fn columns_get_mean_0_and_deviation_1() {
        let found =
            standard(&table(2, &[1.0, -10.0, 3.0, 10.0, 5.0, 30.0, 7.0, 50.0]), &[0, 1, 2, 3]);
        // By numpy's mean and std.
        assert_eq!(found.mean, [4.0, 20.0]);
        assert_eq!(found.scale, [0.447_213_6, 0.044_721_36]);
    }

    #[test]
    fn only_the_rows_asked_for_have_a_say() {
        let found = standard(&table(1, &[1.0, 1e9, 3.0]), &[0, 2]);
        assert_eq!(found, Standard { mean: vec![2.0], scale: vec![1.0] });
    }

    #[test]
    fn a_column_that_never_changes_becomes_0() {
        // Of 0.1 in 32 bits the sum over 1000 rows is no multiple.
        for value in [0.1, 0.0, -7e30, f32::MAX, f32::MIN_POSITIVE] {
            let rows: Vec<u32> = (0..1000).collect();
            let found = standard(&table(1, &[value; 1000]), &rows);
            assert_eq!(found, Standard { mean: vec![value], scale: vec![1.0] }, "{value}");
        }
    }

    #[test]
    fn the_smallest_and_the_largest_numbers_have_a_finite_scale() {
        for column in [[1e-45, 2e-45], [3e38, -3e38], [1.0, 1.000_000_1]] {
            let found = standard(&table(1, &column), &[0, 1]);
            assert!(found.scale[0].is_finite() && found.scale[0] > 0.0, "{column:?}: {found:?}");
        }
    }
}
