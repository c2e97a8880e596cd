//! A job's life at the embedded backend, and what disturbs it.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Home, Mock, endless, job, short};

/// What the backend's clock is started by, and what must come before a completion.
fn assert_history(job: &Value) {
    let history = job["progressHistory"].as_array().unwrap();
    let percents: Vec<u64> = history.iter().map(|percent| percent.as_u64().unwrap()).collect();
    assert!((1..=99).contains(percents.first().expect("some progress before the end")), "{job:#}");
    assert!(percents.is_sorted() && percents.iter().all(|percent| *percent <= 100), "{job:#}");
    assert_eq!(job["lateProgress"], 0, "{job:#}");
    assert!(job["startedAt"].is_string(), "{job:#}");
}

#[test]
fn a_submitted_job_runs_and_is_completed() {
    let (home, mock) = (Home::new(), Mock::start(&[]));
    let mut worker = home.worker(&mock.url(), &["--progress-interval", "1s"]);
    mock.wait("the worker to register", Mock::provider);
    mock.submit(&job("job-1", "matmul", 0.02));
    let done = mock.wait_status("job-1", "COMPLETED");
    assert_history(&done);
    assert_eq!([&done["completions"], &done["progress"]], [1, 100]);
    assert_eq!(done["result"]["computationData"]["kernel"], "matmul");
    worker.stop();
    assert_eq!(mock.provider().unwrap()["status"], "offline");
}

#[test]
fn even_a_job_of_ten_milliseconds_shows_progress_before_it_is_completed() {
    let (home, mock) = (Home::new(), Mock::start(&[]));
    mock.submit(&short("job-1"));
    let mut worker = home.worker(&mock.url(), &["--once"]);
    assert_eq!(worker.wait(), 0);
    let done = mock.job("job-1");
    assert_eq!(done["status"], "COMPLETED");
    assert_history(&done);
    assert_eq!(done["result"]["computationData"]["result"], 9592);
}

#[test]
fn heartbeats_go_on_while_a_job_runs() {
    let (home, mock) = (Home::new(), Mock::start(&[]));
    mock.submit(&endless("job-1"));
    let mut worker = home.worker(&mock.url(), &["--progress-interval", "1s"]);
    mock.wait_status("job-1", "RUNNING");
    mock.wait_beats(9);
    let provider = mock.provider().unwrap();
    assert_eq!(mock.job("job-1")["status"], "RUNNING");
    assert_eq!([&provider["status"], &provider["currentJob"]], ["busy", "job-1"]);
    mock.post("/api/jobs/job-1/cancel", &json!({}));
    mock.wait("the worker to be free again", |mock| {
        (mock.provider()?["status"] == "online").then_some(())
    });
    let cancelled = mock.job("job-1");
    assert_eq!([&cancelled["status"], &cancelled["completions"]], [&json!("CANCELLED"), &json!(0)]);
    worker.stop();
}

#[test]
fn a_backend_that_comes_back_knowing_nothing_is_registered_with_again() {
    let (home, mut mock) = (Home::new(), Mock::start(&[]));
    let mut worker = home.worker(&mock.url(), &["--worker-id", "rig-1"]);
    mock.submit(&short("before"));
    mock.wait_status("before", "COMPLETED");
    mock.restart_empty();
    mock.submit(&short("after"));
    let done = mock.wait_status("after", "COMPLETED");
    assert_eq!(done["completions"], 1);
    let provider = mock.provider().unwrap();
    assert_eq!([&provider["workerId"], &provider["status"]], ["rig-1", "online"]);
    worker.stop();
    assert_eq!(worker.count("backend back after"), 1);
}

#[test]
fn a_job_that_runs_while_the_backend_forgets_all_is_not_in_the_way_of_the_next() {
    let (home, mut mock) = (Home::new(), Mock::start(&[]));
    mock.submit(&endless("before"));
    let mut worker = home.worker(&mock.url(), &["--slots", "2"]);
    mock.wait_status("before", "RUNNING");
    mock.restart_empty();
    mock.submit(&short("after"));
    mock.wait_status("after", "COMPLETED");
    assert_eq!(mock.provider().unwrap()["currentJob"], "before", "nobody has cancelled it");
    worker.signal(Signal::QUIT);
    assert_eq!(worker.wait(), 0);
    let booked: Vec<_> =
        home.ledger().iter().map(|line| [line["id"].clone(), line["status"].clone()]).collect();
    assert_eq!(booked, [["after", "completed"], ["before", "rejected"]]);
}

#[test]
fn a_lost_reply_to_a_completion_leaves_one_completed_job_in_the_books() {
    let (home, mock) = (Home::new(), Mock::start(&["--faults", "complete@1=lost"]));
    mock.submit(&short("job-1"));
    let mut worker = home.worker(&mock.url(), &["--once"]);
    assert_eq!(worker.wait(), 0);
    let done = mock.job("job-1");
    let books = ["status", "completions", "duplicates", "error"].map(|key| done[key].clone());
    assert_eq!(books, [json!("COMPLETED"), json!(1), json!(0), Value::Null]);
}

#[test]
fn a_job_that_is_offered_again_and_again_is_run_and_completed_once() {
    let (home, mock) = (Home::new(), Mock::start(&["--faults", "heartbeat=duplicate"]));
    let mut worker = home.worker(&mock.url(), &[]);
    mock.submit(&short("job-1"));
    mock.wait_status("job-1", "COMPLETED");
    mock.wait_beats(3);
    worker.stop();
    let done = mock.job("job-1");
    assert_eq!([&done["status"], &done["completions"]], [&json!("COMPLETED"), &json!(1)]);
    assert_eq!(worker.count("job taken"), 1);
    assert_eq!(home.ledger().len(), 1);
}

#[test]
fn a_completion_cut_short_or_put_off_arrives_in_the_end() {
    let faults = ["--faults", "complete@1=503:1", "--faults", "complete@2=reset"];
    let (home, mock) = (Home::new(), Mock::start(&faults));
    mock.submit(&short("job-1"));
    let mut worker = home.worker(&mock.url(), &["--once"]);
    assert_eq!(worker.wait(), 0);
    let done = mock.job("job-1");
    assert_eq!([&done["status"], &done["completions"]], [&json!("COMPLETED"), &json!(1)]);
}
