//! Tokens: sent, kept secret, refused.

use crate::support::{Backend, Home, Reply};

const REGISTER: &str = "POST /api/providers/register";

#[test]
fn the_token_goes_with_every_request_and_never_into_the_log() {
    let (home, backend) = (Home::new(), Backend::start());
    let token = home.file("token", "s3cr3t-t0ken\n", 0o600);
    backend.offer(&[crate::support::short("job-1")]);
    let mut worker = home.worker(&backend.url(), &["--token-file", &token, "--once", "-v"]);
    assert_eq!(worker.wait(), 0);
    for request in backend.requests("*/api/*/*/*").iter().chain(&backend.requests("*/api/*/*")) {
        assert_eq!(request.header("authorization"), Some("Bearer s3cr3t-t0ken"), "{request:?}");
    }
    let log = worker.log();
    assert!(log.contains("DEBUG"), "it was asked to be verbose: {log}");
    assert!(!log.contains("s3cr3t"), "{log}");
}

#[test]
fn a_token_that_others_can_read_is_refused_with_the_fix() {
    let (home, backend) = (Home::new(), Backend::start());
    let token = home.file("token", "s3cr3t-t0ken\n", 0o644);
    let mut worker = home.worker(&backend.url(), &["--token-file", &token]);
    assert_eq!(worker.wait(), 2);
    let log = worker.log();
    assert!(log.contains(&format!("mode 0644 lets others read it: chmod 600 {token}")), "{log}");
    assert!(!log.contains("s3cr3t"), "{log}");
    assert_eq!(backend.calls(), [""; 0]);
}

#[test]
fn a_backend_that_refuses_our_first_registration_ends_the_run_with_what_to_check() {
    for status in [401, 403] {
        let (home, backend) = (Home::new(), Backend::start());
        let reply = Reply::json(status, r#"{"success":false,"error":"Unauthorized"}"#);
        backend.always(REGISTER, reply);
        let mut worker = home.worker(&backend.url(), &[]);
        assert_eq!(worker.wait(), 3, "{status}");
        let log = worker.log();
        assert!(log.contains("--token-file") && log.contains("Unauthorized"), "{log}");
        assert_eq!(backend.calls(), [REGISTER]);
    }
}

#[test]
fn a_page_that_refuses_us_is_not_the_backend_and_is_tried_again() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.next(REGISTER, [Reply::html(401)]);
    let mut worker = home.worker(&backend.url(), &[]);
    let line = worker.wait_log("refuses our credentials");
    assert!(line.contains("trying on every 5 min") && line.contains("ERROR"), "{line}");
    assert!(worker.is_running());
    worker.stop();
}

#[test]
fn credentials_refused_later_do_not_end_the_run() {
    let (home, backend) = (Home::new(), Backend::start());
    let refusal = Reply::json(401, r#"{"success":false,"error":"Token expired"}"#);
    let good = Reply::json(200, r#"{"success":true,"pendingJobs":[]}"#);
    backend.next("POST /api/providers/*/heartbeat", [good, refusal]);
    let mut worker = home.worker(&backend.url(), &[]);
    let line = worker.wait_log("refuses our credentials");
    assert!(line.contains("trying on every 5 min") && line.contains("Token expired"), "{line}");
    worker.stop();
}
