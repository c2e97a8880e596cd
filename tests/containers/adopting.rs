//! The agent dies, the container does not, and the next agent goes on with it.

use std::fs;

use serde_json::json;

use crate::engines::{COMPLETE, ask, shell, until, with_both};

#[test]
fn a_job_goes_on_without_its_agent_and_is_told_of_once() {
    with_both(|place| {
        let script = r#"echo '{"progress":20,"operation":"first"}'; echo early; while [ ! -e /output/go ]; do sleep 0.1; done; echo '{"progress":60,"operation":"second"}'; echo made >/output/made; sleep 3; echo '{"result":{"n":7}}'"#;
        let job = shell("adopted", script);
        place.backend.offer(std::slice::from_ref(&job));
        let mut worker = place.worker(&[]);
        let first = |seen: &[crate::support::Request]| {
            seen.iter().any(|request| request.body["currentOperation"] == "first").then_some(())
        };
        place.backend.wait("its progress", first);
        worker.kill();
        let name = place.containers(&job["id"]).remove(0);
        let mut worker = place.worker(&[]);
        worker.wait_log("job goes on");
        let state = place.home.path("state");
        let out = fs::read_dir(format!("{state}/jobs")).unwrap().next().unwrap().unwrap().path();
        fs::File::create(out.join("work/out/go")).unwrap();
        place.backend.wait("more progress", |seen| {
            seen.iter().any(|request| request.body["currentOperation"] == "second").then_some(())
        });
        assert_eq!(place.containers(&job["id"]), [name]);
        let body = place.backend.wait_for(COMPLETE, 1).body;
        assert_eq!(
            (&body["status"], &body["result"]["n"]),
            (&json!("completed"), &json!(7)),
            "{body}"
        );
        let artefacts = body["result"]["artefacts"].as_array().unwrap();
        assert!(artefacts.iter().any(|file| file["path"] == "made"), "its outputs too: {body}");
        let asked = place.backend.requests("GET /api/jobs/*");
        assert!(!asked.is_empty(), "it is asked about first");
        worker.stop();
        assert_eq!(place.backend.requests(COMPLETE).len(), 1);
        place.assert_nothing_left(&job["id"]);
        assert_eq!(place.home.ledger().len(), 1);
    });
}

#[test]
fn one_that_ended_meanwhile_is_told_of_by_its_code_and_its_words() {
    with_both(|place| {
        let job =
            shell("ended", "echo words; while [ ! -e /output/go ]; do sleep 0.1; done; exit 5");
        place.backend.offer(std::slice::from_ref(&job));
        let mut worker = place.worker(&[]);
        until("its container", || !place.containers(&job["id"]).is_empty());
        place.backend.wait_for("POST /api/jobs/*/progress", 2);
        worker.kill();
        let name = place.containers(&job["id"]).remove(0);
        let jobs = format!("{}/jobs", place.home.path("state"));
        let out = fs::read_dir(jobs).unwrap().next().unwrap().unwrap().path();
        fs::File::create(out.join("work/out/go")).unwrap();
        until("its end", || {
            ask(place.engine, &["inspect", "--format={{.State.Status}}", &name]).trim() == "exited"
        });
        let mut worker = place.worker(&[]);
        let body = place.backend.wait_for(COMPLETE, 1).body;
        let details = &body["errorDetails"];
        assert_eq!(
            (&details["exitCode"], &details["log"]),
            (&json!(5), &json!(["words"])),
            "{body}"
        );
        worker.stop();
        place.assert_nothing_left(&job["id"]);
    });
}

#[test]
fn its_time_runs_on_while_no_agent_looks() {
    with_both(|place| {
        let mut job = shell("overdue", "sleep 1000");
        job["timeoutSeconds"] = json!(6);
        place.backend.offer(std::slice::from_ref(&job));
        let mut worker = place.worker(&[]);
        place.backend.wait_for("POST /api/jobs/*/progress", 2);
        worker.kill();
        let mut worker = place.worker(&[]);
        let body = place.backend.wait_for(COMPLETE, 1).body;
        assert_eq!(body["error"], "timeout after 6s in stage run", "{body}");
        let seconds = body["metrics"]["processingTimeSeconds"].as_f64().unwrap();
        assert!(seconds >= 6.0, "{body}");
        worker.stop();
        place.assert_nothing_left(&job["id"]);
    });
}

#[test]
fn one_that_somebody_removed_is_lost() {
    with_both(|place| {
        let job = shell("removed", "sleep 1000");
        place.backend.offer(std::slice::from_ref(&job));
        let mut worker = place.worker(&[]);
        place.backend.wait_for("POST /api/jobs/*/progress", 2);
        worker.kill();
        ask(place.engine, &["rm", "--force", &place.containers(&job["id"])[0]]);
        let mut worker = place.worker(&[]);
        let body = place.backend.wait_for(COMPLETE, 1).body;
        assert_eq!(body["errorDetails"]["reason"], "lost", "{body}");
        worker.stop();
    });
}

#[test]
fn one_that_is_not_allowed_any_more_is_ended_and_lost() {
    with_both(|place| {
        let job = shell("forbidden", "sleep 1000");
        place.backend.offer(std::slice::from_ref(&job));
        let mut worker = place.worker(&[]);
        place.backend.wait_for("POST /api/jobs/*/progress", 2);
        worker.kill();
        let mut worker = place.worker_with(&[]);
        let body = place.backend.wait_for(COMPLETE, 1).body;
        assert_eq!(body["errorDetails"]["reason"], "lost", "{body}");
        worker.stop();
        place.assert_nothing_left(&job["id"]);
    });
}
