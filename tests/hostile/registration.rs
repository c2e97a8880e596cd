//! Something answers the registration that is not the backend, or a backend that means harm.

use serde_json::json;

use crate::support::{Backend, Home, Program, Reply, endless, short};

const REGISTER: &str = "POST /api/providers/register";
const BEAT: &str = "POST /api/providers/*/heartbeat";

struct Started {
    what: String,
    _home: Home,
    backend: Backend,
    worker: Program,
}

/// Starts a worker whose first registration is answered so, and the next ones well.
fn start(what: String, reply: Reply, more: &[&str]) -> Started {
    let (home, backend) = (Home::new(), Backend::start());
    backend.next(REGISTER, [reply]);
    let worker = home.worker(&backend.url(), more);
    Started { what, _home: home, backend, worker }
}

fn moved(status: u16, to: &str) -> Reply {
    let head = format!("HTTP/1.1 {status} \r\nContent-Length: 0\r\nConnection: close\r\n");
    Reply::Raw(format!("{head}Location: {to}\r\n\r\n").into_bytes())
}

#[test]
fn at_the_first_registration_no_answer_but_the_backends_own_ends_the_worker() {
    let json = r#"{"error":"Not found"}"#;
    let elsewhere = r#"{"error":"moved","redirect":"https://evil.example/api/providers"}"#;
    let mut bad: Vec<(String, Reply)> = vec![];
    for status in [301, 302, 308, 404, 405, 410, 503, 200] {
        bad.push((format!("{status} html"), Reply::html(status)));
    }
    for status in [301, 404, 405] {
        bad.push((format!("{status} without a body"), Reply::json(status, "")));
        bad.push((format!("{status} json"), Reply::json(status, json)));
    }
    bad.push(("308 json".into(), Reply::json(308, elsewhere)));
    bad.push(("400 html".into(), Reply::html(400)));
    let started = bad.into_iter().map(|(what, reply)| start(what, reply, &[]));
    // All at once: each waits a while before it tries again.
    let mut started: Vec<Started> = started.collect();
    for one in &mut started {
        one.backend.wait(&format!("a heartbeat after {}", one.what), |seen| {
            seen.iter().any(|request| request.is(BEAT)).then_some(())
        });
        assert_eq!(one.backend.requests(REGISTER).len(), 2, "{}", one.what);
        one.worker.stop();
    }
}

#[test]
fn a_page_that_refuses_us_is_not_the_backend_either() {
    let started = [401, 403].map(|status| start(format!("{status}"), Reply::html(status), &[]));
    for mut one in started {
        one.worker.wait_log("backend refuses our credentials, trying on every 5 min");
        one.worker.stop();
    }
}

#[test]
fn a_registration_is_followed_nowhere_else_and_neither_is_its_token() {
    let other = Backend::start();
    let token = Home::new();
    let token = token.file("token", "secret-of-ours", 0o600);
    let away = format!("{}/api/providers/register", other.url());
    let mut bad = vec![];
    for to in [away.as_str(), "file:///etc/passwd", "//evil.example/", "http://\u{1b}[31m/", ""] {
        bad.push((format!("308 to {to:?}"), moved(308, to)));
    }
    for status in [301, 302, 303, 307] {
        bad.push((format!("{status} to {away}"), moved(status, &away)));
    }
    let start = |(what, reply)| start(what, reply, &["--token-file", &token]);
    let mut started: Vec<Started> = bad.into_iter().map(start).collect();
    for one in &mut started {
        one.backend.wait(&format!("a heartbeat after {}", one.what), |seen| {
            seen.iter().any(|request| request.is(BEAT)).then_some(())
        });
        one.worker.stop();
        let log = one.worker.log();
        assert!(!log.contains("secret-of-ours") && !log.contains('\u{1b}'), "{log}");
    }
    assert_eq!(other.calls(), [""; 0]);
}

#[test]
fn a_later_registration_that_goes_wrong_leaves_the_running_job_alone() {
    let unknown = Reply::json(404, r#"{"success":false,"error":"Provider not found"}"#);
    let json = r#"{"error":"Not found"}"#;
    for (what, reply) in [
        ("404 json", Reply::json(404, json)),
        ("404 html", Reply::html(404)),
        ("301 html", Reply::html(301)),
        ("405 html", Reply::html(405)),
        ("403 html", Reply::html(403)),
    ] {
        let (home, backend) = (Home::new(), Backend::start());
        backend.offer(&[endless("long")]);
        let mut worker = home.worker(&backend.url(), &[]);
        worker.wait_log("job taken job=long");
        backend.next(REGISTER, [reply]);
        backend.next(BEAT, [unknown.clone()]);
        let registered = backend.wait_for(REGISTER, 2);
        assert_eq!(registered.call, REGISTER, "{what}");
        if what != "403 html" {
            let beat = backend.wait("a beat with the job after the third registration", |seen| {
                let third = seen.iter().filter(|request| request.is(REGISTER)).count() >= 3;
                seen.last().filter(|last| third && last.is(BEAT)).cloned()
            });
            assert_eq!(beat.body["currentJob"], "long", "{what}");
        }
        assert!(worker.is_running(), "{what}");
        worker.kill();
        assert_eq!(backend.requests("POST /api/jobs/*/complete").len(), 0, "{what}");
    }
}

#[test]
fn an_odd_answer_to_a_registration_is_none_of_the_jobs_business() {
    let long = json!({"success": true, "provider": {"id": "x".repeat(1 << 20)}}).to_string();
    let large = format!(r#"{{"success":true,"provider":[{}0]}}"#, "0,".repeat(1_000_000));
    let odd = [
        r#"{"success":true}"#,
        r#"{"success":true,"provider":null}"#,
        r#"{"success":true,"provider":{"id":17}}"#,
        r#"{"success":true,"provider":{"id":{"a":1}}}"#,
        r#"{"success":true,"provider":{"id":"../../\u0000"}}"#,
        r#"{"success":true,"provider":{"id":"p","id":"q"}}"#,
        r#"{"success":true,"provider":"x"}"#,
        r#"{"success":"yes"}"#,
        "{}",
        &long,
        &large,
    ];
    let started = odd.map(|odd| start(odd.chars().take(60).collect(), Reply::json(200, odd), &[]));
    for mut one in started {
        one.backend.offer(&[short("good")]);
        let done = one.backend.wait_for("POST /api/jobs/good/complete", 1);
        assert_eq!(done.body["status"], "completed", "{}", one.what);
        one.worker.stop();
    }
}
