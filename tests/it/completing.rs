//! Completions: what they say, and how they survive lost replies, refusals, damage and power failures.

use std::fs::{self, File};
use std::io::Write as _;
use std::time::Instant;

use rustix::event::{Timespec, poll};
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{BOUND, Backend, Home, Reply, Request, endless, keys, short};

const COMPLETE: &str = "POST /api/jobs/job-1/complete";
const PROGRESS: &str = "POST /api/jobs/job-1/progress";
const ASK: &str = "GET /api/jobs/job-1";
const BEAT: &str = "POST /api/providers/*/heartbeat";

const ONCE: &[&str] = &["--once", "--worker-id", "rig-1"];

/// What was asked about the job, progress left out.
fn story(backend: &Backend) -> Vec<String> {
    let about = |call: &String| call.contains("/api/jobs/") && call != PROGRESS;
    backend.calls().into_iter().filter(about).collect()
}

/// The questions that a running job is asked about come before its first completion.
fn story_from_completion(backend: &Backend) -> Vec<String> {
    story(backend).into_iter().skip_while(|call| call != COMPLETE).collect()
}

fn said_by(status: &str) -> Reply {
    let job = json!({"id": "job-1", "status": status, "provider": {"workerId": "rig-1"}});
    Reply::json(200, job.to_string())
}

#[test]
fn a_completion_says_what_the_protocol_lists_after_a_first_progress() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[short("job-1")]);
    let mut worker = home.worker(&backend.url(), ONCE);
    assert_eq!(worker.wait(), 0);
    let calls = backend.calls();
    let place = |call| calls.iter().position(|seen| seen == call).unwrap();
    assert!(place(PROGRESS) < place(COMPLETE), "{calls:?}");
    let progress = &backend.requests(PROGRESS)[0].body;
    assert_eq!(progress["workerId"], "rig-1");
    assert!((1..=99).contains(&progress["progress"].as_u64().unwrap()), "{progress:#}");
    assert!(progress["currentOperation"].is_string());

    let completions = backend.requests(COMPLETE);
    let [Request { body, .. }] = &completions[..] else { panic!("{completions:#?}") };
    assert_eq!(completions[0].header("idempotency-key"), Some("rig-1:job-1:1"));
    assert_eq!(keys(body), ["metrics", "result", "status", "timestamp", "workerId"]);
    assert_eq!([&body["workerId"], &body["status"]], ["rig-1", "completed"]);
    // There are 9592 primes below 100,000.
    let data = &body["result"]["computationData"];
    assert_eq!([&data["kernel"], &data["result"]], [&json!("primes"), &json!(9592)]);
    let own =
        ["jobType", "status", "timestamp", "artefacts"].map(|key| body["result"][key].clone());
    assert_eq!(own, [json!("compute"), json!("success"), body["timestamp"].clone(), json!([])]);
    assert!(body["metrics"]["processingTimeSeconds"].is_number());
    let booked: Vec<Value> = home.ledger().iter().map(|line| line["status"].clone()).collect();
    assert_eq!(booked, ["completed"]);
}

#[test]
fn a_report_whose_answer_comes_after_the_jobs_end_is_not_sent_once_more() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[short("job-1")]);
    let jobs = home.path("state/jobs");
    backend.answer(PROGRESS, move |_| {
        wait_until_recorded(&jobs);
        None
    });
    let mut worker = home.worker(&backend.url(), ONCE);
    assert_eq!(worker.wait(), 0);
    assert_eq!((backend.requests(PROGRESS).len(), backend.requests(COMPLETE).len()), (1, 1));
}

/// Waits until the outcome of the one job is on disk.
fn wait_until_recorded(jobs: &str) {
    let deadline = Instant::now() + BOUND;
    let is_there = || {
        let jobs = fs::read_dir(jobs).into_iter().flatten().flatten();
        let mut records =
            jobs.map(|job| fs::read_to_string(job.path().join("record.json")).unwrap_or_default());
        records.any(|record| record.contains(r#""outcome""#))
    };
    while !is_there() {
        assert!(Instant::now() < deadline, "waited in vain for an outcome");
        poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 })).unwrap();
    }
}

#[test]
fn a_lost_reply_is_asked_about_and_not_sent_again_when_the_backend_has_it() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[short("job-1")]);
    backend.next(COMPLETE, [Reply::HangUp]);
    backend.always(ASK, said_by("COMPLETED"));
    let mut worker = home.worker(&backend.url(), ONCE);
    assert_eq!(worker.wait(), 0);
    assert_eq!(story_from_completion(&backend), [COMPLETE, ASK]);
}

#[test]
fn a_lost_completion_is_sent_again_word_for_word_when_the_backend_lacks_it() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[short("job-1")]);
    backend.next(COMPLETE, [Reply::HangUp]);
    backend.always(ASK, said_by("RUNNING"));
    let mut worker = home.worker(&backend.url(), ONCE);
    assert_eq!(worker.wait(), 0);
    assert_eq!(story_from_completion(&backend), [COMPLETE, ASK, COMPLETE]);
    assert_same(&backend.requests(COMPLETE));
}

fn assert_same(sent: &[Request]) {
    let [first, .., last] = sent else { panic!("sent less than twice: {sent:#?}") };
    assert_eq!(first.body, last.body);
    assert_eq!(first.header("idempotency-key"), Some("rig-1:job-1:1"));
    assert_eq!(last.header("idempotency-key"), Some("rig-1:job-1:1"));
}

#[test]
fn a_completion_survives_a_power_failure() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[short("job-1")]);
    let refusal = r#"{"success":false,"error":"database down"}"#;
    backend.always(COMPLETE, Reply::json(503, refusal));
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
    backend.wait_for(COMPLETE, 1);
    worker.kill();

    let before = story(&backend).len();
    backend.always(COMPLETE, Reply::json(200, r#"{"success":true}"#));
    let mut worker =
        home.worker(&backend.url(), &["--worker-id", "rig-1", "--exit-when-idle", "0s"]);
    assert_eq!(worker.wait(), 0);
    assert_eq!(story(&backend)[before..], [ASK, COMPLETE]);
    assert_same(&backend.requests(COMPLETE));
}

#[test]
fn a_job_that_ran_when_the_power_failed_is_reported_lost_and_not_run_again() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[endless("job-1")]);
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
    backend.wait_for(PROGRESS, 1);
    worker.kill();

    let seen = backend.requests(PROGRESS).len();
    let mut worker =
        home.worker(&backend.url(), &["--worker-id", "rig-1", "--exit-when-idle", "0s"]);
    let body = backend.wait_for(COMPLETE, 1).body;
    assert_eq!(worker.wait(), 0);
    let said = ["status", "error"].map(|key| body[key].as_str().unwrap().to_owned());
    assert_eq!(said, ["failed", "lost: the worker ended while the job ran"]);
    let details = ["reason", "blame", "stage"].map(|key| body["errorDetails"][key].clone());
    assert_eq!(details, ["lost", "worker", "run"]);
    assert_eq!(backend.requests(PROGRESS).len(), seen, "no progress of a job that is over");
}

#[test]
fn a_job_whose_record_was_damaged_is_reported_lost_and_not_run_again() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[endless("job-1")]);
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
    backend.wait_for(PROGRESS, 1);
    worker.kill();
    let jobs = fs::read_dir(home.path("state/jobs")).unwrap();
    for job in jobs {
        let record = File::options().write(true).open(job.unwrap().path().join("record.json"));
        record.unwrap().set_len(100).unwrap();
    }

    let seen = backend.requests(PROGRESS).len();
    let mut worker =
        home.worker(&backend.url(), &["--worker-id", "rig-1", "--exit-when-idle", "0s"]);
    let body = backend.wait_for(COMPLETE, 1).body;
    assert_eq!(worker.wait(), 0);
    let said = ["status", "error"].map(|key| body[key].as_str().unwrap().to_owned());
    assert_eq!(said, ["failed", "lost: its record was damaged"]);
    assert_eq!(worker.count("job=job-1 counts as lost"), 1);
    assert_eq!(backend.requests(PROGRESS).len(), seen, "it did not run again");
}

#[test]
fn a_result_is_delivered_under_the_name_that_its_job_was_taken_under() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[short("job-1")]);
    backend.always(COMPLETE, Reply::json(503, r#"{"success":false,"error":"busy"}"#));
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
    backend.wait_for(COMPLETE, 1);
    worker.kill();

    backend.always(ASK, said_by("RUNNING"));
    backend.always(COMPLETE, Reply::json(200, r#"{"success":true}"#));
    let mut worker =
        home.worker(&backend.url(), &["--worker-id", "rig-2", "--exit-when-idle", "0s"]);
    assert_eq!(worker.wait(), 0);
    let sent = backend.requests(COMPLETE);
    assert_eq!(sent.len(), 2);
    assert_same(&sent);
    assert_eq!(sent[1].body["workerId"], "rig-1");
}

#[test]
fn a_completion_that_the_backend_will_not_have_is_not_sent_again() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[short("job-1")]);
    backend.always(COMPLETE, Reply::json(409, r#"{"success":false,"error":"job is FAILED"}"#));
    let mut worker = home.worker(&backend.url(), ONCE);
    assert_eq!(worker.wait(), 0);
    assert_eq!(story_from_completion(&backend), [COMPLETE]);
    let line = &home.ledger()[0];
    assert_eq!(line["status"], "rejected");
    assert!(line["reason"].as_str().unwrap().contains("job is FAILED"), "{line}");
}

#[test]
fn a_page_with_the_same_status_is_no_answer_and_tried_again() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[short("job-1")]);
    backend.next(COMPLETE, [Reply::html(409)]);
    let mut worker = home.worker(&backend.url(), ONCE);
    assert_eq!(worker.wait(), 0);
    assert_eq!(story_from_completion(&backend), [COMPLETE, ASK, COMPLETE]);
    assert_same(&backend.requests(COMPLETE));
}

#[test]
fn one_completion_that_never_gets_through_holds_up_no_other() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&["stuck", "job-1", "job-2"].map(short));
    backend.always("POST /api/jobs/stuck/complete", Reply::HangUp);
    let mut worker = home.worker(&backend.url(), &[]);
    backend.wait_for("POST /api/jobs/stuck/complete", 1);
    backend.wait("a beat that names the one that is left", |seen| {
        let done = seen.iter().position(|request| request.is("POST /api/jobs/job-2/complete"))?;
        let mut beats = seen[done..].iter().filter(|request| request.is(BEAT));
        beats.any(|beat| beat.body["currentJobs"] == json!(["stuck"])).then_some(())
    });
    worker.kill();
    let booked: Vec<Value> = home.ledger().iter().map(|line| line["id"].clone()).collect();
    assert_eq!(booked, ["job-1", "job-2"]);
}

/// Rewrites the record of the one result that waits on disk, checksum and all.
fn let_it_have_waited(home: &Home, seconds: u64) {
    let job = fs::read_dir(home.path("state/jobs")).unwrap().next().unwrap().unwrap();
    let path = job.path().join("record.json");
    let text = fs::read_to_string(&path).unwrap();
    let (_, record) = text.split_once(r#","record":"#).unwrap();
    let name = r#""waited_seconds":"#;
    let (before, after) = record.strip_suffix('}').unwrap().split_once(name).unwrap();
    let after = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let record = format!("{before}{name}{seconds}{after}");
    let sum: String = Sha256::digest(&record).iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!(r#"{{"format":1,"sha256":"{sum}","record":{record}}}"#);
    File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_result_that_nobody_took_for_seven_days_is_given_up_and_booked_as_undelivered() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[short("job-1")]);
    let busy = Reply::json(503, r#"{"success":false,"error":"busy"}"#);
    backend.always(COMPLETE, busy.clone());
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
    worker.wait_log("result not delivered yet");
    worker.kill();
    let_it_have_waited(&home, 7 * 86_400);

    backend.always(ASK, busy);
    let mut worker =
        home.worker(&backend.url(), &["--worker-id", "rig-1", "--exit-when-idle", "0s"]);
    assert_eq!(worker.wait(), 0);
    assert_eq!(backend.requests(COMPLETE).len(), 1);
    assert_eq!(worker.count("result given up after 7 days job=job-1"), 1);
    let booked: Vec<Value> = home.ledger().iter().map(|line| line["status"].clone()).collect();
    assert_eq!(booked, ["undelivered"]);
}

#[test]
fn what_could_not_be_delivered_waits_on_disk_when_the_worker_stops() {
    waits_on_disk_if_told("application/json\r\nRetry-After: 600");
}

#[test]
fn a_backend_may_say_until_when_by_its_own_clock() {
    waits_on_disk_if_told(
        "application/json\r\nDate: Thu, 31 Dec 1998 23:55:00 GMT\r\n\
         Retry-After: Fri, 01 Jan 1999 00:05:00 GMT",
    );
}

/// What is asked for is longer than a stopping worker waits.
fn waits_on_disk_if_told(content_type: &'static str) {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[short("job-1")]);
    let body = r#"{"success":false,"error":"busy"}"#.into();
    backend.always(COMPLETE, Reply::Whole { status: 503, content_type, body });
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
    worker.wait_log("result not delivered yet");
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait(), 0);
    assert_eq!(worker.count("1 results wait on disk for the next start"), 1);
    assert_eq!(home.ledger().len(), 0);
}
