//! Jobs with inputs and outputs from offer to completion, stage by stage.

use std::fs;
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::{Host, Storage, script};

const PRIVATE: &[&str] = &["--allow-private-downloads"];

/// A server that takes every connection and never says a word, while it is held.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file", listener.local_addr().unwrap());
    (listener, url)
}

fn details(completion: &Value) -> [&str; 3] {
    ["reason", "blame", "stage"].map(|name| completion["errorDetails"][name].as_str().unwrap())
}

#[test]
fn a_job_request_of_computehorde_runs_from_its_volume_to_its_uploads() {
    let (host, storage) = (Host::start(PRIVATE), Storage::http());
    let single = storage.put("/words", b"hello");
    storage.fail("/words", 1);
    storage.fail("/one", 1);
    let to = |path| format!("{}{path}?signature=hidden", storage.url);
    let completion = host.run(&json!({"jobType": "script", "inputData": {
        "raw_script": "import os\n\
                       words = open(os.environ['WORKER_INPUT_DIR'] + '/data/words').read()\n\
                       out = os.environ['WORKER_OUTPUT_DIR']\n\
                       open(out + '/one.txt', 'w').write(words.upper())\n\
                       open(out + '/two.txt', 'w').write(words)\n",
        "volume": {"volume_type": "multi_volume", "volumes": [
            {"volume_type": "single_file", "url": single, "relative_path": "data/words"},
        ]},
        "output_upload": {"output_upload_type": "multi_upload", "uploads": [
            {"output_upload_type": "single_file_put", "url": to("/one"), "relative_path": "one.txt"},
        ], "system_output": {
            "output_upload_type": "zip_and_http_post", "url": to("/rest"), "form_fields": {"k": "v"},
        }},
        "download_time_limit": 60, "execution_time_limit": 60, "upload_time_limit": 60,
    }}));
    assert_eq!(completion["status"], "completed", "{completion:#}");
    let artefacts = completion["result"]["artefacts"].as_array().unwrap();
    let told: Vec<_> =
        artefacts.iter().map(|one| (&one["path"], &one["upload"]["status"])).collect();
    let (one, rest, created) = (json!("one.txt"), json!("output.zip"), json!(201));
    assert_eq!(told, [(&one, &created), (&rest, &created)]);
    assert!(!completion.to_string().contains("hidden"), "{completion:#}");
    let seen = storage.seen();
    let calls: Vec<&str> = seen.iter().filter_map(|seen| seen.call.split('?').next()).collect();
    assert_eq!(calls, ["GET /words", "GET /words", "PUT /one", "PUT /one", "POST /rest"]);
    assert_eq!(seen[3].body, b"HELLO");
}

#[test]
fn inputs_that_do_not_come_time_out_in_their_stage() {
    let (mut host, (_listener, url)) = (Host::start(PRIVATE), silent());
    let mut job = script("bash", "true");
    job["inputData"]["inputs"] = json!([{"url": url, "path": "x"}]);
    job["inputData"]["download_time_limit"] = json!(1);
    let failed = host.run(&job);
    assert_eq!(failed["error"], "timeout after 1s in stage inputs");
    assert_eq!(details(&failed), ["timeout", "job", "inputs"]);
    host.goes_on();
}

#[test]
fn a_job_that_is_taken_away_while_its_inputs_come_leaves_nothing() {
    let (mut host, (listener, url)) = (Host::start(PRIVATE), silent());
    let mut job = script("bash", "true");
    job["inputData"]["inputs"] = json!([{"url": url, "path": "x"}]);
    let id = host.offer(&job);
    let (_connection, _) = listener.accept().unwrap();
    let gone = json!({"success": true, "job": {"id": id, "status": "CANCELLED"}}).to_string();
    host.backend.always(&format!("GET /api/jobs/{id}"), crate::support::Reply::json(200, gone));
    host.worker.wait_log("job cancelled");
    let jobs = fs::read_dir(host.home.path("state/jobs")).unwrap().flatten();
    let folders: Vec<_> = jobs.map(|job| job.path().join("work")).collect();
    host.goes_on();
    let left: Vec<_> = folders.iter().filter(|folder| folder.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_output_that_is_a_link_fails_the_job_and_is_not_followed() {
    let (host, storage) = (Host::start(PRIVATE), Storage::http());
    let mut job = script("bash", "echo last words; echo a > a.txt; ln -s /etc/passwd link");
    job["inputData"]["outputs"] = json!([
        {"path": "a.txt", "put": {"url": format!("{}/two", storage.url)}},
        {"path": "link", "put": {"url": format!("{}/three", storage.url)}},
    ]);
    let failed = host.run(&job);
    assert_eq!(details(&failed), ["upload_failed", "job", "outputs"]);
    assert_eq!(failed["error"], "link is a symbolic link and was not taken");
    assert_eq!(failed["errorDetails"]["log"][0], "last words");
}
