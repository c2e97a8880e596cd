//! The breaker: where jobs of one kind fail one after the other by this worker's fault, none of that kind is
//! taken for a while, then one on trial. Other kinds are taken as before.
//!
//! It counts who failed, not how often: one submitter can fail as many jobs as they like, and must not
//! stop the others. Whoever has jobs that fail here one after the other waits alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use log::Level;

use super::{Core, Job, State, Time};
use crate::job::Offer;
use crate::work::{Blame, Verdict};

/// How many submitters, or how many jobs of one submitter, fail in a row before the pause.
const FAILURES_MAX: usize = 5;

/// How long the pause is; twice as long after each trial that fails.
const PAUSE_MIN: Duration = Duration::from_secs(10 * 60);
const PAUSE_MAX: Duration = Duration::from_secs(2 * 3600);

/// So many submitters are kept apart: a backend may make up a new one for each job.
const SUBMITTERS_MAX: usize = 1000;

/// What failed of one kind of job, since one of that kind did not.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// For everybody: it counts submitters, or jobs where the backend does not name any.
    all: Fuse,
    /// For one submitter: it counts their jobs.
    of_one: BTreeMap<String, Fuse>,
}

#[derive(Debug)]
enum Fuse {
    Closed {
        failed: BTreeSet<String>,
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

/// Whose a job is, and of which kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whose {
    pub(super) kind: String,
    pub(super) submitter: Option<String>,
}

impl Default for Fuse {
    fn default() -> Self {
        Self::Closed { failed: BTreeSet::new() }
    }
}

impl Fuse {
    /// Returns how long the pause is that begins with this failure.
    fn fail(&mut self, now: Time, who: &str) -> Option<Duration> {
        let pause = match self {
            Self::Closed { failed } => {
                failed.insert(who.to_owned());
                (failed.len() >= FAILURES_MAX).then_some(PAUSE_MIN)?
            }
            // It began before the pause and tells nothing new.
            Self::Open { .. } => return None,
            Self::Trial { pause } => (*pause * 2).min(PAUSE_MAX),
        };
        *self = Self::Open { until: now + pause, pause };
        Some(pause)
    }

    fn due(&self) -> Option<Time> {
        match self {
            Self::Open { until, .. } => Some(*until),
            Self::Closed { .. } | Self::Trial { .. } => None,
        }
    }

    /// Returns whether a trial begins.
    fn step(&mut self, now: Time) -> bool {
        match *self {
            Self::Open { until, pause } if now >= until => {
                *self = Self::Trial { pause };
                true
            }
            _ => false,
        }
    }

    /// Whether a job may be taken beside so many that run.
    fn allows(&self, running: usize) -> bool {
        match self {
            Self::Closed { .. } => true,
            Self::Open { .. } => false,
            Self::Trial { .. } => running == 0,
        }
    }

    fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}

impl Breaker {
    fn fuses(&self) -> impl Iterator<Item = &Fuse> {
        std::iter::once(&self.all).chain(self.of_one.values())
    }

    fn fuses_mut(&mut self) -> impl Iterator<Item = &mut Fuse> {
        std::iter::once(&mut self.all).chain(self.of_one.values_mut())
    }

    fn of(&mut self, submitter: &str) -> &mut Fuse {
        if self.of_one.len() >= SUBMITTERS_MAX && !self.of_one.contains_key(submitter) {
            self.of_one.pop_first();
        }
        self.of_one.entry(submitter.to_owned()).or_default()
    }

    #[cfg(test)]
    pub(super) fn submitters(&self) -> usize {
        self.of_one.len()
    }

    /// Why jobs of this kind wait, if any do.
    fn objection(&self, kind: &str) -> Option<String> {
        match &self.all {
            Fuse::Open { pause, .. } => {
                let pause = humantime::format_duration(*pause);
                Some(format!(
                    "paused: {kind} jobs, for {pause} after {FAILURES_MAX} failures in a row"
                ))
            }
            Fuse::Trial { .. } => {
                Some(format!("paused: {kind} jobs but one on trial, after failures in a row"))
            }
            Fuse::Closed { .. } => {
                let waiting = self.of_one.values().filter(|fuse| !fuse.is_closed()).count();
                let s = if waiting == 1 { "" } else { "s" };
                (waiting > 0).then(|| {
                    format!(
                        "paused: {kind} jobs of {waiting} submitter{s}, after failures in a row"
                    )
                })
            }
        }
    }
}

impl Whose {
    pub(super) fn of(offer: &Offer) -> Self {
        Self { kind: offer.kind.clone(), submitter: offer.submitter.clone() }
    }
}

impl Job {
    /// Whose it is, while it holds a slot.
    fn whose(&self) -> Option<Whose> {
        match &self.state {
            State::Running { whose, .. } => Some(whose.clone()),
            State::Recovered { offer, .. } => Some(Whose::of(offer)),
            State::Recording | State::Undelivered(_) => None,
        }
    }
}

impl Core {
    /// A job ran here and ended by itself. `job` names it.
    pub(super) fn judge(&mut self, now: Time, whose: &Whose, job: &str, verdict: Verdict) {
        let blame = match verdict {
            // A machine that gets as far as a job's own mistakes works.
            Verdict::Completed | Verdict::Failed(Blame::Job) => return self.works(&whose.kind),
            Verdict::Failed(blame) => blame,
            Verdict::Declined(_) | Verdict::Cancelled => return,
        };
        let Whose { kind, submitter } = whose;
        let breaker = self.breakers.entry(kind.clone()).or_default();
        let mut lines = vec![];
        if let Some(submitter) = submitter.as_deref().filter(|_| breaker.all.is_closed())
            && let Some(pause) = breaker.of(submitter).fail(now, job)
        {
            lines.push((format!("{kind} jobs of one submitter"), pause));
        }
        // Anybody could cause the others.
        if blame == Blame::Worker
            && let Some(pause) = breaker.all.fail(now, submitter.as_deref().unwrap_or(job))
        {
            lines.push((format!("{kind} jobs"), pause));
        }
        for (what, pause) in lines {
            let pause = humantime::format_duration(pause);
            let line = format!(
                "{what} fail here one after the other: none are taken for {pause}, then one on trial"
            );
            self.log(Level::Error, line);
        }
    }

    fn works(&mut self, kind: &str) {
        let breaker = self.breakers.remove(kind);
        if breaker.is_some_and(|breaker| !breaker.fuses().all(Fuse::is_closed)) {
            let line = format!("{kind} jobs no longer fail here: they are taken as before");
            self.log(Level::Info, line);
        }
    }

    pub(super) fn step_breaker(&mut self, now: Time) {
        let mut lines = vec![];
        for (kind, breaker) in &mut self.breakers {
            for fuse in breaker.fuses_mut() {
                if fuse.step(now) {
                    lines.push(format!("one {kind} job is taken on trial"));
                }
            }
        }
        for line in lines {
            self.log(Level::Info, line);
        }
    }

    pub(super) fn breaker_due(&self) -> Option<Time> {
        self.breakers.values().flat_map(Breaker::fuses).filter_map(Fuse::due).min()
    }

    /// Why an offered job waits though others are taken.
    pub(super) fn breaker_objection(&self, offer: &Offer) -> Option<String> {
        let breaker = self.breakers.get(&offer.kind)?;
        let running = self.jobs.values().filter_map(Job::whose);
        let alike: Vec<Whose> = running.filter(|whose| whose.kind == offer.kind).collect();
        let own = alike.iter().filter(|whose| whose.submitter == offer.submitter).count();
        let fuse = offer.submitter.as_ref().and_then(|submitter| breaker.of_one.get(submitter));
        let may = breaker.all.allows(alike.len()) && fuse.is_none_or(|fuse| fuse.allows(own));
        if may { None } else { breaker.objection(&offer.kind) }
    }

    /// What waits, for people and the backend.
    pub(super) fn kinds_paused(&self) -> Option<String> {
        let said = self.breakers.iter().filter_map(|(kind, breaker)| breaker.objection(kind));
        said.reduce(|all, more| format!("{all}; {more}"))
    }
}
