//! What the embedded backend knows, and every way it can change: pure transitions with the time as an argument.
//!
//! A worker is offline when it says so or after three missed beats; only the latter takes its jobs away. What is
//! worth telling a person is kept as [`Event`]s until somebody takes them, so that nothing is printed under the
//! lock. The books are bounded in jobs and providers and refuse what is beyond.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, mem,
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    Now,
    job::{Job, JobView, Outcome, Owner, Status},
    provider::{Presence, Provider, uuid_like},
};

const MAX_JOBS: usize = 10_000;
const MAX_PROVIDERS: usize = 1000;
const MAX_OFFERS: usize = 5;
const MAX_ATTEMPTS: u32 = 3;
const MISSED_BEATS: u32 = 3;
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
/// How a worker says that retrying is over.
const LAST_ATTEMPT: &str = " [Reassignment attempt 3]";

/// Why a request was not done, as its answer says it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) error: String,
}

impl Refusal {
    pub(super) fn new(status: u16, error: impl Into<String>) -> Self {
        Self { status, error: error.into() }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    Registered { worker: String, name: String },
    WorkerBack { worker: String },
    WorkerOffline { worker: String },
    Submitted { job: String, kind: String },
    Assigned { job: String, worker: String },
    Completed { job: String, worker: String },
    Failed { job: String, worker: String },
    PutBack { job: String, worker: String },
    Cancelled { job: String },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered { worker, name } => {
                write!(f, "worker registered worker={worker} name={name:?}")
            }
            Self::WorkerBack { worker } => write!(f, "worker back worker={worker}"),
            Self::WorkerOffline { worker } => write!(f, "worker offline worker={worker}"),
            Self::Submitted { job, kind } => write!(f, "job submitted job={job} kind={kind:?}"),
            Self::Assigned { job, worker } => write!(f, "job assigned job={job} worker={worker}"),
            Self::Completed { job, worker } => write!(f, "job completed job={job} worker={worker}"),
            Self::Failed { job, worker } => write!(f, "job failed job={job} worker={worker}"),
            Self::PutBack { job, worker } => write!(f, "job put back job={job} worker={worker}"),
            Self::Cancelled { job } => write!(f, "job cancelled job={job}"),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Books {
    /// Told to the workers at each beat, if set.
    interval: Option<Duration>,
    /// Oldest first. None is ever removed, so the places in `index` hold.
    jobs: Vec<Job>,
    index: HashMap<String, usize>,
    /// By worker id.
    providers: BTreeMap<String, Provider>,
    events: Vec<Event>,
    version: u64,
}

impl Books {
    pub(super) fn new(interval: Option<Duration>) -> Self {
        Self { interval, ..Self::default() }
    }

    /// Grows with every change that a person could see.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn take_events(&mut self) -> Vec<Event> {
        mem::take(&mut self.events)
    }

    pub(super) fn register(&mut self, facts: Value, now: Now) -> Result<Value, Refusal> {
        self.notice_silence(now);
        let worker =
            text(&facts, "worker_id").ok_or_else(|| Refusal::new(400, "worker_id is required"))?;
        check_id("worker_id", &worker)?;
        let mut provider = Provider::new(&worker, facts, now);
        if let Some(known) = self.providers.remove(&worker) {
            let Provider { beats, beat_at, last_beat, .. } = known;
            provider = Provider { beats, beat_at, last_beat, ..provider };
        } else if self.providers.len() >= MAX_PROVIDERS {
            return Err(Refusal::new(
                503,
                format!("no more than {MAX_PROVIDERS} providers are kept here"),
            ));
        }
        let reply = json!({ "success": true, "provider": { "id": provider.id } });
        self.note(Event::Registered { worker: worker.clone(), name: provider.name().to_owned() });
        self.providers.insert(worker, provider);
        Ok(reply)
    }

    pub(super) fn heartbeat(
        &mut self,
        worker: &str,
        beat: Value,
        now: Now,
    ) -> Result<Value, Refusal> {
        self.notice_silence(now);
        let provider = self
            .providers
            .get_mut(worker)
            .ok_or_else(|| Refusal::new(404, "Provider not found"))?;
        if text(&beat, "workerId").is_some_and(|named| named != worker) {
            return Err(Refusal::new(400, "workerId is not the one in the path"));
        }
        let presence = text(&beat, "status").and_then(|word| Presence::of(&word));
        let presence =
            presence.ok_or_else(|| Refusal::new(400, "status must be online, busy or offline"))?;
        let was = mem::replace(&mut provider.presence, presence);
        provider.lapsed = false;
        provider.beats += 1;
        provider.seen = now;
        provider.beat_at = Some(now);
        let named = named_jobs(&beat);
        provider.last_beat = beat;
        let owner = Owner { worker: worker.to_owned(), provider: provider.id.clone() };
        self.version += 1;
        self.note_presence(worker, was, presence);

        let offers = match presence {
            Presence::Online => {
                self.assign_pending(&owner, now);
                self.offers(worker)
            }
            Presence::Busy => self.offers(worker),
            Presence::Offline => Vec::new(),
        };
        let mut reply = json!({ "success": true, "pendingJobs": offers });
        let cancelled = self.tell_cancelled(worker, &named);
        if !cancelled.is_empty() {
            reply["cancelJobs"] = json!(cancelled);
        }
        if let Some(interval) = self.interval {
            reply["heartbeatIntervalMs"] = json!(interval.as_millis());
        }
        Ok(reply)
    }

    /// Makes a heartbeat's reply list every job twice, and offer each job that the worker has ended once more.
    pub(super) fn repeat_offers(&mut self, worker: &str, reply: &mut Value) {
        let offers = reply.get_mut("pendingJobs").and_then(Value::as_array_mut);
        let Some(offers) = offers else { return };
        *offers = offers.iter().flat_map(|offer| [offer.clone(), offer.clone()]).collect();
        let ended = |job: &&mut Job| {
            matches!(job.status, Status::Completed | Status::Failed) && job.is_of(worker)
        };
        for job in
            self.jobs.iter_mut().filter(ended).filter(|job| !job.offered_again).take(MAX_OFFERS)
        {
            job.offered_again = true;
            let mut offer = job.wire();
            offer["status"] = json!(Status::Assigned.to_string());
            offers.push(offer);
        }
    }

    pub(super) fn pending(&mut self, worker: &str, now: Now) -> Value {
        self.notice_silence(now);
        let free_or_theirs = |job: &&Job| match job.status {
            Status::Pending => true,
            Status::Assigned => job.is_of(worker),
            Status::Running | Status::Completed | Status::Failed | Status::Cancelled => false,
        };
        self.jobs.iter().filter(free_or_theirs).map(Job::wire).collect()
    }

    pub(super) fn progress(
        &mut self,
        id: &str,
        report: &Value,
        now: Now,
    ) -> Result<Value, Refusal> {
        self.notice_silence(now);
        let worker = worker_of(report)?;
        let progress = report["progress"].as_u64().filter(|progress| *progress <= 100);
        let progress = progress
            .ok_or_else(|| Refusal::new(400, "progress must be an integer from 0 to 100"))?;
        let job = self.job_of(id, &worker)?;
        if job.status.is_over() {
            job.late_progress += 1;
            return Err(Refusal::new(409, format!("job is {}", job.status)));
        }
        let log = report["logLines"].as_array().map_or(&[][..], Vec::as_slice);
        job.report(progress, text(report, "currentOperation"), log, now);
        self.version += 1;
        Ok(json!({ "success": true }))
    }

    /// The same key again is acknowledged whatever became of the job since: the worker may have missed the answer.
    pub(super) fn complete(
        &mut self,
        id: &str,
        report: &Value,
        key: Option<&str>,
        now: Now,
    ) -> Result<Value, Refusal> {
        self.notice_silence(now);
        let worker = worker_of(report)?;
        let verdict = match report["status"].as_str() {
            Some("completed") => Status::Completed,
            Some("failed") => Status::Failed,
            _ => return Err(Refusal::new(400, "status must be completed or failed")),
        };
        let job = self.job_mut(id)?;
        if key.is_some_and(|key| job.keys.iter().any(|known| known == key)) {
            job.duplicates += 1;
            return Ok(json!({ "success": true, "duplicate": true }));
        }
        let job = self.job_of(id, &worker)?;
        if job.status.is_over() {
            return Err(Refusal::new(409, format!("job is {}", job.status)));
        }
        job.keys.extend(key.map(str::to_owned));
        job.completions += 1;
        job.outcome = outcome(report);
        job.end(verdict, now);
        let again = verdict == Status::Failed
            && job.completions < MAX_ATTEMPTS
            && is_workers_fault(&job.outcome);
        if again {
            job.put_back();
        }
        let job = id.to_owned();
        self.note(match verdict {
            Status::Completed => Event::Completed { job, worker },
            _ if again => Event::PutBack { job, worker },
            _ => Event::Failed { job, worker },
        });
        Ok(json!({ "success": true }))
    }

    /// Returns the job's id, its own or a new one.
    pub(super) fn submit(&mut self, job: Value, now: Now) -> Result<String, Refusal> {
        let Value::Object(job) = job else {
            return Err(Refusal::new(400, "a job must be a JSON object"));
        };
        let id = match job.get("id") {
            None | Some(Value::Null) => uuid_like(fastrand::u128(..)),
            Some(Value::String(id)) => id.clone(),
            Some(_) => return Err(Refusal::new(400, "id must be a string")),
        };
        check_id("id", &id)?;
        if self.index.contains_key(&id) {
            return Err(Refusal::new(409, format!("there is a job {id} already")));
        }
        if self.jobs.len() >= MAX_JOBS {
            return Err(Refusal::new(503, format!("no more than {MAX_JOBS} jobs are kept here")));
        }
        let job = Job::new(id.clone(), job, now);
        self.note(Event::Submitted { job: id.clone(), kind: job.kind().to_owned() });
        self.index.insert(id.clone(), self.jobs.len());
        self.jobs.push(job);
        Ok(id)
    }

    pub(super) fn cancel(&mut self, id: &str, now: Now) -> Result<Value, Refusal> {
        let job = self.job_mut(id)?;
        match job.status {
            Status::Completed | Status::Failed => {
                return Err(Refusal::new(409, format!("job is {}", job.status)));
            }
            Status::Cancelled => return Ok(json!({ "success": true, "job": job.wire() })),
            Status::Pending | Status::Assigned | Status::Running => {}
        }
        job.end(Status::Cancelled, now);
        job.cancel_untold = job.owner.is_some();
        let reply = json!({ "success": true, "job": job.wire() });
        self.note(Event::Cancelled { job: id.to_owned() });
        Ok(reply)
    }

    pub(super) fn job(&mut self, id: &str, now: Now) -> Result<Value, Refusal> {
        self.notice_silence(now);
        self.job_mut(id).map(|job| job.full_wire())
    }

    pub(super) fn jobs(&mut self, now: Now) -> Value {
        self.notice_silence(now);
        self.jobs.iter().map(Job::full_wire).collect()
    }

    pub(super) fn providers(&mut self, now: Now) -> Value {
        self.notice_silence(now);
        self.providers.values().map(Provider::wire).collect()
    }

    pub(super) fn job_views(&mut self, now: Now) -> Vec<JobView> {
        self.notice_silence(now);
        self.jobs.iter().map(Job::view).collect()
    }

    fn note(&mut self, event: Event) {
        self.version += 1;
        self.events.push(event);
    }

    fn note_presence(&mut self, worker: &str, was: Presence, is: Presence) {
        let worker = worker.to_owned();
        match (was == Presence::Offline, is == Presence::Offline) {
            (true, false) => self.note(Event::WorkerBack { worker }),
            (false, true) => self.note(Event::WorkerOffline { worker }),
            (true, true) | (false, false) => {}
        }
    }

    /// Takes the jobs from the workers that have missed their beats. Nobody waits for that moment: it is looked
    /// for before everything that could tell the difference.
    fn notice_silence(&mut self, now: Now) {
        let lease = self.interval.unwrap_or(DEFAULT_INTERVAL) * MISSED_BEATS;
        let silent = |provider: &&mut Provider| !provider.lapsed && provider.is_silent(lease, now);
        let lapsed: Vec<_> =
            self.providers.values_mut().filter(silent).map(Provider::lapse).collect();
        for (worker, was) in lapsed {
            self.note_presence(&worker, was, Presence::Offline);
            for job in
                self.jobs.iter_mut().filter(|job| job.is_of(&worker) && !job.status.is_over())
            {
                job.put_back();
                self.version += 1;
            }
        }
    }

    fn job_mut(&mut self, id: &str) -> Result<&mut Job, Refusal> {
        let place = self.index.get(id).ok_or_else(|| Refusal::new(404, "Job not found"))?;
        Ok(&mut self.jobs[*place])
    }

    fn job_of(&mut self, id: &str, worker: &str) -> Result<&mut Job, Refusal> {
        let job = self.job_mut(id)?;
        if !job.is_of(worker) {
            return Err(Refusal::new(403, "Job is not assigned to this worker"));
        }
        Ok(job)
    }

    fn assign_pending(&mut self, owner: &Owner, now: Now) {
        let free = MAX_OFFERS.saturating_sub(self.assigned_to(&owner.worker).count());
        let mut assigned = Vec::new();
        for job in self.jobs.iter_mut().filter(|job| job.status == Status::Pending).take(free) {
            job.assign(owner.clone(), now);
            assigned.push(Event::Assigned { job: job.id.clone(), worker: owner.worker.clone() });
        }
        assigned.into_iter().for_each(|event| self.note(event));
    }

    fn offers(&self, worker: &str) -> Vec<Value> {
        self.assigned_to(worker).take(MAX_OFFERS).map(Job::wire).collect()
    }

    fn assigned_to(&self, worker: &str) -> impl Iterator<Item = &Job> {
        self.jobs.iter().filter(move |job| job.status == Status::Assigned && job.is_of(worker))
    }

    /// Lists a cancelled job once, and from then on as long as the worker still names it.
    fn tell_cancelled(&mut self, worker: &str, named: &[String]) -> Vec<String> {
        let cancelled =
            self.jobs.iter_mut().filter(|job| job.status == Status::Cancelled && job.is_of(worker));
        cancelled
            .filter_map(|job| {
                (mem::take(&mut job.cancel_untold) || named.contains(&job.id))
                    .then(|| job.id.clone())
            })
            .collect()
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().map(str::to_owned)
}

/// Ids go into paths and log lines.
fn check_id(name: &str, id: &str) -> Result<(), Refusal> {
    if (1..=128).contains(&id.len()) && !id.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Refusal::new(400, format!("{name} must have 1 to 128 bytes and no control characters")))
}

fn worker_of(report: &Value) -> Result<String, Refusal> {
    text(report, "workerId").ok_or_else(|| Refusal::new(400, "workerId is required"))
}

fn named_jobs(beat: &Value) -> Vec<String> {
    let list = beat["currentJobs"].as_array().into_iter().flatten();
    list.chain([&beat["currentJob"]]).filter_map(Value::as_str).map(str::to_owned).collect()
}

fn outcome(report: &Value) -> Outcome {
    let field = |key: &str| report[key].clone();
    Outcome {
        result: field("result"),
        error: field("error"),
        error_details: field("errorDetails"),
        metrics: field("metrics"),
    }
}

fn is_workers_fault(outcome: &Outcome) -> bool {
    outcome.error_details["blame"] == "worker"
        && !outcome.error.as_str().is_some_and(|error| error.ends_with(LAST_ATTEMPT))
}

#[cfg(test)]
mod tests;
