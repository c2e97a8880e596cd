//! Every way in which a container's life can go.

use serde_json::json;

use crate::engines::{COMPLETE, Place, ask, job, shell, until, with, with_both};

#[test]
fn progress_and_result_come_as_from_any_program() {
    with_both(|place| {
        let script = r#"echo '{"progress":40,"operation":"half"}'; sleep 2.5; echo hello; echo '{"n":7}' >/output/new; mv /output/new /output/result.json"#;
        let body = place.run(&shell("good", script), &[]);
        assert_eq!(
            (&body["status"], &body["result"]["n"]),
            (&json!("completed"), &json!(7)),
            "{body}"
        );
        assert!(body["metrics"]["cpuSeconds"].as_f64().is_some(), "{body}");
        let progress = place.backend.requests("POST /api/jobs/*/progress");
        assert!(progress.iter().any(|request| request.body["currentOperation"] == "half"));
    });
}

#[test]
fn what_cannot_run_says_why() {
    with_both(|place| {
        let missing = place.run(&job("missing", json!({"image": "localhost/nothing"})), &[]);
        let details = &missing["errorDetails"];
        assert_eq!(
            (&details["reason"], &details["stage"]),
            (&json!("bad_input"), &json!("inputs")),
            "{missing}"
        );
        assert_eq!(
            missing["error"],
            "the image localhost/nothing:latest is not on this machine, which fetches none"
        );
    });
    with_both(|place| {
        let command = json!({"image": "localhost/busybox", "command": ["/bin/nothing"]});
        let body = place.run(&job("command", command), &[]);
        let details = &body["errorDetails"];
        assert_eq!(
            (&details["reason"], &details["blame"], &details["stage"]),
            (&json!("start_failed"), &json!("job"), &json!("run")),
            "{}: {body}",
            place.engine
        );
        let error = body["error"].as_str().unwrap();
        assert!(error.starts_with("its program cannot be started: "), "{error}");
        assert!(error.ends_with("No such file or directory"), "{error}");
    });
    with_both(|place| {
        let pulled = place.run(
            &job("pulled", json!({"image": "localhost:1/nothing"})),
            &["--container-pull", "missing"],
        );
        let details = &pulled["errorDetails"];
        assert_eq!(
            (&details["reason"], &details["stage"]),
            (&json!("download_failed"), &json!("inputs")),
            "{}: {pulled}",
            place.engine
        );
        assert!(
            pulled["error"]
                .as_str()
                .unwrap()
                .starts_with("the image localhost:1/nothing:latest cannot be fetched: "),
            "{pulled}"
        );
    });
    with_both(|place| {
        let body =
            place.run(&shell("refused", "true"), &["--container-images", "docker.io/library/*"]);
        assert_eq!(body["result"]["code"], "bad_input", "{body}");
    });
    with_both(|place| {
        let lines = with(shell("lines", "true"), json!({"env": {"A": "one\ntwo"}}));
        let body = place.run(&lines, &[]);
        assert_eq!(body["result"]["code"], "bad_input", "{body}");
        assert!(body["error"].to_string().contains("env A has more than one line"), "{body}");
    });
    with_both(|place| {
        let body = place.run(&with(shell("gpus", "true"), json!({"gpus": 64})), &[]);
        assert_eq!(body["result"]["code"], "no_gpu_fits", "{body}");
    });
}

#[test]
fn exit_codes_signals_and_timeouts_are_told_apart() {
    with_both(|place| {
        let body = place.run(&shell("code", "echo words; exit 7"), &[]);
        let details = &body["errorDetails"];
        assert_eq!(
            (&details["reason"], &details["exitCode"], &details["log"]),
            (&json!("nonzero_exit"), &json!(7), &json!(["words"])),
            "{body}"
        );
    });
    with_both(|place| {
        let body = place.run(&shell("signal", "kill -9 $$"), &[]);
        assert_eq!(
            (&body["errorDetails"]["reason"], &body["errorDetails"]["signal"]),
            (&json!("killed_signal"), &json!(9)),
            "{}: {body}",
            place.engine
        );
    });
    with_both(|place| {
        let mut endless = shell("endless", "trap '' TERM; while :; do sleep 1; done");
        endless["timeoutSeconds"] = json!(2);
        let body = place.run(&endless, &[]);
        assert_eq!(body["error"], "timeout after 2s in stage run", "{}: {body}", place.engine);
    });
}

#[test]
fn a_cancelled_job_leaves_nothing() {
    with_both(|place| {
        let place: &Place = place;
        let job = shell("cancelled", "trap '' TERM; touch /output/x; sleep 1000");
        place.backend.offer(std::slice::from_ref(&job));
        let mut worker = place.worker(&[]);
        until("its container", || !place.containers(&job["id"]).is_empty());
        place.backend.wait_for("POST /api/jobs/*/progress", 2);
        place.backend.always(
            "POST /api/providers/*/heartbeat",
            crate::support::Reply::json(
                200,
                r#"{"success":true,"pendingJobs":[],"cancelJobs":["cancelled"]}"#,
            ),
        );
        worker.wait_log("job cancelled");
        until("its end", || place.containers(&job["id"]).is_empty());
        worker.stop();
        place.assert_nothing_left(&job["id"]);
        assert_eq!(place.backend.requests(COMPLETE).len(), 0);
    });
}

#[test]
fn a_flood_of_output_costs_neither_memory_nor_disk() {
    with_both(|place| {
        let body = place.run(
            &shell(
                "flood",
                "yes 0123456789012345678901234567890123456789 | head -c 40000000; exit 3",
            ),
            &[],
        );
        assert_eq!(body["errorDetails"]["exitCode"], 3, "{}", place.engine);
    });
}

#[test]
fn containers_of_others_are_let_be_and_ours_without_a_record_go() {
    with_both(|place| {
        let label = |owner: &str| format!("--label=qubix-worker.owner={owner}");
        let make = |name: &str, label: &str| {
            ask(
                place.engine,
                &[
                    "create",
                    "--name",
                    name,
                    "--network=none",
                    "--ulimit=nofile=99:99",
                    "--ulimit=nproc=99:99",
                    label,
                    "localhost/busybox",
                    "true",
                ],
            );
        };
        // The label of this worker is told by a container of its own.
        let job = shell("owner", "sleep 1000");
        place.backend.offer(std::slice::from_ref(&job));
        let mut worker = place.worker(&[]);
        place.backend.wait_for("POST /api/jobs/*/progress", 2);
        let name = place.containers(&job["id"]).remove(0);
        let format = "--format={{index .Config.Labels \"qubix-worker.owner\"}}";
        let owner = ask(place.engine, &["inspect", format, &name]);
        let (ours, theirs) = (format!("{name}-stray"), format!("{name}-foreign"));
        make(&ours, &label(owner.trim()));
        make(&theirs, &label("somebody-else"));
        worker.kill();
        let mut worker = place.worker(&[]);
        worker.wait_log("removing a container of an earlier run");
        let names = || ask(place.engine, &["ps", "--all", "--format={{.Names}}"]);
        until("the end of ours", || !names().lines().any(|line| line == ours));
        let left = names();
        assert!(left.lines().any(|line| line == theirs), "{left}");
        assert!(left.lines().any(|line| line == name), "{left}");
        ask(place.engine, &["rm", "--force", &theirs]);
        worker.signal(rustix::process::Signal::QUIT);
        worker.wait();
        place.assert_nothing_left(&job["id"]);
    });
}
