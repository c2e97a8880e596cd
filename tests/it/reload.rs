//! HUP: the settings are read again while jobs run.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Backend, Home, Program, endless};

const REGISTER: &str = "POST /api/providers/register";
const BEAT: &str = "POST /api/providers/*/heartbeat";

fn configured(home: &Home, backend: &Backend, settings: &str) -> Program {
    let file = home.file("worker.toml", settings, 0o600);
    let worker = home.worker(&backend.url(), &["--config", &file]);
    backend.wait_for(BEAT, 1);
    worker
}

fn hang_up(home: &Home, worker: &Program, settings: &str) {
    home.file("worker.toml", settings, 0o600);
    worker.signal(Signal::HUP);
}

#[test]
fn a_new_price_is_registered_and_the_running_job_goes_on() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[endless("job-1")]);
    let mut worker = configured(&home, &backend, "price = 2.5\n");
    backend.wait_for("POST /api/jobs/job-1/progress", 1);
    let child = worker.children();
    hang_up(&home, &worker, "price = 3.5\nslots = 2\nname = \"Rig\"\n");
    let body = backend.wait_for(REGISTER, 2).body;
    assert_eq!([&body["pricePerHour"], &body["name"]], [&json!(3.5), &json!("Rig")]);
    assert_eq!(body["specs"]["slots"], 2);
    worker.wait_log("settings read again: name, price, slots");
    let beat = backend.wait_beats(2).body;
    let said = ["status", "currentJob"].map(|key| beat[key].clone());
    assert_eq!(said, [json!("online"), json!("job-1")], "the new slot is free");
    assert_eq!(worker.children(), child, "the job's program is the same");
    worker.signal(Signal::QUIT);
    assert_eq!(worker.wait(), 0);
}

#[test]
fn a_job_earns_by_the_price_at_which_it_was_taken_across_reloads_and_restarts() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[endless("job-1")]);
    let mut worker = configured(&home, &backend, "price = 2.5\n");
    backend.wait_for("POST /api/jobs/job-1/progress", 1);
    hang_up(&home, &worker, "price = 3.5\n");
    backend.wait_for(REGISTER, 2);
    worker.kill();
    let mut worker = configured(&home, &backend, "price = 4.5\n");
    backend.wait_for("POST /api/jobs/job-1/complete", 1);
    worker.stop();
    let booked = home.ledger();
    assert_eq!([&booked[0]["id"], &booked[0]["price"]], [&json!("job-1"), &json!(2.5)]);
}

#[test]
fn a_broken_file_is_refused_with_all_its_problems_and_the_old_settings_go_on() {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = configured(&home, &backend, "price = 2.5\n");
    hang_up(&home, &worker, "price = \"free\"\nslotz = 2\n");
    let line = worker.wait_log("settings not taken over, the old ones go on");
    for problem in ["is no price", "slotz", "did you mean slots", "worker.toml:2"] {
        assert!(line.contains(problem), "{problem}: {line}");
    }
    backend.wait_beats(2);
    assert_eq!(backend.requests(REGISTER).len(), 1, "nothing has changed");
    hang_up(&home, &worker, "price = 4\n");
    assert_eq!(backend.wait_for(REGISTER, 2).body["pricePerHour"], 4.0);
    worker.stop();
}

#[test]
fn a_new_token_is_used_and_one_that_others_can_read_is_refused() {
    let (home, backend) = (Home::new(), Backend::start());
    let token = home.file("token", "first-token\n", 0o600);
    let settings = format!("token-file = {token:?}\n");
    let mut worker = configured(&home, &backend, &settings);
    home.file("token", "second-token\n", 0o600);
    worker.signal(Signal::HUP);
    worker.wait_log("settings read again: token");
    let beat = backend.wait_beats(2);
    assert_eq!(beat.header("authorization"), Some("Bearer second-token"));
    home.file("token", "third-token\n", 0o644);
    worker.signal(Signal::HUP);
    worker.wait_log("mode 0644 lets others read it");
    let beat = backend.wait_beats(2);
    assert_eq!(beat.header("authorization"), Some("Bearer second-token"));
    worker.stop();
    assert!(!worker.log().contains("second-token"), "{}", worker.log());
}

#[test]
fn what_cannot_change_while_it_runs_is_said() {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = configured(&home, &backend, "");
    hang_up(&home, &worker, "worker-id = \"other\"\nrequest-timeout = \"20s\"\n");
    worker.wait_log("takes effect at the next start: request-timeout, worker-id");
    backend.wait_beats(1);
    assert_eq!(backend.requests(REGISTER).len(), 1);
    worker.stop();
}
