//! Which rows a network learns from, which say when it was best, and which it never sees.
//!
//! Each class is shuffled, in the order of the classes, by Fisher and Yates' method from its last row on,
//! with numbers from one SplitMix64 stream (`first(first(seed) ^ STREAM)`): a number below `n` is the
//! upper half of the product of `n` and the next 64 bits. Of each shuffled class the first rows are for
//! the test, the next for validation, the rest for training. How many: so that after each class the rows
//! taken so far are the share of the rows so far, to the nearest, but never all of a class.

use crate::engine::splitmix::SplitMix64;

const STREAM: u64 = u64::from_le_bytes(*b"split   ");
/// Shares are counted in these, so that all but one multiplication is in whole numbers.
const WHOLE: u64 = 1_000_000;
const VALIDATION: u64 = WHOLE / 10;

/// Numbers of rows, each row once, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Split {
    /// Has a row of every class.
    pub(crate) training: Vec<u32>,
    /// A tenth of what is not the test's; nothing where the classes are too small.
    pub(crate) validation: Vec<u32>,
    /// Never empty.
    pub(crate) test: Vec<u32>,
}

/// Splits rows by their class; `None` if every class has one row, so that there is none to test on.
/// `test` is a fraction between 0 and 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and a million"
)]
pub(crate) fn split(labels: &[u32], test: f64, seed: u64) -> Option<Split> {
    let share = (test.clamp(0.0, 1.0) * WHOLE as f64).round() as u64;
    let mut classes = by_class(labels);
    let mut numbers = SplitMix64::stream(seed, STREAM);
    classes.iter_mut().for_each(|rows| numbers.shuffle(rows));
    let mut test = take(&mut classes, share);
    if test.is_empty() {
        // The first of the largest, so that it is missed least.
        let largest = classes.iter_mut().rev().max_by_key(|rows| rows.len())?;
        if largest.len() < 2 {
            return None;
        }
        test.push(largest.remove(0));
    }
    let mut validation = take(&mut classes, VALIDATION);
    let mut training = classes.concat();
    for rows in [&mut test, &mut validation, &mut training] {
        rows.sort_unstable();
    }
    Some(Split { training, validation, test })
}

fn by_class(labels: &[u32]) -> Vec<Vec<u32>> {
    let count = labels.iter().max().map_or(0, |most| *most as usize + 1);
    let mut classes = vec![vec![]; count];
    for (row, label) in (0..).zip(labels) {
        classes[*label as usize].push(row);
    }
    classes
}

/// Takes a share of the rows of every class, and leaves at least one of each.
fn take(classes: &mut [Vec<u32>], share: u64) -> Vec<u32> {
    let (mut taken, mut seen) = (vec![], 0);
    for rows in classes {
        seen += rows.len() as u64;
        let due = (seen * share + WHOLE / 2) / WHOLE;
        let count = due.saturating_sub(taken.len() as u64);
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(rows.len().saturating_sub(1));
        taken.extend(rows.drain(..count));
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many rows of each class as said, one class after the other.
    fn labels(sizes: &[usize]) -> Vec<u32> {
        (0..).zip(sizes).flat_map(|(class, size)| vec![class; *size]).collect()
    }

    fn of_class(rows: &[u32], labels: &[u32], class: u32) -> usize {
        rows.iter().filter(|row| labels[**row as usize] == class).count()
    }

    #[test]
    fn every_row_is_in_one_part() {
        for sizes in [&[50, 50, 50][..], &[1, 7, 300], &[2, 1], &[178, 182, 177, 183]] {
            let labels = labels(sizes);
            let Split { training, validation, test } = split(&labels, 0.2, 3).unwrap();
            let mut all = [training, validation, test].concat();
            all.sort_unstable();
            assert_eq!(all, (0..).take(labels.len()).collect::<Vec<u32>>(), "{sizes:?}");
        }
    }

    #[test]
    fn every_class_has_its_share_of_every_part() {
        let sizes = [178, 182, 177, 183, 181, 40, 3];
        let labels = labels(&sizes);
        let parts = split(&labels, 0.2, 0).unwrap();
        for (class, size) in (0..).zip(sizes) {
            let size = size as f64;
            for (rows, share) in
                [(&parts.test, 0.2), (&parts.validation, 0.08), (&parts.training, 0.72)]
            {
                let found = of_class(rows, &labels, class) as f64;
                assert!((found - size * share).abs() <= 1.6, "class {class}: {found} of {size}");
            }
        }
        assert_eq!(parts.test.len(), 189, "a fifth of 944");
        assert_eq!(parts.validation.len(), 76, "a tenth of 755");
    }

    #[test]
    fn the_same_seed_gives_the_same_split_and_another_one_another() {
        let labels = labels(&[30, 20]);
        assert_eq!(split(&labels, 0.2, 7), split(&labels, 0.2, 7));
        assert_ne!(split(&labels, 0.2, 7), split(&labels, 0.2, 8));
        // By a script in Python that follows the head of this file.
        let parts = split(&labels, 0.2, 7).unwrap();
        assert_eq!(parts.test, [7, 14, 16, 21, 22, 25, 39, 40, 44, 46]);
        assert_eq!(parts.validation, [2, 17, 30, 31]);
    }

    #[test]
    fn tiny_classes_stay_in_the_training() {
        let labels = labels(&[1, 1, 2, 40]);
        for test in [0.0, 0.2, 0.9, 1.0] {
            let parts = split(&labels, test, 1).unwrap();
            for class in 0..4 {
                assert!(of_class(&parts.training, &labels, class) >= 1, "{class} at {test}");
            }
            assert!(!parts.test.is_empty(), "there is a row to test on at {test}");
        }
    }

    #[test]
    fn classes_of_one_row_each_leave_none_to_test_on() {
        assert_eq!(split(&labels(&[1, 1, 1]), 0.2, 0), None);
        assert_eq!(split(&[], 0.2, 0), None);
    }
}
