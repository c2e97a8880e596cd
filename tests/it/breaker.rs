//! A machine on which one job after the other fails takes none of that kind for a while, and says so.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::support::{Backend, Home, Program, WORKER, short};

const COMPLETE: &str = "POST /api/jobs/*/complete";
const BEAT: &str = "POST /api/providers/*/heartbeat";

/// A worker of which no engine can be started: it is the same file.
fn broken(home: &Home, backend: &Backend) -> Program {
    let binary = home.path("worker");
    fs::copy(WORKER, &binary).unwrap();
    let worker = home.worker_at(&binary, &backend.url(), &[]);
    backend.wait_for(BEAT, 1);
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o600)).unwrap();
    worker
}

/// The first heartbeat that says why jobs wait.
fn paused(backend: &Backend) -> Value {
    backend.wait("a heartbeat that says why jobs wait", |seen| {
        let said = seen.iter().find(|request| !request.body["pausedReason"].is_null())?;
        Some(said.body.clone())
    })
}

#[test]
fn five_failures_of_the_machines_pause_a_kind_in_the_log_the_status_and_the_heartbeat() {
    let (home, backend) = (Home::new(), Backend::start());
    let worker = broken(&home, &backend);
    backend.offer(&["job-1", "job-2", "job-3", "job-4", "job-5", "job-6"].map(short));
    let paused = paused(&backend);
    let why = "paused: compute jobs, for 10m after 5 failures in a row";
    assert_eq!([&paused["status"], &paused["pausedReason"]], ["online", why]);
    let said = worker.wait_log("compute jobs fail here one after the other");
    assert!(said.contains("ERROR") && said.contains("none are taken for 10m"), "{said}");
    let status = fs::read_to_string(home.path("state/status.json")).unwrap();
    assert!(status.contains(why), "{status}");

    backend.wait_beats(2);
    let failed = backend.requests(COMPLETE);
    assert_eq!(failed.len(), 5, "the sixth is left alone");
    for request in failed {
        let details = ["reason", "blame"].map(|key| request.body["errorDetails"][key].clone());
        assert_eq!(details, ["start_failed", "worker"]);
    }
}

#[test]
fn one_submitters_failures_pause_nobody_elses_jobs() {
    let (home, backend) = (Home::new(), Backend::start());
    let worker = broken(&home, &backend);
    let of = |id: &str, user: &str| {
        let mut job = short(id);
        job["userId"] = json!(user);
        job
    };
    let theirs = ["a-1", "a-2", "a-3", "a-4", "a-5", "a-6"].map(|id| of(id, "mallory"));
    backend.offer(&[&theirs[..], &[of("b-1", "bob")]].concat());
    backend.wait_for("POST /api/jobs/b-1/complete", 1);
    let why = "paused: compute jobs of 1 submitter, after failures in a row";
    assert_eq!(paused(&backend)["pausedReason"], why);
    worker.wait_log("compute jobs of one submitter fail here one after the other");
    backend.wait_beats(2);
    assert_eq!(backend.requests("POST /api/jobs/a-6/complete").len(), 0, "it waits");
    assert_eq!(backend.requests(COMPLETE).len(), 6);
}
