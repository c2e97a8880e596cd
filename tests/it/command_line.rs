//! The command line: a contract that scripts and units depend on.

use serde_json::Value;

use crate::support::{BOUND, Backend, Home, Program, Stream, WORKER, has_null, run};

#[test]
fn a_url_that_cannot_be_used_is_refused_with_the_fix() {
    for (url, fix) in [
        ("127.0.0.1:3001", "has no scheme: did you mean http://127.0.0.1:3001?"),
        ("ftp://market.example", "is not an http(s) URL: write http:// or https://"),
        ("http://me:hunter2@market.example", "put the token into a file and give --token-file"),
    ] {
        let (code, _, log) = run(&["--backend", url]);
        assert_eq!(code, 2, "{url}");
        assert!(log.contains(fix), "{url}: {log}");
        assert!(!log.contains("hunter2"), "{log}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let (code, _, log) = run(&["--slots", "0", "--price", "free", "--heartbeat-interval", "1"]);
    assert_eq!(code, 2);
    for key in ["--slots", "--price", "--heartbeat-interval"] {
        assert!(log.contains(key), "{key}: {log}");
    }
}

#[test]
fn a_key_that_does_not_exist_is_told_with_its_place_and_the_nearest() {
    let home = Home::new();
    let file = home.file("worker.toml", "price = 2.5\n\nslotz = 2\n", 0o644);
    let (code, _, log) = run(&["--backend", "http://127.0.0.1:1", "--config", &file]);
    assert_eq!(code, 2);
    let told = format!("{file}:3: slotz: there is no such key; did you mean slots?");
    assert!(log.contains(&told), "{log}");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let (home, backend) = (Home::new(), Backend::start());
    let file =
        home.file("worker.toml", "name = \"file\"\nlocation = \"file\"\nprice = 3.0\n", 0o644);
    let (state, url) = (home.path("state"), backend.url());
    let args = ["--config", &file, "--state-dir", &state, "--backend", &url, "--name", "flag"];
    let env = [("WORKER_NAME", "environment"), ("WORKER_LOCATION", "environment")];
    let mut worker = Program::start_at(WORKER, &args, &env);
    let body = backend.wait_for("POST /api/providers/register", 1).body;
    assert_eq!([&body["name"], &body["location"]], ["flag", "environment"]);
    assert_eq!(body["pricePerHour"], 3.0);
    worker.stop();
}

#[test]
fn a_state_directory_has_one_worker() {
    let (home, backend) = (Home::new(), Backend::start());
    let mut first = home.worker(&backend.url(), &[]);
    backend.wait_for("POST /api/providers/*/heartbeat", 1);
    let mut second = home.worker(&backend.url(), &[]);
    assert_eq!(second.wait(), 4);
    let (log, pid) = (second.log(), first.pid());
    let told = format!("{} is in use by another agent (pid {pid})", home.path("state"));
    assert!(log.contains(&told), "{log}");
    first.stop();
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named() {
    let home = Home::new();
    let dir = format!("{}/state", home.file("plain", "", 0o644));
    let (code, _, log) = run(&["--backend", "http://127.0.0.1:1", "--state-dir", &dir]);
    assert_eq!(code, 4);
    assert!(log.contains(&format!("state directory {dir} cannot be used")), "{log}");
}

#[test]
fn the_demo_runs_a_job_of_each_kind_and_shows_a_table() {
    let mut demo = Program::start(&["demo"]);
    // Its jobs take seconds on a machine that does nothing else, and minutes on one that does a lot.
    let code = demo.wait_within(10 * BOUND);
    let (out, log) = (demo.text(Stream::Out), demo.log());
    assert_eq!((code, log.as_str()), (0, ""), "{out}");
    assert!(!out.contains('\u{1b}'), "plain lines where nobody watches: {out}");
    let table: Vec<Vec<&str>> = out
        .lines()
        .skip_while(|line| !line.starts_with("JOB"))
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().take(2).collect())
        .collect();
    assert_eq!(
        table,
        [
            ["JOB", "KIND"],
            ["demo-training", "training"],
            ["demo-compute", "compute"],
            ["demo-inference", "inference"],
            ["demo-fine-tuning", "fine-tuning"],
        ]
    );
    assert!(out.contains("completed, the digits are 3 ("), "{out}");
}

#[test]
fn specs_prints_what_would_be_registered() {
    let home = Home::new();
    let state = home.path("state");
    let (code, out, _) = run(&["specs", "--state-dir", &state, "--name", "rig"]);
    assert_eq!(code, 0);
    let specs: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(specs["name"], "rig");
    assert!(specs["specs"]["cpu_cores"].as_u64().unwrap() > 0);
    assert!(!has_null(&specs), "{specs:#}");
}

#[test]
fn help_is_an_answer_and_a_mistake_is_none() {
    let (code, out, log) = run(&["--help"]);
    assert_eq!((code, log.as_str()), (0, ""));
    assert!(out.contains("--backend") && out.contains("Examples:"), "{out}");
    let (code, out, log) = run(&["--bakend", "http://127.0.0.1:1"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(log.contains("--backend"), "the nearest is named: {log}");
}

#[test]
fn the_log_can_be_json() {
    let (home, backend) = (Home::new(), Backend::start());
    let mut worker = home.worker(&backend.url(), &["--log-format", "json"]);
    backend.wait_for("POST /api/providers/*/heartbeat", 1);
    worker.stop();
    let lines: Vec<Value> =
        worker.log().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let levels: Vec<&str> = lines.iter().map(|line| line["level"].as_str().unwrap()).collect();
    assert!(levels.iter().all(|level| *level == "info"), "{lines:?}");
    assert_eq!(worker.text(Stream::Out), "");
    let said = |words: &str| lines.iter().any(|line| line["message"] == words);
    assert!(said("registered") && said("stopped"), "{lines:?}");
}

#[test]
fn a_file_is_told_by_its_content_address() {
    let home = Home::new();
    let file = home.file("hello", "hello world\n", 0o600);
    let v1 = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4";
    let v0 = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";
    let line = |cid| format!("{cid}  12  {file}\n");
    let (code, out, _) = run(&["cid", &file, &file]);
    assert_eq!((code, out), (0, line(v1).repeat(2)));
    let (code, out, _) = run(&["cid", "--v0", &file]);
    assert_eq!((code, out), (0, line(v0)));
    let (code, _, log) = run(&["cid", "/nowhere"]);
    assert_eq!((code, log.contains("cannot read /nowhere: ")), (1, true), "{log}");
}
