//! A backend lists a job until its state changes, and some list it for longer.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Backend, Home, Reply, endless, short};

const BEAT: &str = "POST /api/providers/*/heartbeat";
const COMPLETE: &str = "POST /api/jobs/job-1/complete";
const PROGRESS: &str = "POST /api/jobs/job-1/progress";
const ASK: &str = "GET /api/jobs/job-1";

/// Offers the job at every beat, whatever was said about it.
fn stubborn(job: Value) -> Backend {
    let backend = Backend::start();
    let reply = json!({"success": true, "pendingJobs": [job]}).to_string();
    backend.always(BEAT, Reply::json(200, reply));
    backend
}

#[test]
fn a_completed_job_is_answered_from_the_record_and_not_run_again() {
    let (home, backend) = (Home::new(), stubborn(short("job-1")));
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
    backend.wait_for(COMPLETE, 3);
    worker.kill();
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
    backend.wait_for(COMPLETE, 4);
    worker.stop();

    let calls = backend.calls();
    let of_job: Vec<&str> = calls
        .iter()
        .map(String::as_str)
        .filter(|call| call.contains("job-1"))
        .skip_while(|call| *call != COMPLETE)
        .take(7)
        .collect();
    assert_eq!(of_job, [COMPLETE, ASK, COMPLETE, ASK, COMPLETE, ASK, COMPLETE]);
    let sent = backend.requests(COMPLETE);
    for request in &sent {
        assert_eq!(request.body, sent[0].body);
        assert_eq!(request.header("idempotency-key"), Some("rig-1:job-1:1"));
    }
    assert_eq!(worker.count("job taken"), 0);
    assert_eq!(home.ledger().len(), 1);
}

#[test]
fn a_job_that_the_worker_failed_thrice_is_handed_back_for_good() {
    let (home, backend) = (Home::new(), stubborn(endless("job-1")));
    for attempt in 1..=3 {
        let seen = backend.requests(PROGRESS).len();
        let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
        backend.wait_for(PROGRESS, seen + 1);
        worker.signal(Signal::QUIT);
        assert_eq!(worker.wait(), 0);
        assert_eq!(backend.requests(COMPLETE).len(), attempt, "{}", worker.log());
    }
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
    let last = backend.wait_for(COMPLETE, 4).body;
    worker.stop();
    assert_eq!(worker.count("job taken"), 0);
    let error = "stopped: the worker is shutting down [Reassignment attempt 3]";
    assert_eq!([&last["status"], &last["error"]], ["failed", error]);
    let sent = backend.requests(COMPLETE);
    let keys: Vec<_> = sent.iter().map(|request| request.header("idempotency-key")).collect();
    let expected = ["rig-1:job-1:1", "rig-1:job-1:2", "rig-1:job-1:3", "rig-1:job-1:4"];
    assert_eq!(keys[..4], expected.map(Some));
    assert_eq!(sent[2].body["error"], "stopped: the worker is shutting down");
}

#[test]
fn other_work_under_the_same_id_is_another_job() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.answer(BEAT, |seen| {
        let done = seen.iter().filter(|request| request.is(COMPLETE)).count();
        let mut job = short("job-1");
        job["computeNeeded"] = json!(if done == 0 { 0.0001 } else { 0.0002 });
        let jobs = if done < 2 { vec![job] } else { vec![] };
        let reply = json!({"success": true, "pendingJobs": jobs});
        Some(Reply::json(200, reply.to_string()))
    });
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1", "--max-jobs", "2"]);
    assert_eq!(worker.wait(), 0);
    let sent = backend.requests(COMPLETE);
    let told = sent.iter().map(|request| {
        let counted = &request.body["result"]["computationData"]["result"];
        (request.header("idempotency-key").unwrap(), counted.as_u64().unwrap())
    });
    // The primes below 100,000 and below 200,000.
    let expected = [("rig-1:job-1:1", 9592), ("rig-1:job-1:2", 17984)];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}
