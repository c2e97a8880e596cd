//! How long and how large a training may become.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ended, error, training};
use crate::support::{Home, Mock};

/// One that no test lives to see the end of.
fn endless(id: &str) -> Value {
    training(id, json!({"dataset": "digits", "epochs": 100_000, "hidden": [1024, 1024]}))
}

#[test]
fn a_training_that_is_cancelled_ends_at_once_and_the_next_job_runs() {
    let (home, mock) = (Home::new(), Mock::start(&[]));
    mock.submit(&endless("job-1"));
    let mut worker = home.worker(&mock.url(), &["--progress-interval", "1s"]);
    mock.wait_status("job-1", "RUNNING");
    mock.submit(&training("job-2", json!({"dataset": "iris", "epochs": 1})));
    mock.post("/api/jobs/job-1/cancel", &json!({}));
    mock.wait_status("job-2", "COMPLETED");
    assert_eq!(mock.job("job-1")["completions"], 0);
    worker.stop();
    // The grace before a program is killed is ten seconds: it was not needed.
    let booked = home.ledger();
    let statuses: Vec<&Value> = booked.iter().map(|line| &line["status"]).collect();
    assert_eq!(statuses, ["cancelled", "completed"]);
}

#[test]
fn a_training_that_takes_too_long_is_ended_by_its_time_limit() {
    let mut job = endless("job-1");
    job["timeoutSeconds"] = json!(1);
    let begin = Instant::now();
    let told = ended(&Home::new(), &[job], &[]);
    assert_eq!(error(&told[0], "timeout", "run"), "timeout after 1s in stage run");
    let worked = told[0]["metrics"]["processingTimeSeconds"].as_f64().unwrap();
    assert!(worked >= 1.0 && begin.elapsed() >= Duration::from_secs(1), "{worked}");
}

#[test]
fn a_network_larger_than_memory_is_refused_before_it_is_made() {
    // All that a job may ask for, which no machine of today has room for.
    let widest = json!({"dataset": "iris", "hidden": vec![16_384; 16], "batchSize": 65_536});
    let told = ended(&Home::new(), &[training("job-1", widest)], &[]);
    let text = error(&told[0], "bad_input", "run");
    assert!(
        text.starts_with("this network with its data needs about 233 GiB, this job may use "),
        "{text}"
    );
    assert!(text.ends_with(": take fewer rows or narrower layers"), "{text}");
    let peak = told[0]["metrics"]["peakMemoryMb"].as_f64().unwrap();
    assert!(peak < 200.0, "{peak} MiB");
}
