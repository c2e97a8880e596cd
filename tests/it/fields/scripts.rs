//! The fields of scripts.

use serde_json::{Value, json};

use super::program::Desk;
use super::table::Rows;

/// Both interpreters run it, and each says which it is.
const BOTH: &str =
    "\"exec\" \"echo\" '{\"result\": \"bash\"}'\nprint('{\"result\": \"python3\"}')\n";

/// Tells its arguments and three variables.
const TELLS: &str = "import json, os, sys\nenv = [os.environ.get(name) for name in 'KLN']\n\
                     print(json.dumps({'result': {'args': sys.argv[1:], 'env': env}}))\n";

pub(super) fn scripts(desk: &Desk, rows: &Rows) {
    texts(desk, rows);
    interpreters(desk, rows);
    arguments(desk, rows);
    shares(desk, rows);
}

fn texts(desk: &Desk, rows: &Rows) {
    let text = r#"echo '{"result": "ran"}'"#;
    let url = desk.storage.put("/code", text.as_bytes());
    for (row, job) in [
        ("script", json!({"inputData": {"script": text}})),
        ("raw_script", json!({"inputData": {"raw_script": text}})),
        ("scriptUrl", json!({"inputData": {"scriptUrl": url}})),
        ("fileUrl of the job", json!({"fileUrl": url, "inputData": {}})),
        // A wizard leaves empty what it does not give.
        ("script", json!({"fileUrl": "", "inputData": {"script": text, "scriptUrl": null}})),
    ] {
        rows.show(&[row]);
        let mut job = job.clone();
        (job["jobType"], job["inputData"]["interpreter"]) = (json!("script"), json!("bash"));
        assert_eq!(desk.host.result(&job)["value"], "ran", "{row}");
    }
}

fn interpreters(desk: &Desk, rows: &Rows) {
    let urls = ["/main.sh", "/main.py"].map(|path| {
        desk.storage.put(path, BOTH.as_bytes());
        desk.storage.presigned(path)
    });
    let with_first_line = |line: &str| json!({"inputData": {"script": format!("{line}\n{BOTH}")}});
    let script = json!({"script": BOTH});
    let of_file = |name: &str| json!({"inputData": {"script": BOTH, "fileName": name}});
    let named = |name: &str| json!({"inputData": {"script": BOTH, "interpreter": name}});
    for (row, job, wanted) in [
        ("interpreter", named("bash"), "bash"),
        ("interpreter", named("sh"), "bash"),
        ("interpreter", named("/usr/bin/python"), "python3"),
        ("interpreter", json!({"inputData": script}), "python3"),
        ("script with a first line", with_first_line("#!/bin/sh"), "bash"),
        ("script with a first line", with_first_line("#!/usr/bin/env python3"), "python3"),
        ("fileName", of_file("a.sh"), "bash"),
        ("fileName", of_file("a.bash"), "bash"),
        ("fileName", of_file("a.py"), "python3"),
        ("fileName of the job", json!({"fileName": "a.sh", "inputData": script}), "bash"),
        ("scriptUrl with an ending", json!({"inputData": {"scriptUrl": urls[0]}}), "bash"),
        ("scriptUrl with an ending", json!({"inputData": {"scriptUrl": urls[1]}}), "python3"),
        (
            "advancedConfig.entryPoint",
            json!({"inputData": script, "advancedConfig": {"entryPoint": "bash main"}}),
            "bash",
        ),
    ] {
        rows.show(&[row]);
        let mut job: Value = job.clone();
        job["jobType"] = json!("script");
        assert_eq!(desk.host.result(&job)["value"], wanted, "{row}: {job}");
    }
}

fn arguments(desk: &Desk, rows: &Rows) {
    for (shown, input, advanced, wanted) in [
        (
            &["args", "env"][..],
            json!({"args": ["--one", "t w o"], "env": {"K": "v $x\n\"w\"", "L": 4.5, "N": true}}),
            json!({}),
            json!({"args": ["--one", "t w o"], "env": ["v $x\n\"w\"", "4.5", "true"]}),
        ),
        (
            &["advancedConfig.entryPoint with arguments", "advancedConfig.environmentVars"],
            json!({"env": {"K": "first"}}),
            json!({"entryPoint": "python main.py --fast 1", "environmentVars": {"K": "last", "L": "w"}}),
            json!({"args": ["--fast", "1"], "env": ["first", "w", null]}),
        ),
        (
            &[],
            json!({"args": []}),
            json!({"entryPoint": "python main.py --fast"}),
            json!({"args": [], "env": [null, null, null]}),
        ),
    ] {
        rows.show(shown);
        let mut job =
            json!({"jobType": "custom_script", "inputData": input, "advancedConfig": advanced});
        job["inputData"]["script"] = json!(TELLS);
        let result = desk.host.result(&job);
        assert_eq!(json!({"args": result["args"], "env": result["env"]}), wanted, "{job}");
    }
}

fn shares(desk: &Desk, rows: &Rows) {
    let hog = json!({"script": "x = []\nwhile True:\n    x.append(b'x' * (1 << 20))\n"});
    for (row, gb, ram) in
        [("memoryGb", json!(0.125), json!(64)), ("requiredRAM of the job", json!(64), json!(0.125))]
    {
        rows.show(&[row]);
        let mut job = json!({"jobType": "script", "requiredRAM": ram, "inputData": hog});
        job["inputData"]["memoryGb"] = gb;
        assert_eq!(desk.host.run(&job)["error"], "killed: memory limit of 128 MiB", "{row}");
    }
    rows.show(&["cpus"]);
    let count = "import os; print('{\"result\": %d}' % len(os.sched_getaffinity(0)))";
    let job = json!({"jobType": "script", "inputData": {"script": count, "cpus": 1}});
    assert_eq!(desk.host.result(&job)["value"], 1);
}
