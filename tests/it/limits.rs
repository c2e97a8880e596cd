//! How many jobs a worker takes, how many at once, and when it has had enough.

use std::fs;

use serde_json::json;

use crate::support::{Backend, Home, Mock, endless, short};

#[test]
fn once_takes_one_job_and_leaves_the_next() {
    let (home, mock) = (Home::new(), Mock::start(&[]));
    mock.submit(&short("first"));
    mock.submit(&short("second"));
    let mut worker = home.worker(&mock.url(), &["--once"]);
    assert_eq!(worker.wait(), 0);
    let statuses = ["first", "second"].map(|id| mock.job(id)["completions"].clone());
    assert_eq!(statuses, [1, 0]);
}

#[test]
fn max_jobs_takes_so_many_and_declines_do_not_count() {
    let (home, mock) = (Home::new(), Mock::start(&[]));
    mock.submit(&json!({"id": "strange", "modelType": "gpt2"}));
    for id in ["first", "second", "third"] {
        mock.submit(&short(id));
    }
    let mut worker = home.worker(&mock.url(), &["--max-jobs", "2"]);
    assert_eq!(worker.wait(), 0);
    let statuses = ["strange", "first", "second"].map(|id| mock.job(id)["status"].clone());
    assert_eq!(statuses, ["FAILED", "COMPLETED", "COMPLETED"]);
    assert_eq!(mock.job("third")["completions"], 0);
}

#[test]
fn a_worker_without_work_stops_if_it_was_told_to() {
    let (home, mock) = (Home::new(), Mock::start(&[]));
    mock.submit(&short("job-1"));
    let mut worker = home.worker(&mock.url(), &["--exit-when-idle", "1s"]);
    assert_eq!(worker.wait(), 0);
    assert_eq!(mock.job("job-1")["status"], "COMPLETED");
    assert_eq!(mock.provider().unwrap()["status"], "offline");
}

#[test]
fn two_slots_run_two_jobs_at_once_and_a_third_waits() {
    let (home, mock) = (Home::new(), Mock::start(&[]));
    for id in ["first", "second", "third"] {
        mock.submit(&endless(id));
    }
    let mut worker = home.worker(&mock.url(), &["--slots", "2"]);
    let both = mock.wait("both to run", |mock| {
        let provider = mock.provider()?;
        let running = ["first", "second"].map(|id| mock.job(id)["status"].clone());
        (running == ["RUNNING", "RUNNING"] && provider["status"] == "busy").then_some(provider)
    });
    assert_eq!(both["currentJobs"], json!(["first", "second"]));
    assert_eq!([&both["currentJob"], &both["specs"]["slots"]], [&json!("first"), &json!(2)]);
    assert_eq!(mock.job("third")["status"], "ASSIGNED");
    mock.post("/api/jobs/first/cancel", &json!({}));
    mock.wait_status("third", "RUNNING");
    assert_eq!(mock.job("second")["status"], "RUNNING");
    worker.kill();
}

#[test]
fn the_limits_hold_for_the_engine_too() {
    let (home, mock) = (Home::new(), Mock::start(&[]));
    let wide = json!({"dataset": "iris", "hidden": [16_384, 16_384]});
    mock.submit(&json!({"id": "wide", "modelType": "training", "inputData": wide}));
    mock.submit(&endless("long"));
    let limits = ["--limit-memory", "100MiB", "--limit-cpus", "1"];
    let mut worker = home.worker(&mock.url(), &limits);
    mock.wait_status("wide", "FAILED");
    let error = mock.job("wide")["error"].as_str().unwrap().to_owned();
    assert!(error.contains("this job may use 100 MiB"), "{error}");
    mock.wait_status("long", "RUNNING");
    mock.wait("one processor to be left to it", |_| {
        let [pid] = worker.children()[..] else { return None };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        allowed.trim().parse::<u32>().ok()
    });
    worker.kill();
}

#[test]
fn a_failed_job_is_told_by_the_exit_code_of_once() {
    let (home, mock) = (Home::new(), Mock::start(&[]));
    let mut hasty = endless("job-1");
    hasty["timeoutSeconds"] = json!(1);
    mock.submit(&hasty);
    let mut worker = home.worker(&mock.url(), &["--once"]);
    assert_eq!(worker.wait(), 5);
    let failed = mock.job("job-1");
    assert_eq!([&failed["status"], &failed["error"]], ["FAILED", "timeout after 1s in stage run"]);
    let details = ["reason", "blame", "stage"].map(|key| failed["errorDetails"][key].clone());
    assert_eq!(details, ["timeout", "job", "run"]);
}

#[test]
fn a_worker_short_of_disk_takes_no_job_and_says_so() {
    let backend = Backend::start();
    backend.offer(&[short("job-1")]);
    let home = Home::new();
    let _worker = home.worker(&backend.url(), &["--min-free", "9999TiB"]);
    let beat = backend.wait_for("POST /api/providers/*/heartbeat", 1).body;
    assert_eq!(beat["status"], "busy", "from the first on");
    assert_eq!(beat["pausedReason"], "less than 9999 TiB free on the disk of its state");
    backend.wait_beats(2);
    assert!(!backend.calls().iter().any(|call| call.contains("/api/jobs/job-1/")));
}
