//! A machine on which one job after the other fails takes none for a while, and says so.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::{Backend, Home, WORKER, short};

const BEAT: &str = "POST /api/providers/*/heartbeat";

#[test]
fn five_failures_of_the_machines_pause_it_in_the_log_the_status_and_the_heartbeat() {
    let (home, backend) = (Home::new(), Backend::start());
    let binary = home.path("worker");
    fs::copy(WORKER, &binary).unwrap();
    let worker = home.worker_at(&binary, &backend.url(), &[]);
    backend.wait_for(BEAT, 1);
    // No engine can be started from now on: it is the same file.
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o600)).unwrap();
    let jobs = ["job-1", "job-2", "job-3", "job-4", "job-5", "job-6"].map(short);
    backend.offer(&jobs);
    let paused = backend.wait("a heartbeat that says why no job is taken", |seen| {
        let said = seen.iter().find(|request| !request.body["pausedReason"].is_null())?;
        Some(said.body.clone())
    });
    let why = "jobs failed here one after the other: none are taken for 10m";
    assert_eq!([&paused["status"], &paused["pausedReason"]], ["busy", why]);
    let said = worker.wait_log("5 jobs in a row failed by this worker's fault");
    assert!(said.contains("ERROR") && said.contains("none are taken for 10m"), "{said}");

    backend.wait_beats(2);
    let failed = backend.requests("POST /api/jobs/*/complete");
    assert_eq!(failed.len(), 5, "the sixth is left alone");
    for request in failed {
        let details = ["reason", "blame"].map(|key| request.body["errorDetails"][key].clone());
        assert_eq!(details, ["start_failed", "worker"]);
    }
}
