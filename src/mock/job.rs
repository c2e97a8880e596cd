//! One job as the books keep it: what was submitted, what became of it, and its form on the wire.
//!
//! Its status moves PENDING → ASSIGNED → RUNNING → COMPLETED or FAILED; it may fall back to PENDING (its worker
//! fell silent, or failed by its own fault) and be CANCELLED until it is over.

use std::{collections::VecDeque, fmt};

use serde_json::{Map, Value, json};

use super::Now;
use crate::clock;

const MAX_HISTORY: usize = 1000;
const MAX_LOG_LINES: usize = 1000;
/// What only the books may say, and do not say of every job: the rest of it overwrites the submission.
const OURS: [&str; 3] = ["provider", "errorDetails", "metrics"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Pending,
    Assigned,
    Running,
    Completed,
    Failed,
    Cancelled,
}

impl Status {
    pub(crate) fn is_over(self) -> bool {
        match self {
            Self::Pending | Self::Assigned | Self::Running => false,
            Self::Completed | Self::Failed | Self::Cancelled => true,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "PENDING",
            Self::Assigned => "ASSIGNED",
            Self::Running => "RUNNING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        })
    }
}

/// What a person wants to see of a job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JobView {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) status: Status,
    pub(crate) progress: u64,
    pub(crate) operation: Option<String>,
    pub(crate) result: Option<Value>,
    pub(crate) error: Option<String>,
    /// From the start to the end; none before the end.
    pub(crate) seconds: Option<f64>,
}

/// The worker a job was given to, under both of its names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Owner {
    pub(super) worker: String,
    pub(super) provider: String,
}

/// What a completion says.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) result: Value,
    pub(super) error: Value,
    pub(super) error_details: Value,
    pub(super) metrics: Value,
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) status: Status,
    pub(super) owner: Option<Owner>,
    pub(super) progress: u64,
    pub(super) operation: Option<String>,
    pub(super) outcome: Outcome,
    /// The idempotency keys of the completions that took effect.
    pub(super) keys: Vec<String>,
    pub(super) completions: u32,
    pub(super) duplicates: u32,
    pub(super) late_progress: u32,
    /// The owner has not been told yet that the job was cancelled.
    pub(super) cancel_untold: bool,
    pub(super) offered_again: bool,
    submitted: Map<String, Value>,
    history: VecDeque<u64>,
    log: VecDeque<Value>,
    created: Now,
    assigned: Option<Now>,
    started: Option<Now>,
    ended: Option<Now>,
}

impl Job {
    pub(super) fn new(id: String, mut submitted: Map<String, Value>, now: Now) -> Self {
        submitted.retain(|key, _| !OURS.contains(&key.as_str()));
        Self {
            id,
            status: Status::Pending,
            owner: None,
            progress: 0,
            operation: None,
            outcome: Outcome::default(),
            keys: Vec::new(),
            completions: 0,
            duplicates: 0,
            late_progress: 0,
            cancel_untold: false,
            offered_again: false,
            submitted,
            history: VecDeque::new(),
            log: VecDeque::new(),
            created: now,
            assigned: None,
            started: None,
            ended: None,
        }
    }

    pub(super) fn is_of(&self, worker: &str) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.worker == worker)
    }

    pub(super) fn assign(&mut self, owner: Owner, now: Now) {
        self.status = Status::Assigned;
        self.owner = Some(owner);
        self.assigned = Some(now);
    }

    /// Makes it anybody's again. The history and the counts stay: they are about all attempts.
    pub(super) fn put_back(&mut self) {
        self.status = Status::Pending;
        self.owner = None;
        self.progress = 0;
        self.operation = None;
        self.assigned = None;
        self.started = None;
        self.ended = None;
    }

    /// Like the real backend, takes only a value strictly between 0 and 100 as a sign that the job has started.
    pub(super) fn report(
        &mut self,
        progress: u64,
        operation: Option<String>,
        log: &[Value],
        now: Now,
    ) {
        self.progress = progress;
        self.operation = operation;
        push_bounded(&mut self.history, progress, MAX_HISTORY);
        for line in log {
            push_bounded(&mut self.log, line.clone(), MAX_LOG_LINES);
        }
        if self.status == Status::Assigned && (1..=99).contains(&progress) {
            self.status = Status::Running;
            self.started = Some(now);
        }
    }

    pub(super) fn end(&mut self, status: Status, now: Now) {
        self.status = status;
        self.ended = Some(now);
        if status == Status::Completed {
            self.progress = 100;
        }
    }

    pub(super) fn kind(&self) -> &str {
        let word = |key| self.submitted.get(key).and_then(Value::as_str);
        word("jobType").or_else(|| word("modelType")).unwrap_or("unknown")
    }

    pub(super) fn view(&self) -> JobView {
        let start = self.started.or(self.assigned);
        let took = start
            .zip(self.ended)
            .map(|(start, end)| end.since_boot.saturating_sub(start.since_boot));
        JobView {
            id: self.id.clone(),
            kind: self.kind().to_owned(),
            status: self.status,
            progress: self.progress,
            operation: self.operation.clone(),
            result: Some(&self.outcome.result).filter(|result| !result.is_null()).cloned(),
            error: self.outcome.error.as_str().map(str::to_owned),
            seconds: took.map(|took| took.as_secs_f64()),
        }
    }

    /// The job as it is offered to workers.
    pub(super) fn wire(&self) -> Value {
        let mut job = self.submitted.clone();
        let stamp = |now: Option<Now>| now.map(|now| clock::rfc3339(now.wall));
        let mut set = |key: &str, value: Value| job.insert(key.to_owned(), value);
        set("id", json!(self.id));
        set("status", json!(self.status.to_string()));
        set("providerId", json!(self.owner.as_ref().map(|owner| &owner.provider)));
        if let Some(owner) = &self.owner {
            set("provider", json!({ "workerId": owner.worker }));
        }
        set("progress", json!(self.progress));
        set("currentOperation", json!(self.operation));
        set("result", self.outcome.result.clone());
        set("error", self.outcome.error.clone());
        set("createdAt", json!(stamp(Some(self.created))));
        set("startedAt", json!(stamp(self.started)));
        set("completedAt", json!(stamp(self.ended)));
        Value::Object(job)
    }

    /// The job with everything that the books know about it.
    pub(super) fn full_wire(&self) -> Value {
        let mut job = self.wire();
        job["errorDetails"] = self.outcome.error_details.clone();
        job["metrics"] = self.outcome.metrics.clone();
        job["completions"] = json!(self.completions);
        job["duplicates"] = json!(self.duplicates);
        job["lateProgress"] = json!(self.late_progress);
        job["progressHistory"] = json!(self.history);
        job["logLines"] = json!(self.log);
        job
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, value: T, bound: usize) {
    if queue.len() == bound {
        queue.pop_front();
    }
    queue.push_back(value);
}
