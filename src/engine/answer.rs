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
