//! The thread of one job: taken → staged → run → collected → recorded, each step on disk before the
//! next can be seen.

mod contain;
mod ending;
mod program;
mod stages;

use std::io::PipeReader;
use std::os::fd::AsFd as _;
use std::sync::mpsc::Sender;
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use super::event::Event;
use super::{Shared, log_error};
use crate::backend::wire::LAST_ATTEMPT;
use crate::cid::Cid;
use crate::job::{self, Offer};
use crate::store::{Phase, Record, Reusable, named_artefacts};
use crate::work::{Attempt, Decline, Ending, Failure, Handle, Key, Outcome, Report, Task};
use crate::{clock, crash};
pub(super) use contain::{remove_left, sweep};

/// How often an outcome that cannot be written is tried again.
pub(super) const RECORD_AGAIN: Duration = Duration::from_secs(5);

/// A job, and all its thread needs.
pub(super) struct Assignment<'a> {
    pub(super) shared: &'a Shared,
    pub(super) key: Key,
    pub(super) attempt: Attempt,
    /// Of an hour, whatever it becomes meanwhile.
    pub(super) price: f64,
    pub(super) offer: Offer,
    pub(super) orders: PipeReader,
    pub(super) events: Sender<Event>,
    /// To the thread that offers files to the IPFS node.
    pub(super) files: Sender<Cid>,
}

/// Takes the job and sees it through to its recorded outcome.
pub(super) fn run(assignment: Assignment<'_>) {
    let taken = assignment.record(Phase::Taken, Some(assignment.offer.text.clone()));
    if let Err(error) = assignment.shared.store.write(&assignment.key, &taken) {
        let error = error.to_string();
        return assignment.tell(Event::NotTaken { key: assignment.key.clone(), error });
    }
    crash::point("taken");
    if let Some(outcome) = assignment.outcome() {
        assignment.end(outcome);
    }
}

/// Sees a job through that an earlier agent began, and which goes on.
pub(super) fn adopt(assignment: Assignment<'_>) {
    let record = assignment.shared.store.read(&assignment.key);
    let (Ok(Record { phase: Phase::Running(Handle::Container(handle)), .. }), Ok(job)) =
        (record, &assignment.offer.job)
    else {
        let error = "its record cannot be read".to_owned();
        return assignment.tell(Event::NotTaken { key: assignment.key.clone(), error });
    };
    if let Some(outcome) = assignment.through(job, Some(&handle)) {
        assignment.end(outcome);
    }
}

/// What an hour of it costs: as now, but for a job that an earlier run of the agent took.
pub(super) fn price(shared: &Shared, key: &Key, attempt: &Attempt) -> f64 {
    let taken = shared.store.read(key).ok().filter(|record| record.attempt == *attempt);
    taken.and_then(|record| record.price).unwrap_or_else(|| shared.config().identity.price)
}

impl Assignment<'_> {
    /// Records the outcome, and tells of it.
    fn end(&self, outcome: Outcome) {
        log_end(&self.attempt, &outcome);
        let verdict = outcome.verdict();
        let files = artefacts(&outcome);
        crash::point("ended");
        if self.record_for_sure(outcome) {
            crash::point("outcome-recorded");
            self.tell(Event::Ended { key: self.key.clone(), verdict });
            for file in files {
                // Without a node nobody listens.
                self.files.send(file).ok();
            }
        }
    }

    /// Runs the job. Nothing when the agent went away meanwhile: the next start finds the record.
    fn outcome(&self) -> Option<Outcome> {
        // Only jobs that could be understood are assigned.
        let job = self.offer.job.as_ref().ok()?;
        let like = self.shared.config().artefacts.reuse.then(|| like(&job.task)).flatten();
        if let Some(outcome) = like.as_deref().and_then(|like| self.reused(like)) {
            return Some(outcome);
        }
        let outcome = self.through(job, None)?;
        if let (Some(like), Ending::Completed(result)) = (like, &outcome.ending) {
            let (result, metrics) = (result.clone(), outcome.metrics.clone());
            log_error(self.shared.store.keep_reusable(&like, result, metrics));
        }
        Some(outcome)
    }

    /// The outcome of a job like this one, if all its files are still here.
    fn reused(&self, like: &str) -> Option<Outcome> {
        let store = &self.shared.store;
        let Reusable { mut result, metrics, .. } = store.reusable(like)?;
        let is_here = |cid: &Cid| store.artefact(cid, clock::wall()).is_some();
        if !named_artefacts(&result).iter().all(is_here) {
            return None;
        }
        result.insert("cached".into(), true.into());
        // A backend's clock starts by a report.
        let report = Report {
            percent: 1,
            operation: "answered from an earlier result".into(),
            lines: vec![],
            worked: Duration::ZERO,
            reading: None,
            energy_kwh: None,
            at: clock::wall(),
        };
        self.tell(Event::Progress { key: self.key.clone(), report: Box::new(report) });
        let ending = Ending::Completed(result);
        Some(Outcome { metrics, ..Outcome::without_run(ending, clock::wall()) })
    }

    fn record(&self, phase: Phase, offer: Option<String>) -> Record {
        Record {
            attempt: self.attempt.clone(),
            origin: self.shared.config().connection.backend.origin.clone(),
            worker: Some(self.shared.worker_id.clone()),
            kind: self.offer.kind.clone(),
            price: Some(self.price),
            offer,
            progressed: false,
            phase,
        }
    }

    /// Records the outcome, however long that takes: without its record it may not be sent. False
    /// when the agent went away first.
    fn record_for_sure(&self, outcome: Outcome) -> bool {
        let record = self.record(Phase::Finished { outcome, waited: Duration::ZERO }, None);
        let mut said = false;
        while let Err(error) = self.shared.store.write(&self.key, &record) {
            if !said {
                log::error!("{error}; the result of job={} waits in memory", self.attempt.id);
                said = true;
            }
            if self.agent_gone_within(RECORD_AGAIN) {
                return false;
            }
        }
        true
    }

    fn agent_gone_within(&self, time: Duration) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.orders.as_fd(), PollFlags::empty())];
        let Ok(time) = Timespec::try_from(time) else { return false };
        // Only the end of the pipe is looked for: an order means nothing any more.
        poll(&mut fds, Some(&time)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
    }

    fn tell(&self, event: Event) {
        // Without a loop the agent is ending; the record tells the next one.
        self.events.send(event).ok();
    }
}

/// The name under which a job's result can be used again, for kinds whose files are worth it.
fn like(task: &Task) -> Option<String> {
    match task {
        Task::Training(_) | Task::FineTuning(_) => job::identity(task),
        Task::Inference(_) | Task::Compute(_) | Task::Script(_) | Task::Container(_) => None,
    }
}

fn artefacts(outcome: &Outcome) -> Vec<Cid> {
    match &outcome.ending {
        Ending::Completed(result) => named_artefacts(result),
        Ending::Failed(_) | Ending::Declined(_) | Ending::Cancelled => vec![],
    }
}

fn log_end(attempt: &Attempt, outcome: &Outcome) {
    let seconds = outcome.metrics.get("processingTimeSeconds").and_then(Value::as_f64);
    let seconds = seconds.unwrap_or(0.0);
    let id = &attempt.id;
    match &outcome.ending {
        Ending::Completed(_) => log::info!("job completed job={id} seconds={seconds:.1}"),
        Ending::Failed(failure) => {
            log::warn!("job failed job={id} seconds={seconds:.1}: {}", failure.error);
        }
        Ending::Declined(decline) => log::warn!("job declined job={id}: {}", decline.reason),
        Ending::Cancelled => log::info!("job cancelled job={id} seconds={seconds:.1}"),
    }
}

pub(super) fn declined(decline: Decline) -> Outcome {
    Outcome::without_run(Ending::Declined(decline), clock::wall())
}

pub(super) fn cancelled() -> Outcome {
    Outcome::without_run(Ending::Cancelled, clock::wall())
}

/// The same failure once more, with the words that tell the backend to stop handing it back.
pub(super) fn final_failure(outcome: Outcome) -> Outcome {
    let marked = |error: String| match error.strip_suffix(LAST_ATTEMPT) {
        Some(_) => error,
        None => error + LAST_ATTEMPT,
    };
    let ending = match outcome.ending {
        Ending::Failed(failure) => {
            Ending::Failed(Failure { error: marked(failure.error.clone()), ..failure })
        }
        Ending::Declined(decline) => {
            Ending::Declined(Decline { reason: marked(decline.reason), ..decline })
        }
        ending @ (Ending::Completed(_) | Ending::Cancelled) => ending,
    };
    let at: SystemTime = clock::wall();
    Outcome { ending, at, ..outcome }
}
