//! Jobs that the backend takes away: stopped, booked, and never completed.

use serde_json::{Value, json};

use crate::support::{Backend, Home, Reply, Request, endless};

const BEAT: &str = "POST /api/providers/*/heartbeat";
const ASK: &str = "GET /api/jobs/job-1";

fn named(seen: &[Request], what: &Value) -> bool {
    seen.iter().any(|request| request.is(BEAT) && request.body["currentJobs"] == *what)
}

/// The job was named by a beat, and then by none: it is gone.
fn wait_until_dropped(backend: &Backend) {
    backend.wait("the job to be dropped", |seen| {
        let taken = seen.iter().position(|request| {
            request.is(BEAT) && request.body["currentJobs"] == json!(["job-1"])
        })?;
        named(&seen[taken..], &json!([])).then_some(())
    });
}

fn assert_cancelled(home: &Home, backend: &Backend) {
    assert_eq!(backend.requests("POST /api/jobs/*/complete").len(), 0);
    let booked: Vec<Value> = home.ledger().iter().map(|line| line["status"].clone()).collect();
    assert_eq!(booked, ["cancelled"]);
}

#[test]
fn a_job_named_in_cancel_jobs_is_stopped_and_not_completed() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.answer(BEAT, |seen| {
        let reply = if named(seen, &json!(["job-1"])) {
            json!({"success": true, "pendingJobs": [], "cancelJobs": ["job-1", "unheard-of"]})
        } else {
            json!({"success": true, "pendingJobs": [endless("job-1")]})
        };
        Some(Reply::json(200, reply.to_string()))
    });
    let mut worker = home.worker(&backend.url(), &[]);
    wait_until_dropped(&backend);
    worker.stop();
    assert_cancelled(&home, &backend);
    assert_eq!(worker.count("job cancelled by the backend job=job-1"), 1);
}

#[test]
fn a_job_that_the_backend_says_was_cancelled_is_stopped_and_not_completed() {
    stopped_when_asked_about(&json!({"id": "job-1", "status": "CANCELLED"}));
}

#[test]
fn a_job_that_was_given_to_somebody_else_is_stopped_and_not_completed() {
    let job = json!({"id": "job-1", "status": "RUNNING", "provider": {"workerId": "rig-2"}});
    stopped_when_asked_about(&job);
}

fn stopped_when_asked_about(job: &Value) {
    let (home, backend) = (Home::new(), Backend::start());
    let gone = job.to_string();
    backend.answer(BEAT, |seen| {
        let jobs = if named(seen, &json!(["job-1"])) { vec![] } else { vec![endless("job-1")] };
        let reply = json!({"success": true, "pendingJobs": jobs});
        Some(Reply::json(200, reply.to_string()))
    });
    backend.always(ASK, Reply::json(200, gone));
    backend.next(ASK, [Reply::json(200, r#"{"id":"job-1","status":"RUNNING"}"#)]);
    let mut worker = home.worker(&backend.url(), &[]);
    wait_until_dropped(&backend);
    worker.stop();
    assert_cancelled(&home, &backend);
}

#[test]
fn a_backend_that_tells_nothing_of_jobs_is_asked_once() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[endless("job-1")]);
    let mut worker = home.worker(&backend.url(), &[]);
    backend.wait_for(ASK, 1);
    let last = backend.wait_beats(3);
    assert_eq!(last.body["currentJob"], "job-1", "a 404 there means nothing");
    assert_eq!(backend.requests(ASK).len(), 1);
    worker.kill();
}
