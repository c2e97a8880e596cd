//! A marketplace on the scripted backend: it assigns, starts, ends and puts back jobs as the real one
//! does, and disturbs what it is told to.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Backend, Reply, Request};

/// How many jobs a heartbeat offers at most.
const OFFERED: usize = 5;

/// How often a job is handed out.
const TRIES: u32 = 3;

/// What may go wrong with a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Nothing is done, and the connection dies.
    Refused,
    /// It is done, and the connection dies.
    Lost,
    /// Nothing is done, and that is said.
    Failed,
    /// It is done, and the answer comes too late.
    Late(Duration),
}

type Faults = Box<dyn FnMut(&Request) -> Option<Fault> + Send>;

pub(crate) struct Market {
    pub(crate) backend: Backend,
    books: Arc<Mutex<Books>>,
}

struct Books {
    jobs: Vec<Entry>,
    faults: Faults,
}

struct Entry {
    job: Value,
    status: &'static str,
    worker: Value,
    tries: u32,
    /// The idempotency keys of the completions that took effect.
    keys: BTreeSet<String>,
}

impl Market {
    pub(crate) fn new(jobs: Vec<Value>) -> Self {
        let entry = |job| Entry {
            job,
            status: "ASSIGNED",
            worker: Value::Null,
            tries: 0,
            keys: BTreeSet::new(),
        };
        let jobs = jobs.into_iter().map(entry).collect();
        let books = Arc::new(Mutex::new(Books { jobs, faults: Box::new(|_| None) }));
        let market = Self { backend: Backend::start(), books };
        for pattern in [
            "POST /api/providers/*/heartbeat",
            "POST /api/jobs/*/progress",
            "POST /api/jobs/*/complete",
            "GET /api/jobs/*",
        ] {
            let books = Arc::clone(&market.books);
            market.backend.answer(pattern, move |seen| Some(books.lock().unwrap().hear(seen)));
        }
        market
    }

    /// Disturbs requests so from now on.
    pub(crate) fn disturb(&self, faults: impl FnMut(&Request) -> Option<Fault> + Send + 'static) {
        self.books.lock().unwrap().faults = Box::new(faults);
    }

    /// How many jobs have not come to their end.
    fn open(&self) -> usize {
        self.books.lock().unwrap().jobs.iter().filter(|entry| !entry.is_over()).count()
    }

    /// Waits for one end after the other.
    pub(crate) fn wait_all_over(&self) {
        while let open @ 1.. = self.open() {
            self.backend.wait("another job to be over", |_| (self.open() < open).then_some(()));
        }
    }
}

impl Books {
    fn hear(&mut self, seen: &[Request]) -> Reply {
        let Some(request) = seen.last() else { unreachable!("it is told of a request") };
        match (self.faults)(request) {
            None => self.perform(request),
            Some(Fault::Refused) => Reply::HangUp,
            Some(Fault::Failed) => Reply::json(500, r#"{"success":false,"error":"database down"}"#),
            Some(Fault::Lost) => {
                self.perform(request);
                Reply::HangUp
            }
            Some(Fault::Late(time)) => Reply::Held(time, Box::new(self.perform(request))),
        }
    }

    fn perform(&mut self, request: &Request) -> Reply {
        let words: Vec<&str> = request.call.split('/').collect();
        let id = words.get(3).copied().unwrap_or_default();
        if words[2] == "providers" {
            let jobs = self.jobs.iter().filter(|entry| entry.status == "ASSIGNED");
            let jobs: Vec<&Value> = jobs.map(|entry| &entry.job).take(OFFERED).collect();
            return Reply::json(200, json!({"success": true, "pendingJobs": jobs}).to_string());
        }
        let Some(entry) = self.jobs.iter_mut().find(|entry| entry.job["id"] == id) else {
            return Reply::json(404, r#"{"success":false,"error":"Job not found"}"#);
        };
        match words.get(4) {
            Some(&"progress") => entry.progress(&request.body),
            Some(_) => entry.complete(request),
            None => {}
        }
        let provider = json!({"workerId": entry.worker});
        let mut told = json!({"success": true, "id": id, "status": entry.status});
        if entry.worker.is_string() {
            told["provider"] = provider;
        }
        Reply::json(200, told.to_string())
    }
}

impl Entry {
    fn is_over(&self) -> bool {
        matches!(self.status, "COMPLETED" | "FAILED")
    }

    fn progress(&mut self, body: &Value) {
        self.worker = body["workerId"].clone();
        if self.status == "ASSIGNED" {
            self.status = "RUNNING";
        }
    }

    fn complete(&mut self, request: &Request) {
        let key = request.header("idempotency-key").unwrap_or_default().to_owned();
        if self.is_over() || !self.keys.insert(key) {
            return;
        }
        let by_worker = request.body["errorDetails"]["blame"] == "worker";
        self.tries += 1;
        self.status = match request.body["status"].as_str() {
            Some("completed") => "COMPLETED",
            _ if by_worker && self.tries < TRIES => "ASSIGNED",
            _ => "FAILED",
        };
    }
}
