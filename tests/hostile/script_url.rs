//! Scripts that are somewhere else, at servers that take their time, as a job's own field and as the real
//! front end's wizard names them.

use std::time::Duration;

use serde_json::json;

use crate::support::{Host, Reply};

#[test]
fn a_script_by_url_runs_however_slow_its_server_and_whatever_its_limits() {
    let mut host = Host::start(&["--allow-private-downloads"]);
    let url = format!("{}/code.py", host.backend.url());
    let by_field = json!({"jobType": "script", "inputData": {"scriptUrl": url}});
    let mut within_a_minute = by_field.clone();
    within_a_minute["timeoutSeconds"] = json!(60);
    let by_wizard = json!({"jobType": "custom_script", "modelType": "custom", "fileName": "a.py",
        "fileUrl": url, "inputData": {}, "advancedConfig": {"maxDuration": 24}});
    for milliseconds in [0, 50, 500] {
        serve(&host, Duration::from_millis(milliseconds), "print('{\"result\": {\"ran\": true}}')");
        for job in [&by_field, &within_a_minute, &by_wizard] {
            assert_eq!(host.result(job)["ran"], true, "{milliseconds} ms, {job}");
        }
    }
    host.goes_on();
}

#[test]
fn a_script_that_never_comes_ends_its_stage_with_the_time_that_the_job_gives_it() {
    let host = Host::start(&["--allow-private-downloads"]);
    serve(&host, Duration::from_secs(600), "");
    let url = format!("{}/code.py", host.backend.url());
    for (limits, time) in
        [(json!({"timeoutSeconds": 5}), "1s"), (json!({"download_time_limit": 2}), "2s")]
    {
        let mut job = json!({"jobType": "script", "inputData": {"scriptUrl": url}});
        job["timeoutSeconds"] = limits["timeoutSeconds"].clone();
        job["inputData"]["download_time_limit"] = limits["download_time_limit"].clone();
        let failed = host.run(&job);
        let details = ["reason", "blame", "stage"].map(|name| &failed["errorDetails"][name]);
        assert_eq!(details, ["timeout", "job", "inputs"], "{failed:#}");
        assert_eq!(failed["error"], format!("timeout after {time} in stage inputs"));
    }
}

/// Has the backend give the script, after so much time.
fn serve(host: &Host, after: Duration, text: &str) {
    let script = Reply::Whole { status: 200, content_type: "text/x-python", body: text.into() };
    host.backend.always("GET /code.py", Reply::Held(after, Box::new(script)));
}
