//! The backend over a real socket: what the books do is tested there, here that requests reach them and fail on order.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
};

use super::{faults::Target, *};

const FAR: Duration = Duration::from_secs(10);

fn backend(faults: &[&str]) -> Backend {
    let faults = faults.iter().map(|spec| spec.parse().unwrap()).collect();
    start(Options { faults, ..Options::default() })
}

fn start(options: Options) -> Backend {
    let backend = Backend::start(([127, 0, 0, 1], 0).into(), options).unwrap();
    let registered = ask(&backend, "POST", "/api/providers/register", r#"{"worker_id":"w"}"#);
    // Where faults or a token are in the way, the test registers by itself.
    log::debug!("registered reply={registered:?}");
    backend
}

fn raw(backend: &Backend, request: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(backend.url().trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(FAR))?;
    stream.write_all(request.as_bytes())?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

fn parsed(reply: &str) -> (u16, Value) {
    let status = reply.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = reply.split_once("\r\n\r\n").unwrap();
    (status, serde_json::from_str(body).unwrap())
}

fn ask(backend: &Backend, method: &str, path: &str, body: &str) -> io::Result<(u16, Value)> {
    raw(backend, &request(method, path, "", body)).map(|reply| parsed(&reply))
}

fn answer(backend: &Backend, method: &str, path: &str, body: &str) -> (u16, Value) {
    ask(backend, method, path, body).unwrap()
}

const BEAT: &str = r#"{"workerId":"w","status":"online"}"#;
const DONE: &str = r#"{"workerId":"w","status":"completed","result":{"a":1}}"#;

fn beats(backend: &Backend) -> u64 {
    let (_, providers) = answer(backend, "GET", "/api/providers", "");
    let providers = providers.get("providers").unwrap_or(&providers);
    providers[0]["beats"].as_u64().unwrap()
}

fn beat(backend: &Backend) -> io::Result<(u16, Value)> {
    ask(backend, "POST", "/api/providers/w/heartbeat", BEAT)
}

#[test]
fn a_job_goes_all_the_way_over_the_wire() {
    let backend = backend(&[]);
    let (status, reply) =
        answer(&backend, "POST", "/api/jobs/submit", r#"{"id":"a b","modelType":"training"}"#);
    assert_eq!((status, &reply["job"]["status"]), (201, &json!("PENDING")));
    assert_eq!(beat(&backend).unwrap().1["pendingJobs"][0]["id"], json!("a b"));
    let progress = r#"{"workerId":"w","progress":42}"#;
    assert_eq!(
        answer(&backend, "POST", "/api/jobs/a%20b/progress", progress),
        (200, json!({ "success": true }))
    );
    let complete =
        request("POST", "/api/jobs/a%20b/complete", "Idempotency-Key: w:a b:1\r\n", DONE);
    for expect in [json!({ "success": true }), json!({ "success": true, "duplicate": true })] {
        assert_eq!(parsed(&raw(&backend, &complete).unwrap()), (200, expect));
    }
    let (_, job) = answer(&backend, "GET", "/api/jobs/a%20b", "");
    assert_eq!(
        (&job["status"], &job["completions"], &job["duplicates"]),
        (&json!("COMPLETED"), &json!(1), &json!(1))
    );
    assert_eq!(job["progressHistory"], json!([42]));
    assert_eq!(backend.jobs()[0].status, Status::Completed);
    assert_eq!(beats(&backend), 1);
}

#[test]
fn what_is_not_there_or_not_json_is_refused_in_json() {
    let backend = backend(&[]);
    let refused = |error: &str| json!({ "success": false, "error": error });
    assert_eq!(answer(&backend, "GET", "/nowhere?a", ""), (404, refused("no route GET /nowhere")));
    assert_eq!(answer(&backend, "GET", "/api/jobs/x", ""), (404, refused("Job not found")));
    let (status, reply) = answer(&backend, "POST", "/api/jobs/submit", "{");
    assert_eq!(
        (status, reply),
        (400, refused("body is not JSON: EOF while parsing an object at line 1 column 1"))
    );
    assert_eq!(answer(&backend, "GET", "/health", ""), (200, json!({ "status": "ok" })));
}

#[test]
fn a_backend_with_a_token_answers_only_its_bearers() {
    let backend = start(Options { token: Some("secret".to_owned()), ..Options::default() });
    let unauthorized = (401, json!({ "success": false, "error": "Unauthorized" }));
    assert_eq!(answer(&backend, "GET", "/api/jobs", ""), unauthorized);
    let with = |value: &str| {
        let reply =
            raw(&backend, &request("GET", "/api/jobs", &format!("Authorization: {value}\r\n"), ""));
        reply.unwrap().split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(with("Bearer secre"), "401");
    assert_eq!(with("Basic secret"), "401");
    assert_eq!(with("Bearer secret"), "200");
    assert_eq!(answer(&backend, "GET", "/health", ""), (200, json!({ "status": "ok" })));
}

#[test]
fn a_refused_request_does_nothing_and_a_lost_one_does_everything_but_answer() {
    let backend = backend(&["heartbeat@1=refuse", "heartbeat@2=lost"]);
    assert_eq!(beat(&backend).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(beats(&backend), 0);
    assert_eq!(beat(&backend).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(beats(&backend), 1);
    assert_eq!(beat(&backend).unwrap().0, 200);
}

#[test]
fn a_reset_answer_is_cut_in_its_body() {
    let backend = backend(&["heartbeat=reset"]);
    let reply = raw(&backend, &request("POST", "/api/providers/w/heartbeat", "", BEAT)).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Content-Length: 33"), "{head}");
    assert_eq!(body.len(), 16);
}

#[test]
fn canned_answers_reach_the_client() {
    let backend =
        backend(&["heartbeat@1=503:7", "heartbeat@2=html", "heartbeat@3=deep", "heartbeat@4=huge"]);
    let request = request("POST", "/api/providers/w/heartbeat", "", BEAT);
    let next = || raw(&backend, &request).unwrap();
    let unavailable = next();
    assert!(
        unavailable.starts_with("HTTP/1.1 503 ") && unavailable.contains("\r\nRetry-After: 7\r\n")
    );
    assert!(next().contains("Content-Type: text/html"));
    assert!(next().contains("[[[["));
    assert!(next().len() > 64 * 1024 * 1024);
    assert_eq!(beats(&backend), 0);
}

#[test]
fn a_duplicate_beat_offers_a_job_twice() {
    let backend = backend(&["heartbeat=duplicate"]);
    backend.submit(json!({ "id": "a" })).unwrap();
    let (_, reply) = beat(&backend).unwrap();
    assert_eq!(reply["pendingJobs"].as_array().unwrap().len(), 2);
}

/// Submits the jobs with even or odd numbers, each when the one before has been seen.
fn take_turns(backend: &Backend, parity: usize) {
    let mut seen = 0;
    loop {
        seen = backend.wait_change(seen, Duration::ZERO);
        match backend.jobs().len() {
            100.. => return,
            count if count % 2 == parity => drop(backend.submit(json!({})).unwrap()),
            _ => drop(backend.wait_change(seen, FAR)),
        }
    }
}

#[test]
fn two_watchers_that_wait_for_each_other_are_woken_by_the_change_and_not_by_the_time() {
    let backend = backend(&[]);
    let before = clock::since_boot();
    thread::scope(|scope| {
        scope.spawn(|| take_turns(&backend, 0));
        scope.spawn(|| take_turns(&backend, 1));
    });
    assert!(clock::since_boot() - before < FAR);
    let seen = backend.wait_change(0, FAR);
    assert_eq!(backend.wait_change(seen, Duration::ZERO), seen);
}

#[test]
fn dropping_the_backend_cuts_a_delay_short() {
    let backend = backend(&["heartbeat=delay:1h"]);
    let mut stream = TcpStream::connect(backend.url().trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(FAR)).unwrap();
    let request = request("POST", "/api/providers/w/heartbeat", "", BEAT);
    stream.write_all(request.as_bytes()).unwrap();
    let before = clock::since_boot();
    while !backend.shared.lock().faults.seen.contains_key(&Target::Heartbeat) {
        assert!(clock::since_boot() - before < FAR, "the request never came");
        thread::yield_now();
    }
    drop(backend);
    // Which thread is faster decides whether it still gets an answer or the end, but it gets no time-out.
    let end = stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
    assert!(matches!(end, Ok(_) | Err(ErrorKind::ConnectionReset)), "{end:?}");
}
