//! Scripts from offer to completion.

use serde_json::{Value, json};

use crate::support::{Backend, Home, Host, Program, Reply, SCRIPTS, USER, script};

#[test]
fn a_script_runs_with_its_arguments_and_variables_and_its_result_is_told() {
    let host = Host::start(&[]);
    let mut job = script(
        "python3",
        "import json, os, sys\n\
         print(json.dumps({'progress': 40, 'operation': 'half way'}))\n\
         names = ['K', 'WORKER_JOB_ID', 'WORKER_INPUT_DIR', 'WORKER_OUTPUT_DIR']\n\
         told = {'args': sys.argv[1:], 'env': [os.environ[name] for name in names],\n\
                 'marked': 'WORKER_MARK' in os.environ, 'stdin': sys.stdin.read()}\n\
         open('result.tmp', 'w').write(json.dumps(told))\n\
         os.rename('result.tmp', os.environ['WORKER_OUTPUT_DIR'] + '/result.json')\n",
    );
    job["inputData"]["args"] = json!(["--one", "t w o", "$(three)"]);
    job["inputData"]["env"] = json!({"K": "it's \"$(quoted)\"\nin lines"});
    let result = host.result(&job);
    assert_eq!(result["args"], json!(["--one", "t w o", "$(three)"]));
    let env = json!(["it's \"$(quoted)\"\nin lines", "job-1", "/input", "/output"]);
    assert_eq!([&result["env"], &result["stdin"]], [&env, &json!("")]);
    assert_eq!([&result["jobType"], &result["marked"]], [&json!("script"), &json!(false)]);
}

#[test]
fn a_result_that_is_no_object_is_told_under_value() {
    let host = Host::start(&[]);
    for given in [json!("text"), json!(4.5), json!([1, {"a": 2}])] {
        let line = json!({"result": given}).to_string();
        for text in [format!("echo '{line}'"), format!("echo '{given}' > result.json")] {
            assert_eq!(host.result(&script("bash", &text))["value"], given, "{text}");
        }
    }
}

#[test]
fn the_job_of_the_real_backend_runs() {
    let host = Host::start(&[]);
    let job = json!({"jobType": "custom_script", "modelType": "custom", "framework": "pytorch",
        "fileName": "a.py", "fileUrl": "", "computeNeeded": 0.1,
        "inputData": {"script": "import os\nprint(1, os.environ['K'])"}, "requiredRAM": 16,
        "advancedConfig": {"entryPoint": "python a.py", "dockerImage": "python:3.11",
            "maxDuration": 24, "environmentVars": {"K": "V"}, "outputDestination": "local"}});
    let result = host.result(&job);
    assert_eq!([&result["status"], &result["jobType"]], ["success", "script"]);
}

#[test]
fn what_a_script_fails_of_is_told() {
    let mut host = Host::start(&["--limit-memory", "200MB"]);
    let details = |completion: &Value| {
        let names = ["reason", "blame", "stage"].map(|name| &completion["errorDetails"][name]);
        names.map(|value| value.as_str().unwrap_or("none").to_owned())
    };
    let failed = host.run(&script("bash", "echo so it ends; exit 3"));
    assert_eq!([&failed["status"], &failed["error"]], ["failed", "exit code 3"]);
    assert_eq!(details(&failed), ["nonzero_exit", "job", "run"]);
    assert_eq!(failed["errorDetails"]["exitCode"], 3);
    assert_eq!(failed["errorDetails"]["log"], json!(["so it ends"]));

    let failed = host.run(&script("bash", "kill -SEGV $$"));
    assert_eq!(failed["error"], "killed by signal 11");
    assert_eq!(details(&failed), ["killed_signal", "job", "run"]);

    let failed = host.run(&script("python3", "x = b'x' * (1 << 30)"));
    assert_eq!(details(&failed), ["out_of_memory", "job", "run"]);
    assert_eq!(failed["error"], "killed: memory limit of 190 MiB");

    let mut slow = script(
        "bash",
        "exec 2>/dev/null; trap 'echo told to stop; exit 0' TERM; while :; do sleep 0.1; done",
    );
    slow["timeoutSeconds"] = json!(1);
    let failed = host.run(&slow);
    assert_eq!(failed["error"], "timeout after 1s in stage run");
    assert_eq!(details(&failed), ["timeout", "job", "run"]);
    assert_eq!(failed["errorDetails"]["log"][0], "told to stop");
    host.goes_on();
}

#[test]
fn what_is_wrong_with_a_script_is_declined_and_nothing_is_started() {
    let host = Host::start(&["--interpreters", "bash"]);
    let mut job = script("python3", "x");
    job["inputData"]["scriptUrl"] = json!("https://a/b");
    job["inputData"]["env"] = json!({"LD_PRELOAD": "/x.so"});
    job["inputData"]["args"] = json!(["a\u{0}b"]);
    let declined = host.run(&job);
    assert_eq!(
        declined["error"],
        "declined: script and scriptUrl are given: give one of them; interpreter is \"python3\", \
         but must be one of bash; args holds a NUL, which no program can be given: \"a␀b\"; env \
         may not set LD_PRELOAD, which changes what a program loads"
    );
    assert_eq!(declined["result"]["code"], "bad_input");
    assert_eq!(host.backend.requests("POST /api/jobs/*/progress").len(), 0);
}

/// An ordinary user's worker that is root in a namespace of users, in which the line ran first.
fn in_namespace(home: &Home, backend: &Backend, first: &str) -> Program {
    let line = format!("{first}; exec \"$@\"");
    let below = ["/usr/bin/unshare", "-Ur", "/bin/sh", "-c", &line, "sh"];
    home.worker_of(USER, &below, &backend.url(), &SCRIPTS)
}

#[test]
fn where_no_sandbox_works_the_kind_is_not_offered_and_the_log_says_why() {
    let (home, backend) = (Home::new(), Backend::start());
    let worker = in_namespace(&home, &backend, "echo 0 >/proc/sys/user/max_user_namespaces");
    let registered = backend.wait_for("POST /api/providers/register", 1).body;
    let kinds = json!(["training", "inference", "fine-tuning", "compute"]);
    assert_eq!(registered["specs"]["job_kinds"], kinds);
    let why = worker.wait_log("script jobs are allowed but cannot run here");
    assert!(why.contains("user.max_user_namespaces=15000"), "{why}");
}

#[test]
fn where_no_control_group_limits_them_the_kind_is_not_offered_and_the_log_says_why() {
    let (home, backend) = (Home::new(), Backend::start());
    // Who can make none.
    let worker = home.worker_of(USER, &[], &backend.url(), &["--allow", "script"]);
    let registered = backend.wait_for("POST /api/providers/register", 1).body;
    let kinds = json!(["training", "inference", "fine-tuning", "compute"]);
    assert_eq!(registered["specs"]["job_kinds"], kinds);
    let why = worker.wait_log("script jobs are allowed but cannot run here");
    assert!(why.contains("the memory of scripts cannot be limited"), "{why}");
    assert!(why.contains("--limits-by-polling"), "{why}");
}

#[test]
fn a_sandbox_that_cannot_be_made_is_no_fault_of_the_scripts() {
    let (home, backend) = (Home::new(), Backend::start());
    let worker = in_namespace(&home, &backend, "true");
    worker.wait_log("registered");
    let (user, pid) = (USER.to_string(), worker.pid().to_string());
    let forbid = "echo 0 >/proc/sys/user/max_user_namespaces";
    let as_user = ["--reuid", &user, "--regid", &user, "--clear-groups", "/usr/bin/nsenter"];
    let inside = ["--user", "--preserve-credentials", "--target", &pid, "/bin/sh", "-c", forbid];
    let line = [as_user.as_slice(), inside.as_slice()].concat();
    assert_eq!(Program::start_at("/usr/bin/setpriv", &line, &[]).wait(), 0);
    let mut job = script("bash", "exit 1");
    job["id"] = json!("job-1");
    backend.offer(&[job]);
    let failed = backend.wait_for("POST /api/jobs/job-1/complete", 1).body;
    let details = ["reason", "blame", "stage"].map(|name| &failed["errorDetails"][name]);
    assert_eq!(details, ["start_failed", "worker", "run"], "{failed:#}");
    let error = failed["error"].as_str().unwrap();
    assert!(error.starts_with("the sandbox could not be made: bwrap: "), "{error}");
}

#[test]
fn whoever_is_root_only_in_a_namespace_has_a_sandbox_too() {
    let (home, backend) = (Home::new(), Backend::start());
    let _worker = in_namespace(&home, &backend, "true");
    let registered = backend.wait_for("POST /api/providers/register", 1).body;
    assert_eq!(registered["specs"]["job_kinds"][4], "script");
}

#[test]
fn the_kind_is_registered_where_it_is_allowed() {
    let host = Host::start(&[]);
    let registered = host.backend.wait_for("POST /api/providers/register", 1).body;
    let kinds = json!(["training", "inference", "fine-tuning", "compute", "script"]);
    assert_eq!(registered["specs"]["job_kinds"], kinds);
}

#[test]
fn a_script_from_elsewhere_reads_its_inputs_and_what_it_leaves_is_kept() {
    let host = Host::start(&["--allow-private-downloads"]);
    let text = "import os, sys\n\
                words = open(os.environ['WORKER_INPUT_DIR'] + '/words/a.txt').read()\n\
                os.mkdir('made')\n\
                open('made/b.txt', 'w').write(words.upper() + sys.argv[1])\n";
    let body = text.to_owned();
    host.backend
        .always("GET /code.py", Reply::Whole { status: 200, content_type: "text/x-python", body });
    let result = host.result(&json!({"jobType": "script", "inputData": {
        "scriptUrl": format!("{}/code.py", host.backend.url()), "args": ["!"],
        "inputs": [{"inline": "aGVsbG8=", "path": "words/a.txt"}],
    }}));
    let made = &result["artefacts"][0];
    assert_eq!([&made["path"], &made["bytes"]], [&json!("made/b.txt"), &json!(6)]);
    let kept = host.home.path(&format!("state/artefacts/{}", made["cid"].as_str().unwrap()));
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "HELLO!");
    assert_eq!(result["artefacts"].as_array().unwrap().len(), 1, "{result:#}");
}

#[test]
fn outputs_of_the_same_content_are_one_file_in_the_store_and_no_trouble() {
    let host = Host::start(&[]);
    for round in 1..=2 {
        let result = host.result(&script("bash", "mkdir d; echo same | tee a b d/c >/dev/null"));
        let told = result["artefacts"].as_array().unwrap().iter();
        let told: Vec<_> = told.map(|one| (one["path"].clone(), one["cid"].clone())).collect();
        let cid = &told[0].1;
        assert_eq!(told, ["a", "b", "d/c"].map(|path| (json!(path), cid.clone())), "round {round}");
        let kept = std::fs::read_dir(host.home.path("state/artefacts")).unwrap();
        assert_eq!(kept.count(), 1);
    }
}

#[test]
fn the_files_of_a_job_are_the_ordinary_users_too() {
    let host = Host::start_as_user(&[]);
    let text = "cat $WORKER_INPUT_DIR/a.txt > b.txt";
    let mut job = script("bash", text);
    job["inputData"]["inputs"] = json!([{"inline": "aGVsbG8=", "path": "a.txt"}]);
    let result = host.result(&job);
    assert_eq!(result["artefacts"][0]["bytes"], 5, "{result:#}");
}

#[test]
fn what_a_script_locks_is_skipped_or_the_scripts_own_fault() {
    let host = Host::start_as_user(&[]);
    let text = "mkdir a b; touch a/x b/x; echo 1 >c; chmod 0 a; chmod 400 b";
    let result = host.result(&script("bash", text));
    assert_eq!(result["artefacts"][0]["path"], "c");
    let locked = |path| json!({"path": path, "reason": "locked by its permissions"});
    assert_eq!(result["skipped"], json!([locked("a"), locked("b")]));
    let failed = host.run(&script("bash", "touch x; chmod 0 /output"));
    let details = ["reason", "blame", "stage"].map(|name| &failed["errorDetails"][name]);
    assert_eq!(details, ["bad_input", "job", "outputs"], "{failed:#}");
}
