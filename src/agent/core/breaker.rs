//! The breaker: a machine that fails one job after the other takes none for a while, then one on
//! trial.

use std::time::Duration;

use log::Level;

use super::{Core, Time};
use crate::work::{Blame, Verdict};

/// So many failures of ours in a row, and no job is taken.
const FAILURES_MAX: u32 = 5;

/// How long no job is taken; twice as long after each trial that fails.
const PAUSE_MIN: Duration = Duration::from_secs(10 * 60);
const PAUSE_MAX: Duration = Duration::from_secs(2 * 3600);

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Breaker {
    Closed {
        failures: u32,
    },
    Open {
        until: Time,
        pause: Duration,
    },
    /// One job at a time; what still runs from before is as good a trial as any.
    Trial {
        pause: Duration,
    },
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self::Closed { failures: 0 }
    }

    pub(super) fn due(self) -> Option<Time> {
        match self {
            Self::Open { until, .. } => Some(until),
            Self::Closed { .. } | Self::Trial { .. } => None,
        }
    }

    /// Why no job is taken beside so many that were begun.
    pub(super) fn objection(self, begun: usize) -> Option<String> {
        match self {
            Self::Open { pause, .. } => {
                let pause = humantime::format_duration(pause);
                Some(format!("jobs failed here one after the other: none are taken for {pause}"))
            }
            Self::Trial { .. } if begun > 0 => {
                Some("jobs failed here one after the other: one is on trial".into())
            }
            Self::Closed { .. } | Self::Trial { .. } => None,
        }
    }

    fn after(self, now: Time, blame: Option<Blame>) -> Self {
        let open = |pause| Self::Open { until: now + pause, pause };
        match (self, blame) {
            // A machine that gets as far as a job's own mistakes works.
            (_, None | Some(Blame::Job)) => Self::new(),
            (Self::Closed { failures }, Some(Blame::Worker)) if failures + 1 < FAILURES_MAX => {
                Self::Closed { failures: failures + 1 }
            }
            (Self::Closed { .. }, Some(Blame::Worker)) => open(PAUSE_MIN),
            // It began before the pause and tells nothing new.
            (Self::Open { .. }, Some(Blame::Worker)) => self,
            (Self::Trial { pause }, Some(Blame::Worker)) => open((pause * 2).min(PAUSE_MAX)),
        }
    }
}

impl Core {
    /// A job ran here and ended by itself.
    pub(super) fn judge(&mut self, now: Time, verdict: Verdict) {
        let blame = match verdict {
            Verdict::Completed => None,
            Verdict::Failed(blame) => Some(blame),
            Verdict::Declined(_) | Verdict::Cancelled => return,
        };
        let before = self.breaker;
        self.breaker = before.after(now, blame);
        match (before, self.breaker) {
            (Breaker::Closed { .. } | Breaker::Trial { .. }, Breaker::Open { pause, .. }) => {
                let what = match before {
                    Breaker::Trial { .. } => "the job on trial failed too".to_owned(),
                    _ => format!("{FAILURES_MAX} jobs in a row failed by this worker's fault"),
                };
                let pause = humantime::format_duration(pause);
                let line = format!("{what}: none are taken for {pause}, then one on trial");
                self.log(Level::Error, line);
            }
            (Breaker::Open { .. } | Breaker::Trial { .. }, Breaker::Closed { .. }) => {
                self.log(Level::Info, "jobs no longer fail here: they are taken as before".into());
            }
            _ => {}
        }
    }

    pub(super) fn step_breaker(&mut self, now: Time) {
        if let Breaker::Open { until, pause } = self.breaker
            && now >= until
        {
            self.breaker = Breaker::Trial { pause };
            self.log(Level::Info, "one job is taken on trial".into());
        }
    }
}
