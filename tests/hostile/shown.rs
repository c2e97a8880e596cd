//! A stranger's text on a terminal and on the page.

use serde_json::{Value, json};

use crate::page::{address, get};
use crate::support::{Backend, Home, Host, Program, Reply, Request, Stream, run, script};

/// Turns what follows around, is not seen, begins a line, is obeyed by a terminal, ends a tag.
const EVIL: &str = "<i>\u{202e}lave\u{2066}\u{200b}\u{200f}\u{61c}\u{ad}\u{feff}\u{2060}\u{2028}\u{2029}\u{e0041}\
                    \u{1b}[31m\u{9b}2J\u{7}\u{7f}&amp;";

/// What is to be seen of it.
const SEEN: &str =
    r"\u{202e}lave\u{2066}\u{200b}\u{200f}\u{61c}\u{ad}\u{feff}\u{2060}\u{2028}\u{2029}\u{e0041}";

/// Nothing in it is obeyed or unseen.
#[track_caller]
fn assert_plain(what: &str, text: &str) {
    let hidden = |c: &char| EVIL.contains(*c) && !c.is_ascii_graphic();
    let found: Vec<String> =
        text.chars().filter(hidden).map(|c| c.escape_unicode().to_string()).collect();
    assert!(found.is_empty(), "{what} shows {found:?}: {text}");
}

/// Prints it as an operation and as a line of its log, and waits.
fn evil_script() -> Value {
    let operation = json!({"progress": 7, "operation": EVIL});
    let bytes = format!("{operation}\n{EVIL}\n").into_bytes();
    let text = format!("import os, time\nos.write(1, bytes({bytes:?}))\ntime.sleep(1000)\n");
    script("python3", &text)
}

#[test]
fn nothing_that_a_job_says_is_obeyed_or_hides() {
    let mut host = Host::start(&["--listen", "127.0.0.1:0", "-v"]);
    let addr = address(&host.worker);
    let id = host.offer(&evil_script());
    host.backend.wait("its operation", |seen| {
        let said = |request: &Request| request.body["currentOperation"].as_str().map(str::to_owned);
        seen.iter().filter_map(said).find(|operation| operation.contains(SEEN))
    });
    host.backend.wait_beats(2);
    let state = host.home.path("state");
    let told = |command: &[&str]| run(&[command, &["--state-dir", &state]].concat()).1;
    let page = get(&addr, "/").1;
    assert!(page.contains(&format!("&lt;i&gt;{SEEN}")), "{page}");
    assert!(!page.contains("<i>"), "{page}");
    for (what, text, seen) in [
        ("the page", page, true),
        ("status.json", get(&addr, "/status.json").1, false),
        ("metrics", get(&addr, "/metrics").1, false),
        ("readyz", get(&addr, "/readyz").1, false),
        ("the file", std::fs::read_to_string(host.home.path("state/status.json")).unwrap(), false),
        ("status", told(&["status"]), true),
        ("status --json", told(&["status", "--json"]), false),
        ("jobs", told(&["jobs"]), false),
        ("logs", told(&["logs", &id]), true),
        ("earnings", told(&["earnings", "--by", "kind"]), false),
        ("the log", host.worker.log(), false),
    ] {
        assert_plain(what, &text);
        assert_eq!(text.contains(SEEN), seen, "{what}: {text}");
    }
    let status: Value = serde_json::from_str(&told(&["status", "--json"])).unwrap();
    let operation = status["jobs"][0]["operation"].as_str().unwrap();
    assert!(operation.contains(SEEN), "{operation}");
    host.worker.kill();
}

#[test]
fn nothing_that_a_backend_says_is_obeyed_or_hides() {
    let home = Home::new();
    let backend = Backend::start();
    let odd = |id: &str| json!({"id": id, "jobType": EVIL, "modelType": EVIL, "inputData": {}});
    backend.offer(&[odd("job-1"), odd("job-2")]);
    let mut worker = home.worker(&backend.url(), &["--listen", "127.0.0.1:0", "-v"]);
    let addr = address(&worker);
    backend.wait_for("POST /api/jobs/job-2/complete", 1);
    let says = json!({"success": false, "error": EVIL}).to_string();
    backend.always("POST /api/providers/*/heartbeat", Reply::json(500, says.clone()));
    worker.wait_log(SEEN);
    backend.always("POST /api/providers/register", Reply::json(500, says));
    let state = home.path("state");
    let (_, doctor, _) = run(&["doctor", "--backend", &backend.url(), "--state-dir", &state]);
    let told = |command: &[&str]| run(&[command, &["--state-dir", &state]].concat()).1;
    for (what, text) in [
        ("doctor", doctor),
        ("the page", get(&addr, "/").1),
        ("status.json", get(&addr, "/status.json").1),
        ("metrics", get(&addr, "/metrics").1),
        ("readyz", get(&addr, "/readyz").1),
        ("status", told(&["status"])),
        ("jobs", told(&["jobs"])),
        ("jobs --json", told(&["jobs", "--json"])),
        ("earnings", told(&["earnings", "--by", "kind"])),
        ("earnings --csv", told(&["earnings", "--by", "kind", "--csv"])),
        ("earnings --json", told(&["earnings", "--by", "kind", "--json"])),
        ("the log", worker.log()),
    ] {
        assert_plain(what, &text);
    }
    worker.kill();
}

#[test]
fn nothing_in_the_name_of_a_file_is_obeyed_or_hides() {
    let home = Home::new();
    let file = home.file("a\u{202e}\u{1b}[2J", "", 0o600);
    let (_, told, _) = run(&["cid", &file]);
    assert!(told.ends_with("a\\u{202e}[2J\n"), "{told}");
    let missing = home.path("b\u{202e}\u{1b}[2J");
    let mut program = Program::start(&["cid", &missing]);
    program.wait();
    assert_plain("the complaint", &program.text(Stream::Err));
    assert!(program.log().contains("b\\u{202e}[2J"), "{}", program.log());
}
