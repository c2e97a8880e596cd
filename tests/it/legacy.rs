//! The dialect of a backend that lists no jobs in its heartbeat.

use serde_json::{Value, json};

use crate::support::{Backend, Home, Reply, Request, keys, open_jobs, short};

const BEAT: &str = "POST /api/providers/*/heartbeat";

/// Answers as that backend does; its list holds each job until its completion has come.
fn legacy(jobs: Vec<Value>) -> Backend {
    let backend = Backend::start();
    backend.always(BEAT, Reply::json(200, r#"{"success":true}"#));
    backend.answer("GET /api/jobs/pending/rig-1", move |seen| {
        Some(Reply::json(200, Value::Array(open_jobs(&jobs, seen)).to_string()))
    });
    backend
}

#[test]
fn both_spellings_are_sent_from_the_second_beat_on() {
    let (home, backend) = (Home::new(), legacy(vec![]));
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
    let second = backend.wait_for(BEAT, 2).body;
    let first = backend.wait_for(BEAT, 1).body;
    let snake = |beat: &Value| {
        let keys = keys(&beat["usage"]).into_iter().filter(|key| key.contains('_'));
        keys.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(snake(&first), [""; 0]);
    let usage = &second["usage"];
    for (camel, snake) in [
        ("cpuPercent", "cpu_percent"),
        ("ramPercent", "ram_percent"),
        ("ramUsedGb", "ram_used_gb"),
        ("ramTotalGb", "ram_total_gb"),
    ] {
        assert!(usage[snake].is_number(), "{snake}: {usage:#}");
        assert_eq!(usage[camel], usage[snake], "{camel}");
    }
    assert_eq!(worker.count("this backend gives jobs by polling"), 1);
    worker.stop();
}

#[test]
fn polled_jobs_are_run_and_those_meant_for_others_are_left_alone() {
    let theirs = json!({"id": "theirs", "modelType": "compute", "computeNeeded": 0.0001,
                        "providerId": "somebody-else"});
    let strange = json!({"id": "strange", "modelType": "gpt2"});
    let home = Home::new();
    let backend = legacy(vec![theirs, strange, short("ours")]);
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
    let completion = backend.wait_for("POST /api/jobs/ours/complete", 1).body;
    let last = backend.wait_beats(2);
    assert_eq!(completion["status"], "completed");
    let progress = backend.requests("POST /api/jobs/ours/progress");
    assert!(!progress.is_empty());
    for Request { body, .. } in progress {
        assert_eq!([&body["worker_id"], &body["workerId"]], ["rig-1", "rig-1"]);
    }
    assert_eq!(last.body["status"], "online");
    let calls = backend.calls();
    let about_others =
        calls.iter().filter(|call| call.contains("strange") || call.contains("theirs"));
    assert_eq!(about_others.collect::<Vec<_>>(), [""; 0]);
    worker.stop();
}

#[test]
fn a_busy_worker_names_its_job_in_both_spellings() {
    let home = Home::new();
    let backend = legacy(vec![crate::support::endless("long")]);
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
    let busy = backend.wait("a busy beat in both spellings", |seen| {
        let named = |request: &&Request| request.body["current_job"] == "long";
        seen.iter().find(named).map(|request| request.body.clone())
    });
    let said = ["status", "currentJob", "currentJobs"].map(|key| busy[key].clone());
    assert_eq!(said, [json!("busy"), json!("long"), json!(["long"])]);
    worker.kill();
}
