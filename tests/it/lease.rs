//! When no heartbeat gets through for three intervals, the backend may give our jobs away.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Backend, Home, Reply, endless};

const BEAT: &str = "POST /api/providers/*/heartbeat";
const ASK: &str = "GET /api/jobs/job-1";
const COMPLETE: &str = "POST /api/jobs/job-1/complete";

/// Three beats of a second apart, and what a clock may round away.
const LEASE: Duration = Duration::from_millis(3100);

/// Has every heartbeat fail until the lease is over for sure.
fn lapse(backend: &Backend) {
    backend.always(BEAT, Reply::json(503, r#"{"success":false,"error":"maintenance"}"#));
    backend.wait_beats(1);
    // The last good one was answered before that.
    let since = Instant::now();
    while since.elapsed() < LEASE {
        backend.wait_beats(1);
    }
}

/// What is done about a job whose program ends after the lease, the backend having it like this.
fn end_after_lapse(provider: &str) -> (Backend, Vec<Value>) {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[endless("job-1")]);
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
    backend.wait_for("POST /api/jobs/job-1/progress", 1);
    lapse(&backend);
    let job = json!({"id": "job-1", "status": "RUNNING", "provider": {"workerId": provider}});
    backend.always(ASK, Reply::json(200, job.to_string()));
    worker.signal(Signal::QUIT);
    assert_eq!(worker.wait(), 0);
    (backend, home.ledger())
}

#[test]
fn a_job_that_is_somebody_elses_by_then_is_rejected_and_never_sent() {
    let (backend, ledger) = end_after_lapse("rig-2");
    let [line] = &ledger[..] else { panic!("{ledger:#?}") };
    assert_eq!([&line["id"], &line["status"]], ["job-1", "rejected"]);
    assert_eq!(line["reason"], "the job was given to somebody else");
    assert_eq!(backend.requests(COMPLETE).len(), 0);
}

#[test]
fn a_job_that_is_still_ours_is_asked_about_and_completed() {
    let (backend, ledger) = end_after_lapse("rig-1");
    let [line] = &ledger[..] else { panic!("{ledger:#?}") };
    assert_eq!([&line["id"], &line["status"]], ["job-1", "failed"]);
    let calls = backend.calls();
    let place = |call| calls.iter().rposition(|seen| seen == call).unwrap();
    assert!(place(ASK) < place(COMPLETE), "{calls:?}");
    assert_eq!(backend.requests(COMPLETE).len(), 1);
}
