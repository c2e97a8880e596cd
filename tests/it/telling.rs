//! The subcommands that tell the owner something.

use std::fs;
use std::io::Write as _;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Backend, Home, Program, Stream, endless, run, short};

/// A line of a ledger, as an agent writes it.
fn line(id: &str, fields: &Value) -> String {
    let mut line = json!({
        "id": id, "attempt": 1, "kind": "compute", "status": "completed", "reason": null,
        "seconds": 3600.0, "kwh": null, "price": 2.5, "amount": 2.5, "gpus": [], "cids": [],
        "origin": "http://a:80", "ended": "2026-01-15T10:30:00.120Z",
        "booked": "2026-01-15T10:30:01.000Z",
    });
    line.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    format!("{line}\n")
}

/// A state directory with such a ledger.
fn ledger(lines: &[String]) -> Home {
    let home = Home::new();
    home.file("state/ledger.jsonl", &lines.concat(), 0o600);
    home
}

/// What a subcommand prints about a state directory.
fn ask(home: &Home, args: &[&str]) -> String {
    let state = home.path("state");
    let (code, out, log) = run(&[args, &["--state-dir", &state]].concat());
    assert_eq!((code, log.as_str()), (0, ""), "{args:?}");
    out
}

fn ask_json(home: &Home, args: &[&str]) -> Value {
    serde_json::from_str(&ask(home, &[args, &["--json"]].concat())).unwrap()
}

#[test]
fn what_a_worker_earned_is_its_price_for_the_time_that_the_ledger_tells() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[short("job-1"), json!({"id": "job-2", "modelType": "alchemy"})]);
    let mut worker = home.worker(&backend.url(), &["--once", "--price", "3600000"]);
    assert_eq!(worker.wait(), 0);
    let booked = home.ledger();
    let line = booked.iter().find(|line| line["id"] == "job-1").unwrap();
    let amount = line["seconds"].as_f64().unwrap() * 1000.0;
    assert!((line["amount"].as_f64().unwrap() - amount).abs() < 1e-5, "{line}");
    let total = &ask_json(&home, &["earnings", "--by", "kind"])["total"];
    assert_eq!([&total["amount"], &total["completed"]], [&line["amount"], &json!(1.0)]);
    let jobs = ask_json(&home, &["jobs"]);
    let told: Vec<_> =
        jobs.as_array().unwrap().iter().map(|job| [&job["id"], &job["status"]]).collect();
    assert!(told.contains(&[&json!("job-1"), &json!("completed")]), "{jobs:#}");
    assert!(told.contains(&[&json!("job-2"), &json!("declined")]), "{jobs:#}");
    let declined = jobs.as_array().unwrap().iter().find(|job| job["id"] == "job-2").unwrap();
    assert!(declined["why"].as_str().unwrap().contains("alchemy"), "{declined}");
}

#[test]
fn earnings_are_told_by_day_with_a_total_and_a_margin() {
    let next_day = json!({"ended": "2026-01-16T00:00:00.000Z", "kwh": 0.5});
    let failed = json!({"status": "failed", "amount": 0.0, "kwh": 0.5});
    let home = ledger(&[line("a", &json!({"kwh": 1})), line("b", &next_day), line("c", &failed)]);
    assert_eq!(
        ask(&home, &["earnings", "--electricity-price", "0.5"]),
        "DAY         COMPLETED  UNPAID  HOURS    KWH  EARNED  ELECTRICITY  MARGIN\n\
         2026-01-15          1       1   2.00  1.500    2.50         0.75    1.75\n\
         2026-01-16          1       0   1.00  0.500    2.50         0.25    2.25\n\
         total               2       1   3.00  2.000    5.00         1.00    4.00\n"
    );
    let csv = ask(&home, &["earnings", "--csv", "--by", "gpu"]);
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[1], "none,2,1,10800,2,10800,5,,");
}

#[test]
fn a_ledger_of_an_older_version_or_with_a_torn_line_is_added_up_all_the_same() {
    let old = r#"{"id":"old","attempt":1,"kind":"compute","status":"completed","reason":null,"seconds":7200,"kwh":null,"price":1.0,"origin":"http://a:80","ended":"2026-01-15T10:30:00.120Z","booked":"2026-01-15T10:30:01.000Z"}"#;
    let home = ledger(&[format!("{old}\n"), "{\"id\":".into()]);
    assert_eq!(ask_json(&home, &["earnings"])["total"]["amount"], 2.0);
}

#[test]
fn a_job_that_runs_is_listed_first_and_one_of_a_killed_agent_as_interrupted() {
    let (home, backend) = (Home::new(), Backend::start());
    home.file("state/ledger.jsonl", &line("before", &json!({})), 0o600);
    backend.offer(&[endless("job-1")]);
    let mut worker = home.worker(&backend.url(), &[]);
    backend.wait_for("POST /api/jobs/job-1/progress", 1);
    let jobs = ask(&home, &["jobs"]);
    let lines: Vec<Vec<&str>> =
        jobs.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1][..5], ["job-1", "compute", "1", "running", "-"]);
    assert_eq!(lines[2][..5], ["before", "compute", "1", "completed", "3600.0"]);
    worker.kill();
    let jobs = ask_json(&home, &["jobs"]);
    let told = jobs[0]["status"].as_str().unwrap();
    // Its program ends by itself when the agent is gone, if it has not yet.
    assert!(["running", "interrupted"].contains(&told), "{jobs:#}");
}

#[test]
fn the_log_of_a_job_is_found_by_its_id_and_does_nothing_to_the_terminal() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[short("job-1")]);
    assert_eq!(home.worker(&backend.url(), &["--once"]).wait(), 0);
    let path = ask(&home, &["logs", "--path", "job-1"]).trim().to_owned();
    assert!(path.starts_with(&home.path("state/logs/")), "{path}");
    home.file(path.strip_prefix(&home.path("")).unwrap(), "epoch 1\n\u{1b}[2Jepoch 2", 0o600);
    assert_eq!(ask(&home, &["logs", "job-1"]), "epoch 1\n[2Jepoch 2\n");
    fs::remove_file(&path).unwrap();
    let state = home.path("state");
    let (code, _, log) = run(&["logs", "job-1", "--state-dir", &state]);
    assert_eq!((code, log.contains("the log of job-1 is not kept")), (1, true), "{log}");
    let (code, _, log) = run(&["logs", "jop-1", "--state-dir", &state]);
    assert_eq!((code, log.contains("no job jop-1 ran here")), (2, true), "{log}");
    assert!(log.contains("did you mean job-1?"), "{log}");
}

#[test]
fn the_log_of_a_job_that_runs_can_be_followed_to_its_end() {
    let (home, backend) = (Home::new(), Backend::start());
    backend.offer(&[endless("job-1")]);
    let mut worker = home.worker(&backend.url(), &[]);
    backend.wait_for("POST /api/jobs/job-1/progress", 1);
    let (path, state) = (ask(&home, &["logs", "--path", "job-1"]), home.path("state"));
    let mut follower = Program::start(&["logs", "--follow", "job-1", "--state-dir", &state]);
    let mut log = fs::File::options().append(true).open(path.trim()).unwrap();
    for words in ["epoch 1", "epoch 2"] {
        log.write_all(format!("{words}\nhalf a line").as_bytes()).unwrap();
        follower.wait_line(Stream::Out, words);
    }
    assert!(follower.is_running());
    worker.signal(Signal::QUIT);
    assert_eq!((worker.wait(), follower.wait()), (0, 0));
    assert!(follower.text(Stream::Out).ends_with("\nhalf a line\n"));
}

#[test]
fn where_no_worker_has_run_that_is_said_with_what_to_do() {
    for command in [&["earnings"][..], &["jobs"], &["logs", "job-1"]] {
        let (code, _, log) = run(&[command, &["--state-dir", "/nowhere"]].concat());
        assert_eq!(code, 2, "{log}");
        assert!(log.contains("no worker has run with the state directory /nowhere"), "{log}");
        assert!(log.contains("--state-dir"), "{log}");
    }
    let home = Home::new();
    assert!(ask(&home, &["earnings"]).starts_with("no job has ended here yet"));
    assert!(ask(&home, &["jobs"]).starts_with("no job has come here yet"));
}

#[test]
fn bash_completes_commands_and_settings() {
    let (code, script, log) = run(&["completions", "bash"]);
    assert_eq!((code, log.as_str()), (0, ""));
    for (typed, completed) in
        [("compl", "completions"), ("--token-f", "--token-file"), ("ben", "bench"), ("engi", "")]
    {
        let ask = format!(
            "{script}\nCOMP_WORDS=(worker {typed}); COMP_CWORD=1; _worker worker {typed} worker\n\
             echo \"${{COMPREPLY[*]}}\""
        );
        let mut bash = Program::start_at("/bin/bash", &["-c", &ask], &[]);
        bash.wait();
        assert_eq!(bash.text(Stream::Out), format!("{completed}\n"), "{typed}");
    }
}

#[test]
fn each_shell_has_its_completions_and_another_is_refused_with_their_names() {
    for shell in ["bash", "fish", "zsh"] {
        let (code, script, _) = run(&["completions", shell]);
        assert_eq!((code, script.contains("token-file")), (0, true), "{shell}");
    }
    let (code, _, log) = run(&["completions", "tcsh"]);
    assert_eq!((code, log.contains("bash, fish, zsh")), (2, true), "{log}");
}

#[test]
fn the_manual_is_one_page() {
    let (code, page, log) = run(&["man"]);
    assert_eq!((code, log.as_str()), (0, ""));
    assert!(page.starts_with(".TH WORKER 1 "), "{page}");
    for section in ["NAME", "COMMANDS", "SETTINGS", "FILES", "EXIT STATUS", "SIGNALS", "EXAMPLES"] {
        assert!(page.contains(&format!("\n.SH {section}\n")), "{section}");
    }
}
