//! What the loop makes of it all, for people to be shown.

use std::time::Duration;

use super::{Core, State, Time};
use crate::snapshot::{self, Counts};
use crate::work::{Key, Report};

/// The loop's state as far as it is anybody's business.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View {
    pub(crate) state: snapshot::State,
    /// Why no job is taken though a slot may be free, or not of each kind.
    pub(crate) paused: Option<String>,
    pub(crate) paused_until: Option<Time>,
    pub(crate) ailment: Option<Ailment>,
    pub(crate) registered: bool,
    /// When the backend last answered a heartbeat.
    pub(crate) last_good: Option<Time>,
    pub(crate) interval: Duration,
    pub(crate) slots: usize,
    /// Oldest first.
    pub(crate) jobs: Vec<JobView>,
    pub(crate) waiting_results: usize,
    /// Those of them that the backend finds too large.
    pub(crate) too_large_results: usize,
    pub(crate) counts: Counts,
}

/// What is wrong with the backend.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ailment {
    pub(crate) since: Time,
    /// Such as `backend unreachable`.
    pub(crate) what: &'static str,
    pub(crate) said: String,
}

/// A job that holds a slot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JobView {
    pub(crate) key: Key,
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) since: Time,
    pub(crate) seen: Seen,
}

/// What is seen of a running job.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) kind: String,
    pub(crate) percent: u8,
    pub(crate) operation: String,
    pub(crate) energy_kwh: Option<f64>,
}

impl Seen {
    pub(super) fn of_kind(kind: &str) -> Self {
        Self { kind: kind.to_owned(), ..Self::default() }
    }

    pub(super) fn note(&mut self, report: &Report) {
        self.percent = report.percent;
        self.operation.clone_from(&report.operation);
        self.energy_kwh = report.energy_kwh;
    }
}

impl Core {
    pub(crate) fn view(&self) -> View {
        View {
            state: self.state(),
            paused: self.wholly_or_partly_paused(),
            paused_until: self.paused_until(),
            ailment: self.link.ailment(),
            registered: self.link.is_registered(),
            last_good: self.link.last_good(),
            interval: self.link.interval(),
            slots: self.rules.slots,
            jobs: self.jobs_in_view(),
            waiting_results: self.undelivered(),
            too_large_results: self.too_large(),
            counts: self.counts,
        }
    }

    fn state(&self) -> snapshot::State {
        if !self.stopping.is_no() {
            snapshot::State::Stopping
        } else if self.link.ailment().is_some() {
            snapshot::State::Unreachable
        } else if !self.link.ever_registered() {
            snapshot::State::Starting
        } else if self.paused().is_some() {
            snapshot::State::Paused
        } else if self.begun() >= self.rules.slots {
            snapshot::State::Busy
        } else {
            snapshot::State::Online
        }
    }

    fn jobs_in_view(&self) -> Vec<JobView> {
        let mut jobs: Vec<_> = self.jobs.iter().collect();
        jobs.sort_by_key(|(_, job)| job.seq);
        let in_view = jobs.into_iter().filter_map(|(key, job)| {
            let seen = match &job.state {
                State::Running { seen, .. } => seen.clone(),
                State::Recovered { offer, .. } => Seen::of_kind(&offer.kind),
                State::Recording | State::Undelivered(_) => return None,
            };
            let (id, attempt) = (job.attempt.id.to_string(), job.attempt.number);
            Some(JobView { key: key.clone(), id, attempt, since: job.taken_at, seen })
        });
        in_view.collect()
    }
}
