//! Signals: what is finished, what is told to whom, in which order.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Backend, Home, Program, Reply, Request, endless, job};

const BEAT: &str = "POST /api/providers/*/heartbeat";
const COMPLETE: &str = "POST /api/jobs/job-1/complete";

/// What the backend heard of the job's and the worker's end, in order.
fn last_words(backend: &Backend) -> Vec<String> {
    backend.wait("the end", |seen| {
        let word = |request: &Request| {
            let about_end = request.is(COMPLETE) || request.body["status"] == "offline";
            about_end.then(|| request.body["status"].as_str().unwrap().to_owned())
        };
        Some(seen.iter().filter_map(word).collect())
    })
}

fn running(backend: &Backend, home: &Home, job: Value) -> Program {
    backend.offer(&[job]);
    let worker = home.worker(&backend.url(), &[]);
    backend.wait_for("POST /api/jobs/job-1/progress", 1);
    worker
}

fn assert_cancelled(backend: &Backend) {
    assert_eq!(last_words(backend), ["offline", "failed", "offline"]);
    let completions = backend.requests(COMPLETE);
    assert_eq!(completions.len(), 1);
    let body = &completions[0].body;
    assert_eq!(body["error"], "stopped: the worker is shutting down");
    let details = ["reason", "blame", "stage"].map(|key| body["errorDetails"][key].clone());
    assert_eq!(details, ["cancelled", "worker", "run"]);
}

#[test]
fn an_idle_worker_says_goodbye() {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = home.worker(&backend.url(), &[]);
    backend.wait_for(BEAT, 1);
    worker.wait_log("registered");
    worker.stop();
    let beats = backend.requests(BEAT);
    let last = &beats[beats.len() - 1].body;
    assert_eq!([&last["status"], &last["currentJobs"]], [&json!("offline"), &json!([])]);
}

#[test]
fn the_first_signal_lets_what_runs_finish() {
    for signal in [Signal::TERM, Signal::INT] {
        let (home, backend) = (Home::new(), Backend::start());
        let mut worker = running(&backend, &home, job("job-1", "sha256", 0.1));
        worker.signal(signal);
        assert_eq!(worker.wait(), 0);
        assert_eq!(last_words(&backend), ["completed", "offline"]);
        assert_eq!(backend.requests(COMPLETE).len(), 1);
    }
}

#[test]
fn a_draining_worker_is_busy_and_takes_nothing_new() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[endless("job-1"), endless("job-2")]);
    let mut worker = home.worker(&backend.url(), &["--slots", "2"]);
    backend.wait_for("POST /api/jobs/job-2/progress", 1);
    worker.signal(Signal::TERM);
    worker.wait_log("stopping: no new jobs, 2 running may finish");
    backend.offer(&[endless("job-1"), endless("job-2"), endless("job-3")]);
    let last = backend.wait_beats(2).body;
    assert_eq!(
        [&last["status"], &last["currentJobs"]],
        [&json!("busy"), &json!(["job-1", "job-2"])]
    );
    assert_eq!(last["pausedReason"], "stopping");
    worker.signal(Signal::QUIT);
    assert_eq!(worker.wait(), 0);
    assert_eq!(worker.count("job taken"), 2);
}

#[test]
fn the_second_signal_cancels_what_runs() {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = running(&backend, &home, endless("job-1"));
    worker.signal(Signal::TERM);
    worker.wait_log("stopping: no new jobs");
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait(), 0);
    assert_cancelled(&backend);
}

#[test]
fn quit_cancels_what_runs_at_once() {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = running(&backend, &home, endless("job-1"));
    worker.signal(Signal::QUIT);
    assert_eq!(worker.wait(), 0);
    assert_cancelled(&backend);
}

#[test]
fn the_failures_of_a_stop_wait_for_the_beat_that_says_it() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.answer(BEAT, |seen| {
        let offers = json!({"success": true, "pendingJobs": [endless("job-1")]});
        let reply = Reply::json(200, offers.to_string());
        let named = seen.last()?.body["currentJob"] == "job-1";
        Some(if named { Reply::Held(Duration::from_secs(1), Box::new(reply)) } else { reply })
    });
    let mut worker = home.worker(&backend.url(), &[]);
    backend.wait("a beat with the job", |seen| {
        seen.iter().find(|request| request.body["currentJob"] == "job-1").cloned()
    });
    // That beat is still under way, so `offline` cannot be said at once.
    worker.signal(Signal::QUIT);
    assert_eq!(worker.wait(), 0);
    assert_cancelled(&backend);
}

#[test]
fn the_time_to_finish_is_bounded() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[endless("job-1")]);
    let mut worker = home.worker(&backend.url(), &["--drain-timeout", "1s"]);
    backend.wait_for("POST /api/jobs/job-1/progress", 1);
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait(), 0);
    assert_cancelled(&backend);
}

#[test]
fn a_worker_that_never_found_its_backend_can_be_stopped() {
    let (home, reserved) = (Home::new(), crate::support::Reserved::new());
    let mut worker = home.worker(&reserved.url(), &[]);
    worker.wait_log("backend unreachable");
    worker.stop();
}

#[test]
fn a_backend_that_never_answers_holds_nobody_up() {
    let (home, backend) = (Home::new(), Backend::start());
    let never = Reply::Held(Duration::from_secs(3600), Box::new(Reply::HangUp));
    backend.always(BEAT, never);
    let mut worker = home.worker(&backend.url(), &["--request-timeout", "5m"]);
    backend.wait_for(BEAT, 1);
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait(), 0);
    assert!(worker.log().contains("with a request still unanswered"), "{}", worker.log());
}
