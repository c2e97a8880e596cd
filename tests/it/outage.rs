//! The backend takes no results, or is away altogether, while fifty jobs finish; then it is back.
//!
//! `BEATS=300 cargo test --release --test it outage` keeps it away for so many heartbeats, a second each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::{Backend, Home, Reply, Request, number, short};

const COMPLETE: &str = "POST /api/jobs/*/complete";
const BEAT: &str = "POST /api/providers/*/heartbeat";
const JOBS: usize = 50;

fn jobs() -> Vec<Value> {
    (0..JOBS).map(|n| short(&format!("job-{n}"))).collect()
}

fn job_of(request: &Request) -> String {
    request.call.split('/').nth(3).unwrap().to_owned()
}

/// A backend that comes back, once it is let, with the first request about the oldest job: what was
/// under way at that moment is not to decide about the order.
#[derive(Clone, Default)]
struct Outage {
    may_end: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl Outage {
    fn lasts(&self, request: &Request) -> bool {
        if self.may_end.load(Ordering::SeqCst) && job_of(request) == "job-0" {
            self.ended.store(true, Ordering::SeqCst);
        }
        !self.ended.load(Ordering::SeqCst)
    }

    /// Lets the backend come back, and waits until it is: after many failures that may take longer
    /// than a request does.
    fn end(&self, backend: &Backend) {
        self.may_end.store(true, Ordering::SeqCst);
        // A beat a second, and five minutes at most between two tries.
        for _ in 0..600 {
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
            let seen = backend.calls().len();
            backend.wait("any request", |now| (now.len() > seen).then_some(()));
        }
        panic!("no result was offered again");
    }
}

/// The completions of each job, in the order of the last ones.
fn told(seen: &[Request]) -> Vec<(String, Vec<Value>)> {
    let mut sends: BTreeMap<String, (usize, Vec<Value>)> = BTreeMap::new();
    for (at, request) in seen.iter().enumerate().filter(|(_, request)| request.is(COMPLETE)) {
        let (last, bodies) = sends.entry(job_of(request)).or_default();
        *last = at;
        bodies.push(request.body.clone());
    }
    let mut sends: Vec<_> = sends.into_iter().collect();
    sends.sort_by_key(|(_, (last, _))| *last);
    sends.into_iter().map(|(id, (_, bodies))| (id, bodies)).collect()
}

fn assert_all_delivered_in_order(home: &Home, backend: &Backend) {
    let told = told(&backend.requests("POST /api/jobs/*/complete"));
    let ids: Vec<&str> = told.iter().map(|(id, _)| id.as_str()).collect();
    let expected: Vec<String> = (0..JOBS).map(|n| format!("job-{n}")).collect();
    assert_eq!(ids, expected, "the oldest first");
    for (id, bodies) in &told {
        assert!(bodies.iter().all(|body| *body == bodies[0]), "{id}: {bodies:#?}");
    }
    let booked: Vec<Value> = home.ledger().iter().map(|line| line["id"].clone()).collect();
    assert_eq!(booked, expected);
}

#[test]
fn fifty_results_wait_for_a_backend_that_takes_none_and_arrive_in_order_once() {
    let (home, backend, outage) = (Home::new(), Backend::start(), Outage::default());
    backend.offer(&jobs());
    let accepted = Arc::new(Mutex::new(vec![]));
    let (ours, books) = (outage.clone(), Arc::clone(&accepted));
    backend.answer(COMPLETE, move |seen| {
        let request = seen.last()?;
        if ours.lasts(request) {
            return Some(Reply::json(503, r#"{"success":false,"error":"database down"}"#));
        }
        books.lock().unwrap().push(job_of(request));
        None
    });
    let mut worker = home.worker(&backend.url(), &["--slots", "5"]);
    worker.wait_count("result not delivered yet", JOBS);
    for _ in 0..number("BEATS", 5) {
        backend.wait_beats(1);
    }
    assert_eq!(home.ledger().len(), 0);
    outage.end(&backend);
    backend.wait("all results", |_| (accepted.lock().unwrap().len() >= JOBS).then_some(()));
    worker.stop();
    assert_eq!(accepted.lock().unwrap().len(), JOBS, "each once");
    assert_all_delivered_in_order(&home, &backend);
}

#[test]
fn fifty_jobs_at_once_outlast_a_backend_that_is_away_and_arrive_in_order_once() {
    let (home, backend, outage) = (Home::new(), Backend::start(), Outage::default());
    backend.offer(&jobs());
    let accepted = Arc::new(Mutex::new(vec![]));
    for pattern in ["POST /api/jobs/*/progress", COMPLETE, "GET /api/jobs/*", BEAT] {
        let (ours, books) = (outage.clone(), Arc::clone(&accepted));
        backend.answer(pattern, move |seen| {
            let request = seen.last()?;
            // The first beat brings the jobs.
            let is_first =
                request.is(BEAT) && !seen[..seen.len() - 1].iter().any(|seen| seen.is(BEAT));
            if !is_first && ours.lasts(request) {
                return Some(Reply::HangUp);
            }
            if request.is(COMPLETE) {
                books.lock().unwrap().push(job_of(request));
            }
            None
        });
    }
    let mut worker = home.worker(&backend.url(), &["--slots", "50"]);
    worker.wait_count("result not delivered yet", JOBS);
    outage.end(&backend);
    backend.wait("all results", |_| (accepted.lock().unwrap().len() >= JOBS).then_some(()));
    worker.stop();
    assert_eq!(accepted.lock().unwrap().len(), JOBS, "each once");
    assert_all_delivered_in_order(&home, &backend);
}
