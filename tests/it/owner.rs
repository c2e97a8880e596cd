//! What the owner sees and says while the agent runs: status, pause and resume.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{BOUND, Backend, Home, Program, Reply, Stream, WORKER, endless, run, short};

const BEAT: &str = "POST /api/providers/*/heartbeat";

fn status(home: &Home) -> (i32, Value) {
    let (code, out, log) = run(&["status", "--json", "--state-dir", &home.path("state")]);
    assert_eq!(log, "");
    (code, serde_json::from_str(&out).unwrap())
}

/// Asks until it says so.
fn wait_status(home: &Home, says: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + BOUND;
    loop {
        let (_, seen) = status(home);
        if says(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "asked for {BOUND:?} in vain: {seen:#}");
    }
}

/// What `worker status` says to people.
fn card(home: &Home) -> String {
    run(&["status", "--state-dir", &home.path("state")]).1
}

fn tell(home: &Home, command: &[&str]) -> String {
    let state = home.path("state");
    let (code, out, log) = run(&[command, &["--state-dir", &state]].concat());
    assert_eq!((code, log.as_str()), (0, ""), "{out}");
    out
}

/// Waits for a beat that says this.
fn wait_beat(backend: &Backend, status: &str, paused: &Value) -> Value {
    backend.wait(&format!("a beat {status} {paused}"), |seen| {
        let last = seen.iter().rev().find(|request| request.is(BEAT))?;
        let fits = last.body["status"] == status && last.body["pausedReason"] == *paused;
        fits.then(|| last.body.clone())
    })
}

#[test]
fn a_pause_takes_no_new_jobs_and_a_resume_beats_at_once() {
    let (home, backend) = (Home::new(), Backend::start());
    // The next beat by itself is minutes away.
    let mut worker = home.worker(&backend.url(), &["--heartbeat-interval", "10m"]);
    backend.wait_for(BEAT, 1);
    let told = tell(&home, &["pause", "--reason", "gaming"]);
    assert!(told.starts_with("paused by its owner: gaming; `worker resume` ends it\n"), "{told}");
    assert!(told.contains("the agent that runs here takes no new jobs"), "{told}");
    wait_beat(&backend, "busy", &json!("paused by its owner: gaming"));
    worker.wait_log("paused by its owner: gaming: no new jobs, what runs goes on");
    backend.offer(&[short("job-1")]);
    assert_eq!(backend.requests("POST /api/jobs/job-1/complete").len(), 0);
    let told = tell(&home, &["resume"]);
    assert_eq!(told, "resumed: the agent that runs here takes jobs again\n");
    backend.wait_for("POST /api/jobs/job-1/complete", 1);
    assert_eq!(tell(&home, &["resume"]), "there was no pause to end\n");
    worker.stop();
}

#[test]
fn a_pause_outlives_a_restart() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[short("job-1")]);
    let told = tell(&home, &["pause", "--for", "1h"]);
    assert!(told.contains("no agent runs here now: the next one starts paused"), "{told}");
    let mode = fs::metadata(home.path("state/pause.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut worker = home.worker(&backend.url(), &[]);
    let first = backend.wait_for(BEAT, 1).body;
    let why = first["pausedReason"].as_str().unwrap_or_default();
    assert!(why.starts_with("paused by its owner, until "), "{first}");
    backend.wait_beats(2);
    assert_eq!(worker.count("job taken"), 0);
    let (_, seen) = status(&home);
    assert_eq!(seen["state"], "paused");
    assert!(seen["pausedUntil"].is_string(), "{seen:#}");
    worker.stop();
}

#[test]
fn a_pause_ends_by_itself() {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = home.worker(&backend.url(), &["--heartbeat-interval", "10m"]);
    backend.wait_for(BEAT, 1);
    worker.wait_log("registered");
    tell(&home, &["pause", "--for", "10s"]);
    worker.wait_log("no new jobs, what runs goes on");
    backend.offer(&[short("job-1")]);
    worker.wait_log("the pause is over: jobs are taken again");
    backend.wait_for("POST /api/jobs/job-1/complete", 1);
    worker.stop();
}

#[test]
fn a_pause_that_cannot_be_read_is_said_and_nothing_is_guessed() {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = home.worker(&backend.url(), &[]);
    backend.wait_for(BEAT, 1);
    home.file("state/pause.json", "paused!", 0o600);
    worker.wait_log("pause.json");
    backend.wait_beats(3);
    assert_eq!(worker.count("pause.json"), 1, "{}", worker.log());
    wait_beat(&backend, "online", &Value::Null);
    worker.stop();
}

#[test]
fn the_status_follows_the_agent_from_its_start_to_its_end() {
    let (home, backend) = (Home::new(), Backend::start());
    assert_eq!(status(&home), (6, json!({"running": false})));
    backend.offer(&[endless("job-1")]);
    let mut worker = home.worker(&backend.url(), &["--worker-id", "rig-1"]);
    backend.wait_for("POST /api/jobs/job-1/progress", 2);
    let (code, seen) = status(&home);
    assert_eq!(code, 0);
    let said = ["running", "state", "registered", "workerId"].map(|key| seen[key].clone());
    assert_eq!(said, [json!(true), json!("busy"), json!(true), json!("rig-1")]);
    assert_eq!([&seen["jobs"][0]["id"], &seen["jobs"][0]["kind"]], ["job-1", "compute"]);
    assert_eq!(seen["backend"], backend.url());
    assert!(seen["machine"]["cpuCores"].as_u64() > Some(0) && seen["usage"].is_object());
    let card = card(&home);
    assert!(card.starts_with("state      busy: job-1 compute, "), "{card}");
    let mode = fs::metadata(home.path("state/status.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    worker.signal(rustix::process::Signal::QUIT);
    assert_eq!(worker.wait(), 0);
    let (code, seen) = status(&home);
    let said = ["running", "state", "jobs"].map(|key| seen[key].clone());
    assert_eq!((code, said), (6, [json!(false), json!("stopped"), json!([])]));
}

#[test]
fn an_agent_that_was_killed_is_not_taken_for_a_running_one() {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = home.worker(&backend.url(), &[]);
    backend.wait_for(BEAT, 2);
    worker.kill();
    let (code, seen) = status(&home);
    assert_eq!((code, &seen["running"], &seen["state"]), (6, &json!(false), &json!("stopped")));
    let card = card(&home);
    assert!(card.starts_with("state      not running; last seen "), "{card}");
    assert!(card.contains("it ended without a word"), "{card}");
}

#[test]
fn everybody_may_see_a_service_but_not_what_its_jobs_say() {
    let (home, backend) = (Home::new(), Backend::start());
    let public = home.path("run");
    fs::create_dir(&public).unwrap();
    backend.offer(&[endless("job-1")]);
    let env = [("RUNTIME_DIRECTORY", public.as_str())];
    let mut worker = home.worker_with(&backend.url(), &[], &env);
    backend.wait_for("POST /api/jobs/job-1/progress", 2);
    let shown = fs::metadata(home.path("run/status.json")).unwrap();
    assert_eq!(shown.permissions().mode() & 0o777, 0o644);
    // Somebody with no state of their own.
    let other = home.path("home");
    let env = [("RUNTIME_DIRECTORY", public.as_str()), ("HOME", other.as_str())];
    let mut asking = Program::start_at(WORKER, &["status", "--json"], &env);
    assert_eq!(asking.wait(), 0, "{}", asking.log());
    let seen: Value = serde_json::from_str(&asking.text(Stream::Out)).unwrap();
    assert_eq!([&seen["jobs"][0]["id"], &seen["jobs"][0]["operation"]], ["job-1", ""]);
    let refused = || {
        let mut asking = Program::start_at(WORKER, &["pause"], &env);
        assert_eq!(asking.wait(), 4);
        assert!(asking.log().contains("sudo worker pause --state-dir"), "{}", asking.log());
    };
    refused();
    // Left from a try before there was a service: a pause there would pause nobody.
    fs::create_dir_all(home.path("home/.local/state/qubix-worker")).unwrap();
    refused();
    worker.signal(rustix::process::Signal::QUIT);
    assert_eq!(worker.wait(), 0);
    let mut asking = Program::start_at(WORKER, &["status"], &env);
    assert_eq!(asking.wait(), 6);
}

#[test]
fn a_service_is_seen_to_run_however_long_its_backend_is_away() {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = home.worker(&backend.url(), &[]);
    backend.wait_for(BEAT, 1);
    // It asks again in minutes.
    backend.always(BEAT, Reply::json(403, r#"{"success":false,"error":"go away"}"#));
    let first = wait_status(&home, |seen| seen["state"] == "unreachable");
    let later = wait_status(&home, |seen| seen["at"] != first["at"]);
    assert_eq!(later["sinceStart"], first["sinceStart"], "nothing was tried meanwhile");
    worker.kill();
}

#[test]
fn a_status_that_somebody_has_tampered_with_is_read_by_nobody() {
    let home = Home::new();
    let state = home.path("state");
    home.file("state/elsewhere", "{}", 0o600);
    let file = home.path("state/status.json");
    std::os::unix::fs::symlink(home.path("state/elsewhere"), &file).unwrap();
    let refused = |file: &str| {
        let (code, out, log) = run(&["status", "--state-dir", &state]);
        assert_eq!((code, out.as_str()), (4, ""), "{log}");
        assert!(log.contains(file), "{log}");
    };
    refused("status.json");
    fs::remove_file(&file).unwrap();
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    refused("status.json");
}

#[test]
fn a_pause_too_long_to_be_written_has_no_end() {
    let home = Home::new();
    let told = tell(&home, &["pause", "--for", "20000y"]);
    assert!(told.starts_with("paused by its owner; `worker resume` ends it\n"), "{told}");
}

#[test]
fn a_status_of_a_newer_form_is_refused_with_words() {
    let home = Home::new();
    home.file("state/status.json", r#"{"format":2,"state":"dancing"}"#, 0o600);
    let (code, _, log) = run(&["status", "--state-dir", &home.path("state")]);
    assert_eq!(code, 4);
    assert!(log.contains("a newer version of this program wrote it (format 2)"), "{log}");
}
