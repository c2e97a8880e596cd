//! Jobs that cannot or must not be run.

use serde_json::{Value, json};

use crate::support::{Backend, Home, Reply, open_jobs, short};

const BEAT: &str = "POST /api/providers/*/heartbeat";

/// A job as the real backend sends it, of a kind that a worker runs only where it is allowed.
const SCRIPT: &str = r#"{"id":"ee7f46ed-ec74-4526-b000-ae9778910935","userId":"consumer-c",
    "providerId":"e8124ecb-0b34-4eff-a0b5-2b398b12d38a","jobType":"custom_script",
    "framework":"pytorch","fileName":"a.py","fileUrl":"","modelType":"custom","computeNeeded":0.1,
    "inputData":{"script":"print(1)"},"requiredVRAM":8,"requiredCompute":10,"requiredRAM":16,
    "advancedConfig":{"entryPoint":"python a.py","dockerImage":"python:3.11","maxDuration":24,
    "environmentVars":{"K":"V"},"outputDestination":"local"},"status":"ASSIGNED","progress":0,
    "currentOperation":null,"result":null,"error":null,"estimatedCost":10,
    "createdAt":"2026-11-21T09:56:58.086Z","startedAt":null}"#;

#[test]
fn jobs_that_cannot_be_answered_are_skipped_with_one_line_each() {
    let long = "x".repeat(10_000);
    let bad = [
        format!(r#"{{"id":"{long}","modelType":"compute"}}"#),
        r#"{"id":"../../etc","modelType":"compute"}"#.to_owned(),
        r#"{"id":"a\u0000b","modelType":"compute"}"#.to_owned(),
        r#"{"modelType":"compute"}"#.to_owned(),
    ];
    let (home, backend) = (Home::new(), Backend::start());
    backend.answer(BEAT, move |seen| {
        let good =
            open_jobs(&[short("good")], seen).iter().map(Value::to_string).collect::<Vec<_>>();
        let jobs = [&bad[..], &good[..]].concat().join(",");
        Some(Reply::json(200, format!(r#"{{"success":true,"pendingJobs":[{jobs}]}}"#)))
    });
    let mut worker = home.worker(&backend.url(), &[]);
    let completion = backend.wait_for("POST /api/jobs/good/complete", 1);
    assert_eq!(completion.body["status"], "completed");
    backend.wait_beats(2);
    worker.stop();
    for said in [
        "job skipped: it has an invalid id: \"xxx",
        "job skipped: it has an invalid id: ../../etc",
        "job skipped: it has an invalid id: ab",
        "job skipped: it has no id",
    ] {
        assert_eq!(worker.count(said), 1, "{said}");
    }
    assert_eq!(worker.count("job skipped"), 4);
    assert!(worker.log().lines().all(|line| line.len() < 500), "lines are bounded");
    let calls = backend.calls();
    let about = calls.iter().filter(|call| call.contains("/api/jobs/") && !call.contains("/good"));
    assert_eq!(about.collect::<Vec<_>>(), [""; 0]);
}

/// Offers the job, and returns the completion that it is answered with.
fn declined(job: &Value) -> Value {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(std::slice::from_ref(job));
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
    let mut request = backend.wait_for("POST /api/jobs/*/complete", 1);
    backend.wait_beats(1);
    worker.stop();
    let id = job["id"].as_str().unwrap();
    assert_eq!(request.header("idempotency-key"), Some(format!("rig-1:{id}:1").as_str()));
    assert_eq!(backend.requests("POST /api/jobs/*/progress").len(), 0, "it was never run");
    let booked: Vec<Value> = home.ledger().iter().map(|line| line["status"].clone()).collect();
    assert_eq!(booked, ["declined"]);
    let timestamp = request.body.as_object_mut().unwrap().remove("timestamp");
    assert!(timestamp.is_some_and(|timestamp| timestamp.is_string()));
    request.body
}

/// The whole completion of a declined job, but for its timestamp.
fn decline(code: &str, reason: &str) -> Value {
    json!({
        "workerId": "rig-1", "status": "failed", "error": format!("declined: {reason}"),
        "errorDetails": {"stage": "accept", "reason": "declined", "blame": "job", "log": []},
        "result": {"declined": true, "code": code, "reason": reason},
        "metrics": {},
    })
}

#[test]
fn an_unknown_kind_is_declined() {
    let reason =
        "this worker has no job kind 'gpt2'; it runs training, inference, fine-tuning, compute";
    let job = json!({"id": "job-1", "modelType": "gpt2"});
    assert_eq!(declined(&job), decline("unknown_kind", reason));
}

#[test]
fn a_kind_that_is_not_allowed_is_declined() {
    let reason =
        "this worker takes no script jobs; it runs training, inference, fine-tuning, compute";
    assert_eq!(declined(&serde_json::from_str(SCRIPT).unwrap()), decline("not_allowed", reason));
}

#[test]
fn an_amount_that_is_none_is_declined() {
    for (amount, code, reason) in [
        (json!(-1), "bad_input", "computeNeeded is -1, but must be a number above 0"),
        (json!("two"), "bad_input", "computeNeeded is \"two\", but must be a number above 0"),
        (json!(1e308), "too_large", "computeNeeded is 1e+308, the most is 1000000"),
    ] {
        let job = json!({"id": "job-1", "modelType": "compute", "computeNeeded": amount});
        assert_eq!(declined(&job), decline(code, reason));
    }
}
