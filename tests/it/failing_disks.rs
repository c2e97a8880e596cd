//! A disk that is full, or refuses: the agent lives, says so once, and recovers.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{Backend, Disk, Home, Reply, Request, endless, job, short};

const COMPLETE: &str = "POST /api/jobs/*/complete";
const PROGRESS: &str = "POST /api/jobs/*/progress";
const BEAT: &str = "POST /api/providers/*/heartbeat";
const SPENT: &str = "what was kept back of the disk is used for it";

/// One that is timed out by the job's own wish: it ends, however fast the machine is.
fn hasty(id: &str) -> Value {
    let mut job = endless(id);
    job["timeoutSeconds"] = json!(3);
    job
}

/// Offers one job after the other: the next when the one before is completed.
fn offer_in_turn(backend: &Backend, jobs: Vec<Value>) {
    backend.answer(BEAT, move |seen: &[Request]| {
        let done = seen.iter().filter(|request| request.is(COMPLETE)).count();
        let jobs: Vec<&Value> = jobs.get(done).into_iter().collect();
        Some(Reply::json(200, json!({"success": true, "pendingJobs": jobs}).to_string()))
    });
}

fn only_job(state: &Path) -> PathBuf {
    let jobs: Vec<_> = fs::read_dir(state.join("jobs")).unwrap().collect();
    let [Ok(job)] = &jobs[..] else { panic!("{jobs:?}") };
    job.path()
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_outcome_on_a_full_disk_is_recorded_delivered_and_booked() {
    let (disk, backend) = (Disk::of(6), Backend::start());
    offer_in_turn(&backend, vec![hasty("job-1")]);
    let mut worker = disk.worker(&backend.url(), &["--once"]);
    backend.wait_for(PROGRESS, 1);
    disk.fill();
    let told = backend.wait_for(COMPLETE, 1).body;
    assert_eq!(told["error"], "timeout after 3s in stage run");
    assert_eq!(worker.wait(), 5);
    assert_eq!(worker.count(SPENT), 1);
    assert_eq!(disk.ledger().len(), 1);
}

#[test]
fn a_program_that_meets_a_full_disk_fails_by_the_workers_fault_and_the_next_job_does_not() {
    let (disk, backend) = (Disk::of(6), Backend::start());
    offer_in_turn(&backend, vec![job("job-1", "primes", 2.0), short("job-2")]);
    let mut worker = disk.worker(&backend.url(), &[]);
    backend.wait_for(PROGRESS, 1);
    // It is held while the disk is filled.
    let programs: Vec<Pid> = worker
        .children()
        .iter()
        .filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?))
        .collect();
    programs.iter().for_each(|pid| kill_process(*pid, Signal::STOP).unwrap());
    disk.fill();
    programs.iter().for_each(|pid| kill_process(*pid, Signal::CONT).unwrap());
    let told = backend.wait_for(COMPLETE, 1).body;
    assert_eq!(told["errorDetails"]["blame"], "worker", "{told:#}");
    assert_eq!(told["error"], "the worker's disk is full: exit code 1");
    disk.clear();
    let told = backend.wait("the next job's result", |seen| {
        let done = |request: &&Request| request.is("POST /api/jobs/job-2/complete");
        seen.iter().find(done).map(|request| request.body.clone())
    });
    assert_eq!(told["status"], "completed", "{told:#}");
    // The room is looked at before a beat; the first of these may have begun before there was any.
    backend.wait_beats(2);
    assert!(disk.state().join("reserve").exists(), "kept again");
    worker.stop();
    assert_eq!(worker.count(SPENT), 1, "it is said once");
}

#[test]
fn a_start_on_a_full_disk_holds_what_it_cannot_record_and_tells_it_when_there_is_room() {
    let (disk, backend) = (Disk::of(6), Backend::start());
    backend.offer(&[endless("job-1")]);
    let mut worker = disk.worker(&backend.url(), &["--worker-id", "rig-1"]);
    backend.wait_for(PROGRESS, 1);
    worker.kill();
    fs::remove_file(disk.state().join("reserve")).unwrap();
    disk.fill();
    let seen = backend.requests(PROGRESS).len();
    let mut worker = disk.worker(&backend.url(), &["--worker-id", "rig-1"]);
    worker.wait_log("the loss of job=job-1 is recorded later");
    backend.wait_beats(3);
    assert_eq!(backend.requests(COMPLETE).len(), 0, "nothing is told before it is recorded");
    disk.clear();
    assert_eq!(backend.wait_for(COMPLETE, 1).body["errorDetails"]["reason"], "lost");
    assert_eq!(backend.requests(PROGRESS).len(), seen, "it did not run again");
    worker.stop();
    assert_eq!(disk.ledger().len(), 1);
}

#[test]
fn an_outcome_that_the_disk_refuses_waits_in_memory_and_is_told_when_it_does_not() {
    let (home, backend) = (Home::new(), Backend::start());
    offer_in_turn(&backend, vec![hasty("job-1")]);
    let mut worker = home.worker_without_power(&backend.url(), &[]);
    backend.wait_for(PROGRESS, 1);
    let job = only_job(Path::new(&home.path("state")));
    allow(&job, 0o500);
    worker.wait_log("the result of job=job-1 waits in memory");
    // Long enough for another try.
    backend.wait_beats(7);
    assert_eq!(backend.requests(COMPLETE).len(), 0);
    allow(&job, 0o700);
    backend.wait_for(COMPLETE, 1);
    worker.stop();
    assert_eq!(worker.count("Permission denied"), 1, "it is said once");
    assert_eq!(home.ledger().len(), 1);
}

#[test]
fn a_delivery_that_the_disk_refuses_is_booked_when_it_does_not() {
    let (home, backend) = (Home::new(), Backend::start());
    offer_in_turn(&backend, vec![short("job-1"), short("job-2")]);
    let ledger = home.file("state/ledger.jsonl", "", 0o400);
    let mut worker = home.worker_without_power(&backend.url(), &[]);
    worker.wait_log("the delivery is booked later");
    backend.wait_for(COMPLETE, 2);
    allow(Path::new(&ledger), 0o600);
    backend.wait_beats(7);
    worker.stop();
    let booked: BTreeSet<String> =
        home.ledger().iter().map(|line| line["id"].to_string()).collect();
    assert_eq!((booked.len(), home.ledger().len()), (2, 2));
    assert_eq!(backend.requests(COMPLETE).len(), 2);
}

#[test]
fn a_record_that_cannot_be_read_costs_its_job_and_not_the_start() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[endless("job-1")]);
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
    backend.wait_for(PROGRESS, 1);
    worker.kill();
    allow(&only_job(Path::new(&home.path("state"))).join("record.json"), 0);
    let mut worker = home.worker_without_power(&backend.url(), &["--worker-id", "rig-1"]);
    let told = backend.wait_for(COMPLETE, 1).body;
    assert_eq!([&told["status"], &told["errorDetails"]["reason"]], ["failed", "lost"]);
    worker.stop();
    assert_eq!(worker.count("cannot be read (Permission denied"), 1);
}
