//! When an outcome is sent, when the backend is asked about it first, when it is given up.

use std::time::Duration;

use log::Level;

use super::link::REFUSED_WAIT;
use super::{Action, Core, Errand, Job, State, Time};
use crate::backend::{Advice, Error, JobState, Receipt};
use crate::retry;
use crate::work::{Booking, Key, Verdict};

/// How long an outcome is offered to a backend that does not take it.
const BUDGET: Duration = Duration::from_secs(7 * 86_400);

/// How often the wait so far is put on disk.
const NOTE_EVERY: Duration = Duration::from_secs(3600);

/// An outcome on its way.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) verdict: Verdict,
    /// It may have been sent before, or the job may be somebody else's by now.
    ask_first: bool,
    /// It was delivered before, and its job was offered again all the same.
    resend: bool,
    /// The backend found it too large when it was last sent.
    too_large: bool,
    step: Step,
    /// The backend asked for so much patience.
    not_before: Time,
    tries: u32,
    since: Time,
    /// How long earlier runs of the agent waited.
    waited: Duration,
    noted: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Due(Time),
    Asking,
    Sending,
}

impl Delivery {
    pub(super) fn new(verdict: Verdict, now: Time) -> Self {
        Self {
            verdict,
            ask_first: false,
            resend: false,
            too_large: false,
            step: Step::Due(now),
            not_before: now,
            tries: 0,
            since: now,
            waited: Duration::ZERO,
            noted: Duration::ZERO,
        }
    }

    pub(super) fn asked_first(self) -> Self {
        Self { ask_first: true, ..self }
    }

    pub(super) fn resend(self) -> Self {
        Self { resend: true, ..self }
    }

    pub(super) fn waited(self, waited: Duration) -> Self {
        Self { waited, noted: waited, ..self }
    }

    pub(super) fn is_resend(&self) -> bool {
        self.resend
    }

    pub(super) fn is_too_large(&self) -> bool {
        self.too_large
    }

    /// Whether a program ran for it, and not a decline.
    pub(super) fn is_of_a_run(&self) -> bool {
        !matches!(self.verdict, Verdict::Declined(_))
    }

    /// Whether the courier will tell how a question or a send went.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.step, Step::Asking | Step::Sending)
    }

    fn total_wait(&self, now: Time) -> Duration {
        self.waited + now.saturating_sub(self.since)
    }
}

impl Core {
    pub(super) fn next_delivery(&self) -> Option<Time> {
        if self.stopping.holds_sends() {
            return None;
        }
        let due = |job: &Job| match &job.state {
            State::Undelivered(Delivery { step: Step::Due(at), .. }) => Some(*at),
            State::Undelivered(_)
            | State::Recovered { .. }
            | State::Recording
            | State::Running { .. } => None,
        };
        self.jobs.values().filter_map(due).min()
    }

    /// Whether any delivery is under way or falls due before `until`.
    pub(super) fn delivers_before(&self, until: Time) -> bool {
        self.jobs.values().any(|job| match &job.state {
            State::Undelivered(delivery) => match delivery.step {
                Step::Due(at) => at < until,
                Step::Asking | Step::Sending => true,
            },
            State::Recording => true,
            State::Recovered { .. } | State::Running { .. } => false,
        })
    }

    pub(super) fn step_deliveries(&mut self, now: Time) {
        if self.stopping.holds_sends() {
            return;
        }
        let mut due: Vec<(u64, Key)> = vec![];
        for (key, job) in &self.jobs {
            if let State::Undelivered(delivery) = &job.state
                && matches!(delivery.step, Step::Due(at) if now >= at)
            {
                due.push((job.seq, key.clone()));
            }
        }
        due.sort();
        for (_, key) in due {
            self.dispatch(key);
        }
    }

    /// Sends an outcome, or asks about it if that must come first.
    fn dispatch(&mut self, key: Key) {
        let Some(job) = self.jobs.get_mut(&key) else { return };
        let State::Undelivered(delivery) = &mut job.state else { return };
        if delivery.ask_first {
            delivery.step = Step::Asking;
            self.ask(key);
        } else {
            self.send(key, true);
        }
    }

    /// Sends an outcome. If the backend's clock may not run yet, some progress goes before it.
    fn send(&mut self, key: Key, may_not_run: bool) {
        let Some(job) = self.jobs.get_mut(&key) else { return };
        let State::Undelivered(delivery) = &mut job.state else { return };
        delivery.step = Step::Sending;
        // From now on a second send is a repetition, whatever becomes of this one.
        delivery.ask_first = true;
        let first = job.unacknowledged.clone().filter(|_| may_not_run);
        self.out.push(Action::Errand(Errand::Send { key, first }));
    }

    pub(super) fn asked_before_sending(
        &mut self,
        now: Time,
        key: Key,
        answer: Result<JobState, Error>,
    ) {
        let Some(job) = self.jobs.get(&key) else { return };
        let State::Undelivered(delivery) = &job.state else { return };
        if delivery.step != Step::Asking {
            // It was asked while the job still ran.
            return;
        }
        let completed = delivery.verdict == Verdict::Completed;
        let state = match answer {
            Ok(state) => state,
            Err(error) => return self.try_later(now, &key, &error),
        };
        let booking = match state {
            JobState::Unknown | JobState::Running => return self.send(key, false),
            JobState::Waiting if completed || !job.progress_acknowledged => {
                return self.send(key, true);
            }
            // Our failure has put it back into the queue.
            JobState::Waiting => Booking::Delivered,
            JobState::Completed if completed => Booking::Delivered,
            JobState::Failed if !completed => Booking::Delivered,
            JobState::Completed => Booking::Rejected("the backend has it as completed".into()),
            JobState::Failed => Booking::Rejected("the backend has it as failed".into()),
            JobState::Elsewhere => Booking::Rejected("the job was given to somebody else".into()),
            JobState::Cancelled => Booking::Cancelled,
        };
        self.settle(now, &key, booking);
    }

    pub(super) fn sent(&mut self, now: Time, key: Key, answer: Result<Receipt, Error>) {
        match answer {
            Ok(Receipt::Acknowledged) => self.settle(now, &key, Booking::Delivered),
            Ok(Receipt::Rejected(why)) => self.settle(now, &key, Booking::Rejected(why)),
            Err(error) => self.try_later(now, &key, &error),
        }
    }

    fn settle(&mut self, now: Time, key: &Key, booking: Booking) {
        let wants_beat = self.wants_beat(key);
        self.book(now, key, booking);
        if wants_beat {
            self.beat_soon(now);
        }
    }

    /// After a job's end the next job comes without waiting; resends and declines are no job's end.
    fn wants_beat(&self, key: &Key) -> bool {
        let Some(job) = self.jobs.get(key) else { return false };
        match &job.state {
            State::Undelivered(delivery) => {
                delivery.tries == 0 && delivery.is_of_a_run() && !delivery.resend
            }
            State::Recovered { .. } | State::Recording | State::Running { .. } => false,
        }
    }

    fn try_later(&mut self, now: Time, key: &Key, error: &Error) {
        let wants_beat = self.wants_beat(key);
        let interval = self.link.interval();
        let Some(job) = self.jobs.get_mut(key) else { return };
        let State::Undelivered(delivery) = &mut job.state else { return };
        if delivery.resend {
            // The job will be offered again.
            return self.book(now, key, Booking::Delivered);
        }
        let id = job.attempt.id.clone();
        let delay = retry::delay(delivery.tries, &mut self.rng).max(interval);
        let patience = match error.advice() {
            Advice::Unauthorised => REFUSED_WAIT,
            Advice::Retry | Advice::NotFound | Advice::Final => Duration::ZERO,
        };
        delivery.not_before = now + retry::at_least(patience, error.retry_after());
        delivery.step = Step::Due(delivery.not_before.max(now + delay));
        delivery.tries = delivery.tries.saturating_add(1);
        // Another error, such as that of a question, does not make it smaller.
        delivery.too_large |= error.is_too_large();
        let (first, waited) = (delivery.tries == 1, delivery.total_wait(now));
        let note = waited >= delivery.noted + NOTE_EVERY;
        if note {
            delivery.noted = waited;
        }
        let level = match error.advice() {
            Advice::Unauthorised => Level::Error,
            Advice::Retry | Advice::NotFound | Advice::Final => Level::Warn,
        };
        if first {
            let what =
                if error.is_too_large() { "refused as too large" } else { "not delivered yet" };
            self.log(level, format!("result {what}, trying on job={id}: {error}"));
        }
        if waited >= BUDGET {
            self.log(Level::Error, format!("result given up after 7 days job={id}: {error}"));
            self.book(now, key, Booking::Undelivered);
        } else if note {
            self.out.push(Action::NoteWait { key: key.clone(), waited });
        }
        self.gather();
        if wants_beat {
            self.beat_soon(now);
        }
    }

    /// What failed before goes together, oldest first, when the first of it falls due: one that waits
    /// alone would overtake older ones when the backend takes results again.
    fn gather(&mut self) {
        let waiting = |job: &Job| match &job.state {
            State::Undelivered(Delivery { step: Step::Due(at), tries: 1.., .. }) => Some(*at),
            _ => None,
        };
        let Some(first) = self.jobs.values().filter_map(waiting).min() else { return };
        for job in self.jobs.values_mut() {
            if let State::Undelivered(delivery) = &mut job.state
                && let Delivery { step: Step::Due(at), tries: 1.., not_before, .. } = delivery
            {
                *at = first.max(*not_before);
            }
        }
    }

    /// The backend is back: what waits is due as soon as it may be sent again.
    pub(super) fn hurry_deliveries(&mut self, now: Time) {
        let interval = self.link.interval();
        for job in self.jobs.values_mut() {
            if let State::Undelivered(delivery) = &mut job.state
                && let Step::Due(at) = &mut delivery.step
            {
                *at = (*at).min(now + interval).max(delivery.not_before);
            }
        }
    }
}
