//! Inference: one row after the other through a network, each timed.

use std::time::{Duration, Instant};

use super::model::Model;
use super::net::{Means, Net};
use super::vector::Level;
use super::{Error, Progress};

const REPORT_EVERY: Duration = Duration::from_millis(100);

/// What a network says of one row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// The place among the model's classes.
    pub(crate) class: u32,
    /// How probable the network holds it.
    pub(crate) confidence: f32,
    /// From the row's numbers to its class.
    pub(crate) latency: Duration,
}

/// Answers each row of `values`, in order. One row at a time, so that each latency is its own.
pub(crate) fn answer(
    model: &Model,
    values: &[f32],
    report: &mut dyn FnMut(Progress),
) -> Result<Vec<Answer>, Error> {
    let width = model.features.len();
    if !values.len().is_multiple_of(width) {
        return Err(Error::Inputs { model: width, data: values.len() % width });
    }
    let means = Means { level: Level::best(), shared: false };
    let net = Net::new(model, 0.0, 0);
    let mut pass = net.pass(1);
    let rows = values.len() / width;
    let mut answers = Vec::with_capacity(rows);
    let mut reported = Instant::now();
    for row in values.chunks_exact(width) {
        let start = Instant::now();
        pass.fill(&model.standardised(row), super::net::lines(width), &[0]);
        for (class, confidence) in net.answer(means, &mut pass, 1) {
            if confidence.is_nan() {
                return Err(Error::Overflow { row: answers.len() + 1 });
            }
            answers.push(Answer { class, confidence, latency: start.elapsed() });
        }
        if reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            report(progress(answers.len(), rows));
        }
    }
    report(progress(rows, rows));
    Ok(answers)
}

fn progress(done: usize, rows: usize) -> Progress {
    let percent = done * 100 / rows.max(1);
    Progress {
        percent: u8::try_from(percent).unwrap_or(100),
        operation: format!("row {done}/{rows}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model::Layer;

    fn answered(values: &[f32]) -> Result<Vec<Answer>, String> {
        let layer = Layer { inputs: 1, outputs: 2, weight: vec![1.0, -1e10], bias: vec![0.0, 0.0] };
        let model = Model {
            layers: vec![layer],
            mean: vec![0.0],
            scale: vec![1.0],
            features: vec!["x".into()],
            classes: vec!["no".into(), "yes".into()],
            notes: vec![],
        };
        answer(&model, values, &mut |_| {}).map_err(|error| error.to_string())
    }

    #[test]
    fn a_row_that_leaves_the_range_of_numbers_is_named_and_not_answered() {
        assert_eq!(answered(&[1.0]).unwrap()[0].confidence, 1.0);
        for large in [1e30, -1e30] {
            assert_eq!(
                answered(&[1.0, large]).unwrap_err(),
                "row 2: its numbers are too large for this model, which would answer nonsense"
            );
        }
    }
}
