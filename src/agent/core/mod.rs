//! The loop's decisions: `(now, Event) → actions`. No I/O, no clock, no thread; it cannot block and
//! cannot fail. Randomness is a seeded generator in its state.
//!
//! - `link`: when to register, to beat, to back off.
//! - `offers`: which offered jobs are taken, declined, tried again.
//! - `delivery`: when an outcome is sent, asked about, given up.
//! - `breaker`: which kind of job is not taken for a while, since too many of it failed here.
//! - `disk`: no job is taken without room for its result.
//! - `measuring`: when the machine's speed is measured.
//! - `pause`: no job is taken while the owner says so.
//! - `stopping`: drain, cancel, leave.
//! - `view`: what people are shown of all this.

mod breaker;
mod delivery;
mod disk;
mod link;
mod measuring;
mod offers;
mod pause;
mod stopping;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Duration;

use log::Level;

use super::event::{Action, Errand, Event, Pause, Time};
use crate::backend::{JobState, Status};
use crate::config::Rules;
use crate::job::Offer;
use crate::snapshot::Counts;
use crate::work::{Attempt, Blame, Booking, JobId, Key, Order, REMEMBERED_MAX, Report, Verdict};
use breaker::{Breaker, Whose};
use delivery::Delivery;
use link::Link;
use measuring::Measuring;
use stopping::Stopping;
use view::Seen;
pub(crate) use view::{JobView, View};

/// So many undelivered outcomes, and no new job is taken. Those that the backend finds too large are
/// counted apart.
const UNDELIVERED_MAX: usize = 100;

/// The state of the loop.
#[derive(Debug)]
pub(crate) struct Core {
    rules: Rules,
    rng: fastrand::Rng,
    link: Link,
    stopping: Stopping,
    measuring: Measuring,
    /// By the kind of job.
    breakers: BTreeMap<String, Breaker>,
    short_of_disk: bool,
    /// The owner's.
    pause: Option<Pause>,
    /// Jobs between their offer and the end of their delivery.
    jobs: BTreeMap<Key, Job>,
    /// Jobs whose delivery has ended, in case they are offered again.
    settled: BTreeMap<Key, Settled>,
    /// Jobs seen but not taken, since when: for want of a slot.
    waiting: BTreeMap<Key, Time>,
    /// Jobs that the backend is being asked about.
    asking: BTreeSet<Key>,
    /// Whether the backend tells about a job when asked; unknown before its first answer.
    tells_of_jobs: Option<bool>,
    next_seq: u64,
    taken: u32,
    counts: Counts,
    /// Why the last job could not be taken.
    not_taken_for: Option<String>,
    /// How often we were asked to stop.
    stop_requests: u32,
    /// Since when there is nothing to do; begins with the first good heartbeat.
    idle_since: Option<Time>,
    out: Vec<Action>,
}

#[derive(Debug)]
struct Job {
    attempt: Attempt,
    /// The order in which jobs came.
    seq: u64,
    taken_at: Time,
    /// It was running when this agent began: what happened before is not known.
    found: bool,
    /// The newest report, until some progress is acknowledged: a completion before any progress
    /// would find the backend's clock not started.
    unacknowledged: Option<Box<Report>>,
    progress_acknowledged: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Taken by an earlier run of the agent and never begun.
    Recovered { offer: Box<Offer>, ask_at: Time },
    /// Its outcome, a decline, a repeated failure or a loss found at the start, is being recorded.
    Recording,
    Running {
        /// The order it was given, if any.
        told: Option<Order>,
        ask_at: Time,
        seen: Seen,
        whose: Whose,
    },
    /// Its outcome is on disk.
    Undelivered(Delivery),
}

#[derive(Debug)]
struct Settled {
    attempt: Attempt,
    /// None if its outcome is not kept any more.
    verdict: Option<Verdict>,
    /// When the backend last answered: an offer sent for earlier is stale.
    acknowledged: Time,
    /// Not sent again before this.
    resend_at: Time,
}

/// A job that an earlier run of the agent left behind.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) key: Key,
    pub(crate) attempt: Attempt,
    pub(crate) how: LeftHow,
}

#[derive(Debug)]
pub(crate) enum LeftHow {
    Taken(Box<Offer>),
    /// Its program goes on without an agent.
    Running(Box<Offer>),
    Finished {
        verdict: Verdict,
        waited: Duration,
        /// Whether the backend had heard of its progress.
        progressed: bool,
    },
    /// It counts as lost, and the disk has not taken that yet.
    Unrecorded,
    Delivered(Verdict),
    /// Delivered, but there is no outcome that could be sent again.
    Tombstone,
}

impl Core {
    /// A loop that begins now. `worker_id` places its heartbeats within the interval.
    pub(crate) fn new(
        rules: Rules,
        worker_id: &str,
        seed: u64,
        left: Vec<Left>,
        now: Time,
    ) -> Self {
        let link = Link::new(worker_id, rules.heartbeat_interval, now);
        let mut core = Self {
            rules,
            rng: fastrand::Rng::with_seed(seed),
            link,
            stopping: Stopping::No,
            measuring: Measuring::Done,
            breakers: BTreeMap::new(),
            short_of_disk: false,
            pause: None,
            jobs: BTreeMap::new(),
            settled: BTreeMap::new(),
            waiting: BTreeMap::new(),
            asking: BTreeSet::new(),
            tells_of_jobs: None,
            next_seq: 0,
            taken: 0,
            counts: Counts::default(),
            not_taken_for: None,
            stop_requests: 0,
            idle_since: None,
            out: vec![],
        };
        for left in left {
            core.find(left, now);
        }
        core
    }

    fn find(&mut self, left: Left, now: Time) {
        let Left { key, attempt, how } = left;
        let heard_of = matches!(how, LeftHow::Finished { progressed: true, .. });
        let state = match how {
            LeftHow::Taken(offer) => State::Recovered { offer, ask_at: now },
            LeftHow::Running(offer) => {
                let (key, attempt) = (key.clone(), attempt.clone());
                let (seen, whose) = (Seen::of_kind(&offer.kind), Whose::of(&offer));
                self.out.push(Action::Adopt { key, attempt, offer });
                State::Running { told: None, ask_at: now, seen, whose }
            }
            LeftHow::Finished { verdict, waited, .. } => {
                // A record does not say whether it was sent.
                State::Undelivered(Delivery::new(verdict, now).asked_first().waited(waited))
            }
            LeftHow::Unrecorded => State::Recording,
            LeftHow::Delivered(verdict) => return self.settled_before(key, attempt, Some(verdict)),
            LeftHow::Tombstone => return self.settled_before(key, attempt, None),
        };
        self.insert(key.clone(), attempt, state, now);
        if let Some(job) = self.jobs.get_mut(&key) {
            job.progress_acknowledged = heard_of;
            job.found = true;
        }
    }

    fn settled_before(&mut self, key: Key, attempt: Attempt, verdict: Option<Verdict>) {
        let settled = Settled { attempt, verdict, acknowledged: Time::ZERO, resend_at: Time::ZERO };
        self.settled.insert(key, settled);
    }

    /// Hears of an event and decides.
    pub(crate) fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        self.link.note_lapse(now);
        // Before the event, which may bring the job that is taken on trial.
        self.step_breaker(now);
        self.step_pause(now);
        match event {
            Event::Tick | Event::Panicked(_) => {}
            Event::Registered(answer) => self.registered(now, answer),
            Event::Beat { sent, answer } => self.beaten(now, sent, answer),
            Event::MachineChanged => self.machine_changed(now),
            Event::DiskFree(free) => self.disk_free(free),
            Event::SpeedUnknown => self.want_measuring(now),
            Event::Measured(answer) => self.measured(now, answer),
            Event::Progress { key, report } => self.progress(key, report),
            Event::ProgressSent { key, acknowledged } => self.progress_sent(&key, acknowledged),
            Event::Ended { key, verdict } => self.ended(now, key, verdict),
            Event::Lost { key } => self.lost(now, &key),
            Event::NotTaken { key, error } => self.not_taken(&key, &error),
            Event::Asked { key, answer } => self.asked(now, key, answer),
            Event::Sent { key, answer } => self.sent(now, key, answer),
            Event::Unreadable { key, error } => self.unreadable(now, key, error),
            Event::Pause(pause) => self.owner_pauses(now, pause),
            Event::Reloaded(rules) => self.reloaded(now, *rules),
            Event::Stop(request) => self.stop(now, request),
        }
        self.step(now);
        mem::take(&mut self.out)
    }

    /// When to call again with [`Event::Tick`], if nothing happens before.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let link = self.link.due().filter(|_| self.stopping.allows_beats());
        let dues = [
            link,
            self.renewal_due(),
            self.stopping.due(),
            self.idle_deadline(),
            self.next_ask(),
            self.next_delivery(),
            self.measuring_due(),
            self.breaker_due(),
            self.paused_until(),
        ];
        dues.into_iter().flatten().min()
    }

    /// Does what is due.
    fn step(&mut self, now: Time) {
        self.step_deliveries(now);
        self.step_recovered(now);
        self.step_idle(now);
        self.step_stopping(now);
        self.step_link(now);
        self.step_measuring(now);
    }

    /// The owner has changed the rules.
    fn reloaded(&mut self, now: Time, rules: Rules) {
        if rules.heartbeat_interval != self.rules.heartbeat_interval {
            self.link.set_interval(rules.heartbeat_interval);
        }
        self.rules = rules;
        // There may be a slot more, and other beats to come.
        self.beat_soon(now);
    }

    fn insert(&mut self, key: Key, attempt: Attempt, state: State, now: Time) {
        let seq = self.next_seq;
        self.next_seq += 1;
        let job = Job {
            attempt,
            seq,
            taken_at: now,
            found: false,
            unacknowledged: None,
            progress_acknowledged: false,
            state,
        };
        self.jobs.insert(key, job);
    }

    fn progress(&mut self, key: Key, report: Box<Report>) {
        let Some(job) = self.jobs.get_mut(&key) else { return };
        let State::Running { seen, .. } = &mut job.state else { return };
        seen.note(&report);
        if !job.progress_acknowledged {
            job.unacknowledged = Some(report.clone());
        }
        let id = job.attempt.id.clone();
        self.out.push(Action::Errand(Errand::Progress { key, id, report }));
    }

    fn progress_sent(&mut self, key: &Key, acknowledged: bool) {
        if let Some(job) = self.jobs.get_mut(key).filter(|_| acknowledged) {
            job.progress_acknowledged = true;
            job.unacknowledged = None;
            self.note_progress(key);
        }
    }

    /// Of a failure it must be known after a restart too; it is noted before anything is sent.
    fn note_progress(&mut self, key: &Key) {
        let Some(job) = self.jobs.get(key).filter(|job| job.progress_acknowledged) else { return };
        if let State::Undelivered(delivery) = &job.state
            && matches!(delivery.verdict, Verdict::Failed(_))
        {
            self.out.push(Action::NoteProgress { key: key.clone() });
        }
    }

    fn ended(&mut self, now: Time, key: Key, verdict: Verdict) {
        let lapsed = |taken_at| self.link.lapsed_since(taken_at);
        let Some(job) = self.jobs.get_mut(&key) else { return };
        let mut delivery = Delivery::new(verdict, now);
        if job.found || lapsed(job.taken_at) {
            // The backend may have given the job away meanwhile.
            delivery = delivery.asked_first();
        }
        let ran = matches!(job.state, State::Running { .. });
        let by_itself = match &job.state {
            State::Running { told: None, whose, .. } => Some(whose.clone()),
            _ => None,
        };
        // It may have ended by itself before it heard of that; nothing is reported all the same.
        let taken_away = matches!(job.state, State::Running { told: Some(Order::Cancel), .. });
        job.state = State::Undelivered(delivery);
        // Late progress would revive a job that the backend holds to be over.
        self.out.push(Action::Errand(Errand::DropProgress { key: key.clone() }));
        if taken_away || verdict == Verdict::Cancelled {
            self.counts.cancelled += 1;
            self.book(now, &key, Booking::Cancelled);
            self.beat_soon(now);
        } else if ran && matches!(verdict, Verdict::Failed(_)) {
            self.counts.failed += 1;
            self.note_progress(&key);
        } else if ran && verdict == Verdict::Completed {
            self.counts.completed += 1;
        } else if matches!(verdict, Verdict::Declined(_)) {
            self.counts.declined += 1;
        }
        if let Some(whose) = by_itself {
            self.judge(now, &whose, key.as_str(), verdict);
        }
    }

    /// The loss of a job that an earlier run left behind is on disk.
    fn lost(&mut self, now: Time, key: &Key) {
        if let Some(job) = self.jobs.get_mut(key) {
            let delivery = Delivery::new(Verdict::Failed(Blame::Worker), now);
            // The backend may have given the job away meanwhile.
            job.state = State::Undelivered(delivery.asked_first());
        }
    }

    fn not_taken(&mut self, key: &Key, error: &str) {
        if let Some(job) = self.jobs.remove(key) {
            if matches!(job.state, State::Running { .. }) {
                self.taken = self.taken.saturating_sub(1);
            }
            // The same job may come with every beat, and fail in the same way.
            if self.not_taken_for.as_deref() != Some(error) {
                self.log(Level::Error, format!("job not taken job={}: {error}", job.attempt.id));
                self.not_taken_for = Some(error.to_owned());
            }
        }
    }

    /// An outcome is lost with its record. Its attempt was made all the same.
    fn unreadable(&mut self, now: Time, key: Key, error: String) {
        let Some(job) = self.jobs.remove(&key) else { return };
        self.log(Level::Error, format!("result lost job={}: {error}", job.attempt.id));
        let verdict = Verdict::Failed(Blame::Worker);
        self.settle_down(key, job.attempt, verdict, now);
    }

    /// Remembers how a job ended, in case it is offered again. Of too many the oldest are forgotten.
    fn settle_down(&mut self, key: Key, attempt: Attempt, verdict: Verdict, now: Time) {
        let resend_at = now + self.link.interval();
        let settled = Settled { attempt, verdict: Some(verdict), acknowledged: now, resend_at };
        self.settled.insert(key, settled);
        if self.settled.len() > REMEMBERED_MAX {
            // A later attempt at the same job may be under way, with its record in the same folder.
            let over = self.settled.iter().filter(|(key, _)| !self.jobs.contains_key(*key));
            let oldest = over.min_by_key(|(_, settled)| settled.acknowledged);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.settled.remove(&key);
                self.out.push(Action::Forget { key });
            }
        }
    }

    /// Asks about the jobs whose time for that has come.
    fn ask_due(&mut self, now: Time, ask_at: impl Fn(&State) -> Option<Time>) {
        let is_due = |key: &Key, job: &Job| {
            !self.asking.contains(key) && ask_at(&job.state).is_some_and(|at| now >= at)
        };
        let due = self.jobs.iter().filter(|(key, job)| is_due(key, job));
        let due: Vec<Key> = due.map(|(key, _)| key.clone()).collect();
        for key in due {
            self.ask(key);
        }
    }

    fn ask(&mut self, key: Key) {
        let Some(job) = self.jobs.get(&key) else { return };
        let id = job.attempt.id.clone();
        // One question at a time: what it was asked while the job ran answers this one too.
        if self.asking.insert(key.clone()) {
            self.out.push(Action::Errand(Errand::Ask { key, id }));
        }
    }

    /// The backend answered what it knows of a job.
    fn asked(&mut self, now: Time, key: Key, answer: Result<JobState, crate::backend::Error>) {
        if let Ok(state) = &answer {
            self.tells_of_jobs.get_or_insert(*state != JobState::Unknown);
        }
        self.asking.remove(&key);
        let interval = self.link.interval();
        let Some(job) = self.jobs.get_mut(&key) else { return };
        match &mut job.state {
            State::Undelivered(_) => self.asked_before_sending(now, key, answer),
            State::Recovered { ask_at, .. } => {
                *ask_at = now + interval;
                if let Ok(state) = answer {
                    self.asked_before_beginning(now, key, state);
                }
            }
            State::Running { told, ask_at, .. } => {
                // Half an interval, or a beat that comes a little early would skip its turn.
                *ask_at = now + interval / 2;
                let gone = matches!(answer, Ok(JobState::Cancelled | JobState::Elsewhere));
                if gone && told.replace(Order::Cancel) != Some(Order::Cancel) {
                    self.out.push(Action::Order { key, order: Order::Cancel });
                }
            }
            State::Recording => {}
        }
    }

    /// Takes a delivered, rejected or cancelled job off the list.
    fn book(&mut self, now: Time, key: &Key, booking: Booking) {
        let Some(Job { attempt, state: State::Undelivered(delivery), .. }) = self.jobs.remove(key)
        else {
            return;
        };
        if let Booking::Rejected(why) = &booking {
            self.log(Level::Warn, format!("result rejected job={}: {why}", attempt.id));
        }
        self.settle_down(key.clone(), attempt, delivery.verdict, now);
        if !delivery.is_resend() {
            self.out.push(Action::Book { key: key.clone(), booking });
        }
    }

    fn step_idle(&mut self, now: Time) {
        if !self.jobs.is_empty() || !self.waiting.is_empty() || !self.link.ever_good() {
            self.idle_since = None;
        } else if self.idle_since.is_none() {
            self.idle_since = Some(now);
        }
        let done = self.enough_taken() && self.jobs.is_empty();
        let idle = self.idle_deadline().is_some_and(|deadline| now >= deadline);
        if self.stopping.is_no() && (done || idle) {
            let why = if done { "took as many jobs as asked" } else { "nothing to do" };
            self.log(Level::Info, format!("stopping: {why}"));
            self.begin_drain(now);
        }
    }

    fn idle_deadline(&self) -> Option<Time> {
        let active = self.stopping.is_no();
        Some(self.idle_since? + self.rules.exit_when_idle?).filter(|_| active)
    }

    fn enough_taken(&self) -> bool {
        self.rules.max_jobs.is_some_and(|max| self.taken >= max)
    }

    fn running(&self) -> impl Iterator<Item = (&Key, &Job)> {
        self.jobs.iter().filter(|(_, job)| matches!(job.state, State::Running { .. }))
    }

    fn undelivered(&self) -> usize {
        self.jobs.values().filter(|job| matches!(job.state, State::Undelivered(_))).count()
    }

    /// How many of them the backend finds too large. They may wait for all of their time, and must not
    /// keep jobs away whose results it takes.
    fn too_large(&self) -> usize {
        let refused = |job: &&Job| match &job.state {
            State::Undelivered(delivery) => delivery.is_too_large(),
            State::Recovered { .. } | State::Recording | State::Running { .. } => false,
        };
        self.jobs.values().filter(refused).count()
    }

    /// Why no job is taken though a slot may be free.
    fn paused(&self) -> Option<String> {
        if !self.stopping.is_no() {
            return Some("stopping".into());
        }
        if let Some(pause) = &self.pause {
            return Some(pause.words.clone());
        }
        let too_large = self.too_large();
        if self.undelivered() - too_large >= UNDELIVERED_MAX {
            return Some(format!("{UNDELIVERED_MAX} results wait to be delivered"));
        }
        if too_large >= UNDELIVERED_MAX {
            return Some(format!("the backend refuses {too_large} results as too large (413)"));
        }
        if self.enough_taken() {
            return Some("took as many jobs as asked".into());
        }
        self.disk_objection()
    }

    /// Why none are taken, or which are not.
    fn wholly_or_partly_paused(&self) -> Option<String> {
        self.paused().or_else(|| self.kinds_paused())
    }

    fn can_take(&self) -> bool {
        self.paused().is_none() && self.begun() < self.rules.slots
    }

    /// How many jobs hold a slot.
    fn begun(&self) -> usize {
        let begun =
            |job: &&Job| matches!(job.state, State::Running { .. } | State::Recovered { .. });
        self.jobs.values().filter(begun).count()
    }

    fn status(&self) -> Status {
        if self.can_take() { Status::Online } else { Status::Busy }
    }

    /// Jobs taken and not yet acknowledged, oldest first.
    fn current(&self) -> Vec<JobId> {
        let ours = |job: &&Job| match &job.state {
            State::Recovered { .. } | State::Running { .. } => true,
            State::Undelivered(delivery) => delivery.is_of_a_run() && !delivery.is_resend(),
            State::Recording => false,
        };
        let mut jobs: Vec<&Job> = self.jobs.values().filter(ours).collect();
        jobs.sort_by_key(|job| job.seq);
        jobs.into_iter().map(|job| job.attempt.id.clone()).collect()
    }

    fn log(&mut self, level: Level, line: String) {
        self.out.push(Action::Log(level, line));
    }
}

#[cfg(test)]
mod tests;
