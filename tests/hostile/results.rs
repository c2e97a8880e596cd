//! Results that are too large, too deep, or too many.

use std::fs;

use serde_json::{Value, json};

use super::reason;
use crate::support::{Host, Reply, script};

/// How much more the agent may ever take for a result than it does without one.
const ROOM_KIB: u64 = 8 << 10;

const COMPLETE: &str = "POST /api/jobs/*/complete";

/// Leaves 8 MiB of these, in a list.
fn of_8_mib(piece: &str) -> Value {
    let text = format!(
        "piece = '{piece},'\nwith open('result.json', 'w') as out:\n    \
         out.write('[' + piece * ((8 << 20) // len(piece) - 10) + '0]')\n"
    );
    script("python3", &text)
}

const PIECES: [(&str, &str); 4] =
    [("zeros", "0"), ("empty objects", "{}"), ("short keys", r#"{"a":0}"#), ("lists", "[[]]")];

/// The most memory that the agent has ever taken.
fn peak_kib(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.worker.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The one artefact of a result: itself.
#[track_caller]
fn assert_is_kept(host: &Host, completion: &Value) {
    let artefacts = completion["result"]["artefacts"].as_array().unwrap();
    let paths: Vec<&Value> = artefacts.iter().map(|artefact| &artefact["path"]).collect();
    assert_eq!(paths, ["result.json"], "{completion:#}");
    let cid = artefacts[0]["cid"].as_str().unwrap();
    let kept = fs::metadata(host.home.path(&format!("state/artefacts/{cid}"))).unwrap();
    assert_eq!(kept.len(), artefacts[0]["bytes"].as_u64().unwrap());
    assert!(kept.len() > 7 << 20, "{}", kept.len());
}

#[test]
fn a_result_of_8_mib_costs_the_agent_no_memory() {
    let mut host = Host::start(&[]);
    host.goes_on();
    let before = peak_kib(&host);
    for (what, piece) in PIECES {
        assert_is_kept(&host, &host.run(&of_8_mib(piece)));
        let more = peak_kib(&host) - before;
        assert!(more < ROOM_KIB, "{what} took {more} KiB");
    }
    host.goes_on();
}

#[test]
fn results_that_wait_for_delivery_cost_the_agent_no_memory() {
    let mut host = Host::start(&[]);
    host.goes_on();
    let before = peak_kib(&host);
    host.backend.always(COMPLETE, Reply::json(503, r#"{"success":false,"error":"not now"}"#));
    let (mut ids, mut first) = (vec![], vec![]);
    for (_, piece) in PIECES.into_iter().cycle().take(6) {
        let id = host.offer(&of_8_mib(piece));
        first.push(host.completion(&id));
        ids.push(id);
    }
    let more = peak_kib(&host) - before;
    assert!(more < ROOM_KIB, "they took {more} KiB");
    host.backend.always(COMPLETE, Reply::json(200, r#"{"success":true}"#));
    for (id, first) in ids.iter().zip(first) {
        let again = host.backend.wait_for(&format!("POST /api/jobs/{id}/complete"), 2).body;
        assert_eq!(again, first, "each time the same is said");
        assert_is_kept(&host, &again);
    }
    host.goes_on();
}

#[test]
fn a_result_that_is_none_fails_its_job_alone() {
    let mut host = Host::start(&[]);
    for (what, text, told) in [
        ("a pipe", "mkfifo result.json", "it is no file"),
        ("9 MiB", "head -c 9437184 /dev/zero | tr '\\0' ' ' >result.json", "it is over 8 MiB"),
        (
            "7 MiB deep",
            "head -c 7340032 /dev/zero | tr '\\0' '[' >result.json",
            "it is nested more than 64 deep",
        ),
        (
            "9 MiB deep",
            "head -c 9437184 /dev/zero | tr '\\0' '[' >result.json",
            "it is nested more than 64 deep",
        ),
        ("no JSON", "echo '{\"a\": nan}' >result.json", "it is not JSON"),
        (
            "large and no JSON",
            "head -c 7340032 /dev/zero | tr '\\0' '0' >result.json",
            "it is not JSON",
        ),
    ] {
        let failed = host.run(&script("bash", text));
        assert_eq!(reason(&failed), "bad_input", "{what}: {failed:#}");
        assert_eq!(failed["errorDetails"]["blame"], "job", "{what}");
        assert!(failed["error"].as_str().unwrap().contains(told), "{what}: {failed:#}");
    }
    host.goes_on();
}

#[test]
fn what_the_worker_says_of_a_result_cannot_be_said_by_the_job() {
    let host = Host::start(&[]);
    let text = r#"echo '{"result": {"jobType": "x", "status": "failed", "timestamp": "1970", "own": 1,
                  "artefacts": [{"path": "/etc/passwd", "cid": "x"}]}}'"#;
    let text = text.replace('\n', " ");
    for text in [text.clone(), text.replace("{\"result\": ", "").replace("}}'", "}' >result.json")]
    {
        let result = host.result(&script("bash", &text));
        let said = ["jobType", "status", "artefacts", "own"].map(|name| result[name].clone());
        assert_eq!(said, [json!("script"), json!("success"), json!([]), json!(1)], "{text}");
        assert_ne!(result["timestamp"], "1970", "{text}");
    }
}

#[test]
fn lines_that_look_like_messages_do_no_harm() {
    let mut host = Host::start(&[]);
    let deep = "[".repeat(2000);
    let lines = [
        r#"{"progress": 1e308}"#,
        r#"{"progress": -1}"#,
        r#"{"progress": "x"}"#,
        r#"{"progress": 1e999}"#,
        r#"{"progress": 1, "operation": {"a": []}}"#,
        r#"{"failure": {"reason": "lost", "stage": "run", "error": "x"}}"#,
        r#"{"failure": [], "result": null}"#,
        r#"{"result": {"a": 1}, "result": {"a": 2}}"#,
        &format!("{{\"result\": {deep}"),
        "{",
        "{}",
    ];
    let text = format!("cat <<'END'\n{}\nEND\nyes '' | head -c 1000000\nexit 1", lines.join("\n"));
    let failed = host.run(&script("bash", &text));
    assert_eq!((&failed["error"], reason(&failed)), (&json!("exit code 1"), "nonzero_exit"));
    // Written as numbers they are longer than they were.
    let text = "import json\nprint(json.dumps({'result': {'a': '\\1\\x7f\\x1b' * 200}}))";
    let result = host.result(&script("python3", text));
    assert_eq!(result["a"], "\u{1}\u{7f}\u{1b}".repeat(200));
    host.goes_on();
}
