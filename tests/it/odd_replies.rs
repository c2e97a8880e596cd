//! Replies that no backend should send: the worker lives on, and says each oddity once.

use serde_json::json;

use crate::support::{Backend, Home, Program, Reply, short};

const BEAT: &str = "POST /api/providers/*/heartbeat";
const GOOD: &str = r#"{"success":true,"pendingJobs":[]}"#;

/// Runs through the replies to its heartbeats; then the worker must still take and finish a job.
fn outlive(home: &Home, backend: &Backend, replies: Vec<Reply>) -> Program {
    backend.offer(&[short("good")]);
    backend.next(BEAT, replies);
    let mut worker = home.worker(&backend.url(), &[]);
    let completion = backend.wait_for("POST /api/jobs/good/complete", 1);
    assert_eq!(completion.body["status"], "completed");
    worker.stop();
    worker
}

#[test]
fn replies_that_cannot_be_read_are_survived() {
    for (reply, said) in [
        (Reply::html(200), "an HTML page instead of JSON (a captive portal or a proxy?)"),
        (
            Reply::json(200, r#"{"success":true,"pendingJobs":[{"id":"#),
            "no JSON object (ended in the middle)",
        ),
        (Reply::json(200, "x".repeat(1 << 20)), "no JSON object (expected an object): xxx"),
        (Reply::json(200, r#"[1,2,3]"#), "no JSON object (it is a list): [1,2,3]"),
    ] {
        let (home, backend) = (Home::new(), Backend::start());
        let worker = outlive(&home, &backend, vec![reply.clone(), reply]);
        assert_eq!(worker.count(said), 1, "{said}");
        assert_eq!(worker.count("backend in trouble, trying on"), 1, "{said}");
        assert_eq!(worker.count("backend back after"), 1, "{said}");
    }
}

#[test]
fn fields_that_cannot_be_read_spoil_nothing_else() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let replies = [
        format!(r#"{{"success":true,"pendingJobs":{deep}}}"#),
        r#"{"success":true,"pendingJobs":[],"heartbeatIntervalMs":1e999}"#.to_owned(),
        r#"{"success":true,"pendingJobs":[],"heartbeatIntervalMs":"x"}"#.to_owned(),
        r#"{"success":true,"pendingJobs":[],"heartbeatIntervalMs":-5}"#.to_owned(),
        r#"{"success":true,"pendingJobs":"x"}"#.to_owned(),
        r#"{"success":true,"pendingJobs":[],"cancelJobs":{"a":1}}"#.to_owned(),
    ];
    let twice = replies.iter().flat_map(|reply| [reply, reply]);
    let replies = twice.map(|reply| Reply::json(200, reply.as_str())).collect();
    let (home, backend) = (Home::new(), Backend::start());
    let worker = outlive(&home, &backend, replies);
    for said in [
        "job skipped: it has no id: [[[",
        "its heartbeatIntervalMs cannot be read (number out of range",
        "its heartbeatIntervalMs cannot be read (invalid type: string",
        "its heartbeatIntervalMs -5 is not between 5000 and 600000",
        "its pendingJobs cannot be read (invalid type: string",
        "its cancelJobs cannot be read (invalid type: map",
    ] {
        assert_eq!(worker.count(said), 1, "{said}");
    }
    assert_eq!(worker.count("WARN"), 6, "nothing else was said");
    assert_eq!(backend.requests("POST /api/providers/register").len(), 1);
}

#[test]
fn a_reply_that_says_no_success_is_a_failed_beat() {
    let (home, backend) = (Home::new(), Backend::start());
    let no = r#"{"success":false,"error":"maintenance"}"#;
    let worker = outlive(&home, &backend, vec![Reply::json(200, GOOD), Reply::json(200, no)]);
    assert_eq!(worker.count("says success: false: maintenance"), 1);
}

#[test]
fn an_odd_cancel_list_still_cancels_what_it_names() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.answer(BEAT, |seen| {
        let taken = seen.iter().any(|request| request.body["currentJob"] == "long");
        let reply = if taken {
            json!({"success": true, "pendingJobs": [], "cancelJobs": [7, null, "../..", "long"]})
        } else {
            json!({"success": true, "pendingJobs": [crate::support::endless("long")]})
        };
        Some(Reply::json(200, reply.to_string()))
    });
    let mut worker = home.worker(&backend.url(), &[]);
    worker.wait_log("job cancelled by the backend job=long");
    worker.stop();
    assert_eq!(backend.requests("POST /api/jobs/*/complete").len(), 0);
}
