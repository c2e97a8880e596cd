//! When the speed of this machine is measured: while there is nothing else to do, never beside a job.

use std::time::Duration;

use log::Level;

use super::{Action, Core, State, Time};

/// A machine that its owner uses is not measured; it is tried again, less and less often.
const AGAIN_MIN: Duration = Duration::from_secs(10 * 60);
const AGAIN_MAX: Duration = Duration::from_secs(6 * 3600);

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Measuring {
    /// The figure is known.
    Done,
    Wanted {
        at: Time,
        failures: u32,
    },
    UnderWay {
        failures: u32,
    },
}

impl Core {
    pub(super) fn want_measuring(&mut self, now: Time) {
        if self.measuring == Measuring::Done {
            self.measuring = Measuring::Wanted { at: now, failures: 0 };
        }
    }

    /// When to begin, if nothing happens before.
    pub(super) fn measuring_due(&self) -> Option<Time> {
        let nothing_runs = self.jobs.values().all(|job| matches!(job.state, State::Undelivered(_)));
        let idle =
            nothing_runs && self.waiting.is_empty() && !self.enough_taken() && self.pause.is_none();
        match self.measuring {
            Measuring::Wanted { at, .. }
                if idle && self.link.is_good() && self.stopping.is_no() =>
            {
                Some(at)
            }
            Measuring::Wanted { .. } | Measuring::UnderWay { .. } | Measuring::Done => None,
        }
    }

    pub(super) fn step_measuring(&mut self, now: Time) {
        let due = self.measuring_due().is_some_and(|at| now >= at);
        if let Measuring::Wanted { failures, .. } = self.measuring
            && due
        {
            self.measuring = Measuring::UnderWay { failures };
            self.log(Level::Debug, "measuring the processor".into());
            self.out.push(Action::Measure);
        }
    }

    /// A job is about to begin.
    pub(super) fn stop_measuring(&mut self, now: Time) {
        if let Measuring::UnderWay { failures } = self.measuring {
            self.measuring = Measuring::Wanted { at: now, failures };
            self.out.push(Action::StopMeasuring);
        }
    }

    /// The figure is known and stored now, or why it is not.
    pub(super) fn measured(&mut self, now: Time, answer: Result<f64, String>) {
        // It may be the answer of one that was stopped too late, with the next under way already.
        self.out.push(Action::StopMeasuring);
        match (answer, self.measuring) {
            (Ok(gflops), _) => {
                self.measuring = Measuring::Done;
                self.log(Level::Info, format!("the processor does {gflops:.1} GFLOP/s"));
                self.machine_changed(now);
            }
            (Err(reason), Measuring::UnderWay { failures }) => {
                let wait = AGAIN_MIN.saturating_mul(1 << failures.min(16)).min(AGAIN_MAX);
                let again = humantime::format_duration(wait);
                let line =
                    format!("the processor's speed is not known, again in {again}: {reason}");
                self.log(Level::Info, line);
                self.measuring =
                    Measuring::Wanted { at: now + wait, failures: failures.saturating_add(1) };
            }
            (Err(_), Measuring::Wanted { .. } | Measuring::Done) => {}
        }
    }
}
