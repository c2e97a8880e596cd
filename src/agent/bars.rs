//! A bar for each running job, for a person at the terminal. They follow the board, as everybody does who
//! looks on.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::board::Board;
use crate::snapshot::RunningJob;
use crate::text;

/// How often the time that a job has taken is drawn anew.
const TICK: Duration = Duration::from_secs(1);

/// Of 80 columns, 22 are left for the operation.
const LINE: &str = "{prefix:24} {bar:16} {percent:>3} % {elapsed_precise} {wide_msg}";

/// Draws until the agent stops. Without a job it sleeps.
pub(super) fn draw(board: &Board, bars: &MultiProgress) {
    let mut drawn = BTreeMap::<(String, u32), ProgressBar>::new();
    let (mut seen, mut within) = (0, Duration::MAX);
    while let Some((posted, snapshot)) = board.wait_newer(seen, within) {
        seen = posted;
        drawn.retain(|attempt, bar| {
            let runs = snapshot.jobs.iter().any(|job| *attempt == name(job));
            if !runs {
                // The log says what became of it.
                bar.finish_and_clear();
                bars.remove(bar);
            }
            runs
        });
        for job in &snapshot.jobs {
            let bar = drawn.entry(name(job)).or_insert_with(|| bars.add(bar(job)));
            bar.set_position(job.percent.into());
            // A job's own words.
            bar.set_message(text::one_line(&job.operation, 200));
            bar.tick();
        }
        within = if drawn.is_empty() { Duration::MAX } else { TICK };
    }
}

fn name(job: &RunningJob) -> (String, u32) {
    (job.key.clone(), job.attempt)
}

fn bar(job: &RunningJob) -> ProgressBar {
    let style = ProgressStyle::with_template(LINE);
    let prefix = format!("{} {}", text::one_line(&job.id, 12), text::one_line(&job.kind, 60));
    let bar = ProgressBar::new(100).with_prefix(prefix);
    // The template above is right; should a newer indicatif think otherwise, its default will do.
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
