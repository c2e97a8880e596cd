//! What to do about the jobs that a heartbeat brings, offered for the first time or again.

use std::collections::BTreeMap;
use std::time::Duration;

use log::Level;

use super::{Action, Core, Delivery, Job, Seen, Settled, State, Time, UNDELIVERED_MAX, Whose};
use crate::agent::event::Heard;
use crate::backend::JobState;
use crate::job::Offer;
use crate::work::{Attempt, Blame, Booking, Decline, DeclineCode, Key, Order, Verdict};

/// An assigned job never moves by itself: after so long without a slot it is handed back.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// An attempt at the same content is made at most so often.
const TRIES_MAX: u32 = 3;

/// So many jobs that wait are remembered of a list that is too long for one heartbeat.
const WAITING_MAX: usize = 1000;

/// What an offer is, in the light of what we know of its job.
enum Again {
    /// Nothing to do.
    Ignore,
    /// The recorded completion is sent once more.
    Resend,
    /// The recorded failure is this attempt's outcome too.
    Repeat(Attempt),
    /// A job to run, if there is room.
    Attempt(Attempt),
}

impl Core {
    pub(super) fn hear(&mut self, now: Time, sent: Time, heard: Heard) {
        for id in &heard.cancel {
            self.cancel(now, sent, id.as_str());
        }
        let mut still_waiting = BTreeMap::new();
        for offer in heard.offers {
            let key = offer.key.clone();
            self.consider(now, sent, offer, heard.polled);
            if let Some(since) = self.waiting.get(&key) {
                still_waiting.insert(key, *since);
            }
        }
        // What is no longer offered waits no longer. Of a list that is too long for one heartbeat, what is
        // not among these may come with the next.
        if heard.partial && self.waiting.len() < WAITING_MAX {
            self.waiting.append(&mut still_waiting);
        } else {
            self.waiting = still_waiting;
        }
    }

    fn consider(&mut self, now: Time, sent: Time, offer: Offer, polled: bool) {
        // A backend that offers junk and takes no answers must not fill memory and disk.
        let too_large = self.too_large();
        let full = too_large >= UNDELIVERED_MAX
            || self.jobs.len() - too_large >= UNDELIVERED_MAX + self.rules.slots;
        if !self.stopping.is_no() || full || self.jobs.contains_key(&offer.key) {
            return;
        }
        // Of an attempt that was cancelled while the question was under way: its answer, which may be
        // that the job was cancelled, would end the new attempt.
        if self.asking.contains(&offer.key) {
            return;
        }
        let again = match self.settled.get(&offer.key) {
            Some(settled) => again(settled, &offer, now, sent),
            None => Again::Attempt(Attempt {
                id: offer.id.clone(),
                content: offer.content.clone(),
                number: 1,
                first: 1,
            }),
        };
        match again {
            Again::Ignore => {}
            Again::Resend => self.resend(now, &offer.key),
            Again::Repeat(attempt) => {
                let key = offer.key;
                self.insert(key.clone(), attempt.clone(), State::Recording, now);
                self.out.push(Action::Repeat { key, attempt });
            }
            Again::Attempt(attempt) => self.attempt(now, attempt, offer, polled),
        }
    }

    fn attempt(&mut self, now: Time, attempt: Attempt, offer: Offer, polled: bool) {
        let kind = offer.kind.clone();
        match &offer.job {
            // A polled job may be meant for another worker that does run its kind.
            Err(_) if polled => {}
            Err(decline) => self.decline(now, offer.key.clone(), attempt, kind, decline.clone()),
            Ok(_) if self.can_take() && self.breaker_objection(&offer).is_none() => {
                self.take(now, attempt, offer);
            }
            Ok(_) => {
                let since = *self.waiting.entry(offer.key.clone()).or_insert(now);
                if now - since >= WAIT_MAX && !polled {
                    let why = self.paused().or_else(|| self.breaker_objection(&offer));
                    let why = why.unwrap_or_else(|| "no slot was free".into());
                    let reason = format!("waited 15 min here: {why}");
                    let decline = Decline { code: DeclineCode::Busy, reason };
                    self.decline(now, offer.key, attempt, kind, decline);
                }
            }
        }
    }

    fn take(&mut self, now: Time, attempt: Attempt, offer: Offer) {
        let key = offer.key.clone();
        self.waiting.remove(&key);
        self.taken += 1;
        self.log(
            Level::Info,
            format!("job taken job={} kind={} attempt={}", attempt.id, offer.kind, attempt.number),
        );
        let (seen, whose) = (Seen::of_kind(&offer.kind), Whose::of(&offer));
        let state = State::Running { told: None, ask_at: now, seen, whose };
        self.stop_measuring(now);
        self.insert(key.clone(), attempt.clone(), state, now);
        self.out.push(Action::Start { key, attempt, offer: Box::new(offer) });
    }

    fn decline(&mut self, now: Time, key: Key, attempt: Attempt, kind: String, decline: Decline) {
        self.waiting.remove(&key);
        self.log(Level::Info, format!("job {} job={}", decline.error(), attempt.id));
        self.insert(key.clone(), attempt.clone(), State::Recording, now);
        self.out.push(Action::Decline { key, attempt, kind, decline });
    }

    fn resend(&mut self, now: Time, key: &Key) {
        let Some(Settled { attempt, verdict: Some(verdict), .. }) = self.settled.remove(key) else {
            return;
        };
        let delivery = Delivery::new(verdict, now).asked_first().resend();
        self.insert(key.clone(), attempt, State::Undelivered(delivery), now);
    }

    /// The backend takes a job away.
    fn cancel(&mut self, now: Time, sent: Time, id: &str) {
        let named = self.jobs.iter_mut().find(|(_, job)| job.attempt.id.as_str() == id);
        let Some((key, job)) = named else { return };
        if sent < job.taken_at {
            return;
        }
        let key = key.clone();
        match &mut job.state {
            State::Running { told, .. } => {
                if told.replace(Order::Cancel) != Some(Order::Cancel) {
                    self.log(Level::Info, format!("job cancelled by the backend job={id}"));
                    self.out.push(Action::Order { key, order: Order::Cancel });
                }
            }
            State::Recovered { .. } => self.abandon(&key),
            // What is under way is answered yet, and a job that is taken anew would get that answer.
            State::Undelivered(delivery) if delivery.is_under_way() => {}
            State::Undelivered(_) => self.book(now, &key, Booking::Cancelled),
            State::Recording => {}
        }
    }

    fn abandon(&mut self, key: &Key) {
        if let Some(job) = self.jobs.get_mut(key) {
            job.state = State::Recording;
            self.out.push(Action::Abandon { key: key.clone() });
        }
    }

    /// When a job that an earlier run took and never began is asked about next.
    pub(super) fn next_ask(&self) -> Option<Time> {
        let at = |(key, job): (&Key, &Job)| match &job.state {
            _ if self.asking.contains(key) => None,
            State::Recovered { ask_at, .. } => Some(*ask_at),
            // A running job is asked about after a good heartbeat, not on a timer.
            State::Recording | State::Running { .. } | State::Undelivered(_) => None,
        };
        self.may_begin_recovered().then(|| self.jobs.iter().filter_map(at).min()).flatten()
    }

    fn may_begin_recovered(&self) -> bool {
        self.link.is_good() && self.stopping.is_no() && self.pause.is_none()
    }

    pub(super) fn step_recovered(&mut self, now: Time) {
        if !self.may_begin_recovered() {
            return;
        }
        self.ask_due(now, |state| match state {
            State::Recovered { ask_at, .. } => Some(*ask_at),
            _ => None,
        });
    }

    pub(super) fn asked_before_beginning(&mut self, now: Time, key: Key, state: JobState) {
        match state {
            JobState::Completed | JobState::Failed | JobState::Cancelled | JobState::Elsewhere => {
                self.abandon(&key);
            }
            JobState::Unknown | JobState::Waiting | JobState::Running => {
                let may = self.stopping.is_no() && self.pause.is_none();
                if !may || self.running().count() >= self.rules.slots {
                    return;
                }
                let Some(job) = self.jobs.remove(&key) else { return };
                if let State::Recovered { offer, .. } = job.state {
                    self.take(now, job.attempt, *offer);
                }
            }
        }
    }
}

fn again(settled: &Settled, offer: &Offer, now: Time, sent: Time) -> Again {
    if sent <= settled.acknowledged {
        // The reply was under way before the backend had our answer.
        return Again::Ignore;
    }
    let last = &settled.attempt;
    let next = |first| Attempt {
        id: last.id.clone(),
        content: offer.content.clone(),
        number: last.number.saturating_add(1),
        first,
    };
    // Without its outcome a job can only be done anew: the backend, which lists it as open after so
    // long, would wait for ever otherwise.
    let Some(verdict) = settled.verdict.filter(|_| offer.content == last.content) else {
        return Again::Attempt(next(last.number.saturating_add(1)));
    };
    let may_send = now >= settled.resend_at;
    match verdict {
        Verdict::Completed if may_send => Again::Resend,
        Verdict::Failed(Blame::Worker | Blame::Unclear) | Verdict::Declined(Blame::Worker)
            if last.tries() < TRIES_MAX =>
        {
            Again::Attempt(next(last.first))
        }
        Verdict::Failed(_) | Verdict::Declined(_) if may_send => Again::Repeat(next(last.first)),
        Verdict::Completed | Verdict::Failed(_) | Verdict::Declined(_) => Again::Ignore,
        Verdict::Cancelled => Again::Attempt(next(last.first)),
    }
}
