//! The books, transition by transition, without a socket.

use super::*;

/// A moment that many seconds after boot, and after the epoch.
fn at(seconds: u64) -> Now {
    let since_boot = Duration::from_secs(seconds);
    Now { since_boot, wall: std::time::UNIX_EPOCH + since_boot }
}

/// Books with the default interval, the workers `w1` and `w2` registered at 0, and no event left.
fn books() -> Books {
    let mut books = Books::new(None);
    for worker in ["w1", "w2"] {
        books.register(json!({ "worker_id": worker, "name": worker }), at(0)).unwrap();
    }
    books.take_events();
    books
}

/// The same with a job for each id, all of them assigned to `w1` at 1.
fn books_with(jobs: &[&str]) -> Books {
    let mut books = books();
    for job in jobs {
        submit(&mut books, job);
    }
    beat(&mut books, "w1", "online", 1);
    books.take_events();
    books
}

fn submit(books: &mut Books, id: &str) {
    books.submit(json!({ "id": id, "modelType": "training" }), at(0)).unwrap();
}

fn beat(books: &mut Books, worker: &str, status: &str, seconds: u64) -> Value {
    let beat = json!({ "workerId": worker, "status": status });
    books.heartbeat(worker, beat, at(seconds)).unwrap()
}

fn offered(reply: &Value) -> Vec<&str> {
    reply["pendingJobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect()
}

fn progress(books: &mut Books, worker: &str, id: &str, value: Value) -> Result<Value, Refusal> {
    let report = json!({ "workerId": worker, "progress": value, "currentOperation": "epoch 1/2" });
    books.progress(id, &report, at(2))
}

/// `w1` ends a job at 5.
fn complete(books: &mut Books, id: &str, report: Value, key: &str) -> Result<Value, Refusal> {
    let mut report = report;
    report["workerId"] = json!("w1");
    books.complete(id, &report, Some(key), at(5))
}

fn success() -> Value {
    json!({ "status": "completed", "result": { "a": 1 } })
}

fn failure(error: &str, blame: &str) -> Value {
    json!({ "status": "failed", "error": error, "errorDetails": { "blame": blame } })
}

fn refusal<T>(status: u16, error: &str) -> Result<T, Refusal> {
    Err(Refusal::new(status, error))
}

fn status_of(books: &mut Books, id: &str) -> String {
    books.job(id, at(5)).unwrap()["status"].as_str().unwrap().to_owned()
}

#[test]
fn a_worker_that_registers_again_keeps_its_id_and_its_past() {
    let mut books = books();
    beat(&mut books, "w1", "online", 1);
    let before = books.providers(at(1))[0].clone();
    books
        .register(json!({ "worker_id": "w1", "name": "new", "pricePerHour": 2.5 }), at(2))
        .unwrap();
    let after = books.providers(at(2))[0].clone();
    assert_eq!(after["id"], before["id"]);
    assert_eq!(after["id"].as_str().unwrap().len(), 36);
    assert_eq!((&after["name"], &after["pricePerHour"]), (&json!("new"), &json!(2.5)));
    assert_eq!(
        (&after["beats"], &after["lastHeartbeat"]),
        (&json!(1), &json!("1970-01-01T00:00:01.000Z"))
    );
    assert_eq!(after["specs"], Value::Null);
}

#[test]
fn a_registration_without_a_usable_worker_id_is_refused() {
    let mut books = books();
    assert_eq!(
        books.register(json!({ "name": "x" }), at(0)),
        refusal(400, "worker_id is required")
    );
    let bounds = "worker_id must have 1 to 128 bytes and no control characters";
    assert_eq!(books.register(json!({ "worker_id": "a\nb" }), at(0)), refusal(400, bounds));
    assert_eq!(books.register(json!({ "worker_id": "" }), at(0)), refusal(400, bounds));
}

#[test]
fn beyond_its_bound_no_provider_is_taken_but_a_known_one_is_updated() {
    let mut books = Books::new(None);
    for index in 0..MAX_PROVIDERS {
        books.register(json!({ "worker_id": format!("w{index}") }), at(0)).unwrap();
    }
    let full = refusal(503, "no more than 1000 providers are kept here");
    assert_eq!(books.register(json!({ "worker_id": "late" }), at(0)), full);
    assert_eq!(
        books.register(json!({ "worker_id": "w0" }), at(0)).unwrap()["success"],
        json!(true)
    );
}

#[test]
fn a_beat_of_an_unknown_worker_or_with_an_unknown_status_is_refused() {
    let mut books = books();
    assert_eq!(books.heartbeat("nobody", json!({}), at(1)), refusal(404, "Provider not found"));
    let words = "status must be online, busy or offline";
    assert_eq!(books.heartbeat("w1", json!({ "status": "idle" }), at(1)), refusal(400, words));
    let other = json!({ "workerId": "w2", "status": "online" });
    assert_eq!(
        books.heartbeat("w1", other, at(1)),
        refusal(400, "workerId is not the one in the path")
    );
}

#[test]
fn a_reply_always_lists_jobs_and_tells_the_interval_only_if_there_is_one() {
    assert_eq!(
        beat(&mut books(), "w1", "online", 1),
        json!({ "success": true, "pendingJobs": [] })
    );
    let mut books = Books::new(Some(Duration::from_secs(5)));
    books.register(json!({ "worker_id": "w1" }), at(0)).unwrap();
    let expect = json!({ "success": true, "pendingJobs": [], "heartbeatIntervalMs": 5000 });
    assert_eq!(beat(&mut books, "w1", "online", 1), expect);
}

#[test]
fn an_online_worker_is_given_the_five_oldest_jobs_and_keeps_them() {
    let mut books = books();
    for id in ["1", "2", "3", "4", "5", "6", "7"] {
        submit(&mut books, id);
    }
    assert_eq!(offered(&beat(&mut books, "w1", "online", 1)), ["1", "2", "3", "4", "5"]);
    assert_eq!(offered(&beat(&mut books, "w1", "online", 2)), ["1", "2", "3", "4", "5"]);
    assert_eq!(offered(&beat(&mut books, "w2", "online", 2)), ["6", "7"]);
    progress(&mut books, "w1", "1", json!(1)).unwrap();
    submit(&mut books, "8");
    assert_eq!(offered(&beat(&mut books, "w1", "online", 3)), ["2", "3", "4", "5", "8"]);
}

#[test]
fn a_busy_worker_is_given_nothing_new_and_an_offline_one_nothing() {
    let mut books = books_with(&["old"]);
    submit(&mut books, "new");
    assert_eq!(offered(&beat(&mut books, "w1", "busy", 2)), ["old"]);
    assert_eq!(offered(&beat(&mut books, "w1", "offline", 3)), [""; 0]);
}

#[test]
fn an_assigned_job_looks_as_the_wire_has_it() {
    let mut books = books();
    let job = json!({ "id": "a", "modelType": "training", "computeNeeded": 2.0 });
    books.submit(job, at(0)).unwrap();
    let reply = beat(&mut books, "w1", "online", 1);
    let provider = books.providers(at(1))[0]["id"].clone();
    let expect = json!({
        "id": "a", "modelType": "training", "computeNeeded": 2.0, "status": "ASSIGNED",
        "providerId": provider, "provider": { "workerId": "w1" }, "progress": 0, "currentOperation": null,
        "result": null, "error": null, "createdAt": "1970-01-01T00:00:00.000Z", "startedAt": null, "completedAt": null,
    });
    assert_eq!(reply["pendingJobs"], json!([expect]));
}

#[test]
fn pending_jobs_are_everybodys_until_one_has_them() {
    let mut books = books_with(&["mine"]);
    submit(&mut books, "free");
    let ids = |list: Value| {
        let ids = list.as_array().unwrap().iter().map(|job| job["id"].clone());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids(books.pending("w1", at(2))), ["mine", "free"]);
    assert_eq!(ids(books.pending("w2", at(2))), ["free"]);
    progress(&mut books, "w1", "mine", json!(50)).unwrap();
    assert_eq!(ids(books.pending("w1", at(2))), ["free"]);
}

#[test]
fn progress_strictly_between_0_and_100_starts_a_job() {
    let mut books = books_with(&["a"]);
    for (value, status) in [(0, "ASSIGNED"), (100, "ASSIGNED"), (1, "RUNNING"), (42, "RUNNING")] {
        progress(&mut books, "w1", "a", json!(value)).unwrap();
        assert_eq!(status_of(&mut books, "a"), status, "{value}");
    }
    let job = books.job("a", at(5)).unwrap();
    assert_eq!(job["progressHistory"], json!([0, 100, 1, 42]));
    assert_eq!((&job["progress"], &job["currentOperation"]), (&json!(42), &json!("epoch 1/2")));
    assert_eq!(job["startedAt"], json!("1970-01-01T00:00:02.000Z"));
}

#[test]
fn progress_that_is_no_whole_percentage_or_not_theirs_is_refused() {
    let mut books = books_with(&["a"]);
    for value in [json!(42.5), json!(-1), json!(101), json!("42"), json!(null)] {
        let expect = refusal(400, "progress must be an integer from 0 to 100");
        assert_eq!(progress(&mut books, "w1", "a", value), expect);
    }
    assert_eq!(progress(&mut books, "w1", "b", json!(1)), refusal(404, "Job not found"));
    let foreign = refusal(403, "Job is not assigned to this worker");
    assert_eq!(progress(&mut books, "w2", "a", json!(1)), foreign);
    assert_eq!(
        books.progress("a", &json!({ "progress": 1 }), at(2)),
        refusal(400, "workerId is required")
    );
}

#[test]
fn the_history_and_the_log_of_a_job_are_bounded() {
    let mut books = books_with(&["a"]);
    for round in 0..1100 {
        let report = json!({ "workerId": "w1", "progress": 1 + round / 100, "logLines": [{ "message": round }] });
        books.progress("a", &report, at(2)).unwrap();
    }
    let job = books.job("a", at(3)).unwrap();
    assert_eq!(
        (job["progressHistory"].as_array().unwrap().len(), &job["progressHistory"][0]),
        (1000, &json!(2))
    );
    assert_eq!(
        (job["logLines"].as_array().unwrap().len(), &job["logLines"][0]["message"]),
        (1000, &json!(100))
    );
}

#[test]
fn a_completion_takes_effect_once() {
    let mut books = books_with(&["a"]);
    assert_eq!(complete(&mut books, "a", success(), "k1"), Ok(json!({ "success": true })));
    let again = complete(&mut books, "a", failure("x", "worker"), "k1");
    assert_eq!(again, Ok(json!({ "success": true, "duplicate": true })));
    assert_eq!(complete(&mut books, "a", success(), "k2"), refusal(409, "job is COMPLETED"));
    assert_eq!(progress(&mut books, "w1", "a", json!(50)), refusal(409, "job is COMPLETED"));
    let job = books.job("a", at(6)).unwrap();
    assert_eq!(
        (&job["status"], &job["result"], &job["error"]),
        (&json!("COMPLETED"), &json!({ "a": 1 }), &Value::Null)
    );
    assert_eq!(
        (&job["completions"], &job["duplicates"], &job["lateProgress"]),
        (&json!(1), &json!(1), &json!(1))
    );
    assert_eq!(job["completedAt"], json!("1970-01-01T00:00:05.000Z"));
}

#[test]
fn only_the_two_words_end_a_job_and_only_its_worker_may() {
    let mut books = books_with(&["a"]);
    for word in ["COMPLETED", "success", "error", ""] {
        let expect = refusal(400, "status must be completed or failed");
        assert_eq!(complete(&mut books, "a", json!({ "status": word }), "k"), expect, "{word}");
    }
    assert_eq!(complete(&mut books, "b", success(), "k"), refusal(404, "Job not found"));
    let report = json!({ "workerId": "w2", "status": "completed" });
    let foreign = refusal(403, "Job is not assigned to this worker");
    assert_eq!(books.complete("a", &report, None, at(2)), foreign);
    submit(&mut books, "free");
    assert_eq!(complete(&mut books, "free", success(), "k"), foreign);
}

#[test]
fn a_failure_by_the_workers_fault_is_tried_three_times() {
    let mut books = books_with(&["a"]);
    for (attempt, status) in [(1, "PENDING"), (2, "PENDING"), (3, "FAILED")] {
        complete(&mut books, "a", failure("lost", "worker"), &format!("k{attempt}")).unwrap();
        assert_eq!(status_of(&mut books, "a"), status, "attempt {attempt}");
        beat(&mut books, "w1", "online", 5);
    }
    let event = |event: fn(String, String) -> Event| event("a".to_owned(), "w1".to_owned());
    let put_back = event(|job, worker| Event::PutBack { job, worker });
    let assigned = event(|job, worker| Event::Assigned { job, worker });
    let failed = event(|job, worker| Event::Failed { job, worker });
    assert_eq!(
        books.take_events(),
        [put_back.clone(), assigned.clone(), put_back, assigned, failed]
    );
    assert_eq!(books.job("a", at(6)).unwrap()["completions"], json!(3));
}

#[test]
fn a_job_that_is_put_back_looks_like_one_that_has_not_begun() {
    let mut books = books_with(&["a"]);
    progress(&mut books, "w1", "a", json!(50)).unwrap();
    complete(&mut books, "a", failure("lost", "worker"), "k1").unwrap();
    let job = books.job("a", at(6)).unwrap();
    for key in ["providerId", "provider", "currentOperation", "startedAt", "completedAt"] {
        assert_eq!(job[key], Value::Null, "{key}");
    }
    assert_eq!((&job["progress"], &job["error"]), (&json!(0), &json!("lost")));
}

#[test]
fn the_answer_to_a_failure_that_was_missed_can_be_had_after_the_job_was_put_back() {
    let mut books = books_with(&["a"]);
    complete(&mut books, "a", failure("lost", "worker"), "k1").unwrap();
    let again = complete(&mut books, "a", failure("lost", "worker"), "k1");
    assert_eq!(again, Ok(json!({ "success": true, "duplicate": true })));
    assert_eq!(status_of(&mut books, "a"), "PENDING");
}

#[test]
fn a_failure_of_the_job_itself_or_a_last_attempt_is_final() {
    for report in [
        failure("exit code 3", "job"),
        failure("lost [Reassignment attempt 3]", "worker"),
        json!({ "status": "failed", "error": "no details" }),
    ] {
        let mut books = books_with(&["a"]);
        complete(&mut books, "a", report.clone(), "k").unwrap();
        let job = books.job("a", at(6)).unwrap();
        assert_eq!((&job["status"], &job["error"]), (&json!("FAILED"), &report["error"]));
    }
}

#[test]
fn a_submission_gets_an_id_if_it_has_none_and_is_refused_if_it_is_no_job() {
    let mut books = books();
    let id = books.submit(json!({ "id": null }), at(0)).unwrap();
    assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    assert_eq!(
        books.submit(json!({ "id": id }), at(0)),
        refusal(409, &format!("there is a job {id} already"))
    );
    assert_eq!(books.submit(json!([1]), at(0)), refusal(400, "a job must be a JSON object"));
    assert_eq!(books.submit(json!({ "id": 1 }), at(0)), refusal(400, "id must be a string"));
}

#[test]
fn a_submission_cannot_claim_what_only_the_books_say() {
    let mut books = books();
    let claim = json!({
        "id": "a", "status": "COMPLETED", "providerId": "p", "provider": { "workerId": "w1" }, "progress": 50,
        "result": 1, "error": "x", "errorDetails": {}, "metrics": {}, "startedAt": "now", "completedAt": "now",
    });
    books.submit(claim, at(0)).unwrap();
    let expect = json!({
        "id": "a", "status": "PENDING", "providerId": null, "progress": 0, "currentOperation": null,
        "result": null, "error": null, "createdAt": "1970-01-01T00:00:00.000Z", "startedAt": null, "completedAt": null,
    });
    assert_eq!(books.pending("w1", at(0)), json!([expect]));
}

#[test]
fn beyond_its_bound_no_job_is_taken() {
    let mut books = books();
    for _ in 0..MAX_JOBS {
        books.submit(json!({}), at(0)).unwrap();
    }
    assert_eq!(
        books.submit(json!({}), at(0)),
        refusal(503, "no more than 10000 jobs are kept here")
    );
}

#[test]
fn a_cancelled_job_is_told_to_its_worker_until_it_is_named_no_more() {
    let mut books = books_with(&["a", "b"]);
    books.cancel("a", at(2)).unwrap();
    let mut told = |named: Value| {
        let beat = json!({ "status": "busy", "currentJob": named[0], "currentJobs": named });
        let reply = books.heartbeat("w1", beat, at(3)).unwrap();
        (reply["cancelJobs"].clone(), offered(&reply).join(" "))
    };
    assert_eq!(told(json!(["b"])), (json!(["a"]), "b".to_owned()));
    assert_eq!(told(json!(["a", "b"])), (json!(["a"]), "b".to_owned()));
    assert_eq!(told(json!(["b"])), (Value::Null, "b".to_owned()));
    assert_eq!(complete(&mut books, "a", success(), "k"), refusal(409, "job is CANCELLED"));
}

#[test]
fn a_job_can_be_cancelled_twice_but_not_after_its_end() {
    let mut books = books_with(&["a", "b"]);
    for _ in 0..2 {
        assert_eq!(books.cancel("a", at(2)).unwrap()["job"]["status"], json!("CANCELLED"));
    }
    assert_eq!(books.take_events(), [Event::Cancelled { job: "a".to_owned() }]);
    complete(&mut books, "b", success(), "k").unwrap();
    assert_eq!(books.cancel("b", at(6)), refusal(409, "job is COMPLETED"));
    assert_eq!(books.cancel("c", at(6)), refusal(404, "Job not found"));
}

#[test]
fn three_missed_beats_take_a_worker_and_its_jobs_away() {
    let mut books = books_with(&["a"]);
    progress(&mut books, "w1", "a", json!(50)).unwrap();
    let presence = |books: &mut Books, seconds| books.providers(at(seconds))[0]["status"].clone();
    assert_eq!(presence(&mut books, 91), json!("online"));
    assert_eq!(presence(&mut books, 92), json!("offline"));
    assert_eq!(status_of(&mut books, "a"), "PENDING");
    assert_eq!(
        complete(&mut books, "a", success(), "k"),
        refusal(403, "Job is not assigned to this worker")
    );
    beat(&mut books, "w1", "online", 93);
    let [w1, w2, a] = ["w1", "w2", "a"].map(str::to_owned);
    let expect = [
        // It never beat, so its silence counts from its registration.
        Event::WorkerOffline { worker: w2 },
        Event::WorkerOffline { worker: w1.clone() },
        Event::WorkerBack { worker: w1.clone() },
        Event::Assigned { job: a, worker: w1 },
    ];
    assert_eq!(books.take_events(), expect);
}

#[test]
fn a_worker_that_came_back_can_fall_silent_again() {
    let mut books = books_with(&["a"]);
    assert_eq!(books.job("a", at(92)).unwrap()["status"], json!("PENDING"));
    beat(&mut books, "w1", "online", 93);
    assert_eq!(books.job("a", at(183)).unwrap()["status"], json!("ASSIGNED"));
    assert_eq!(books.job("a", at(184)).unwrap()["status"], json!("PENDING"));
}

#[test]
fn a_worker_that_says_goodbye_keeps_its_jobs_until_its_beats_are_missed() {
    let mut books = books_with(&["a"]);
    beat(&mut books, "w1", "offline", 10);
    assert_eq!(books.providers(at(10))[0]["status"], json!("offline"));
    assert_eq!(books.job("a", at(100)).unwrap()["status"], json!("ASSIGNED"));
    assert_eq!(books.job("a", at(101)).unwrap()["status"], json!("PENDING"));
    let of_w1 = |event: &Event| *event == Event::WorkerOffline { worker: "w1".to_owned() };
    assert_eq!(books.take_events().into_iter().filter(of_w1).count(), 1);
}

#[test]
fn repeated_offers_list_every_job_twice_and_an_ended_one_once_more() {
    let mut books = books_with(&["done", "open"]);
    complete(&mut books, "done", success(), "k").unwrap();
    let mut repeated = || {
        let mut reply = beat(&mut books, "w1", "online", 6);
        books.repeat_offers("w1", &mut reply);
        offered(&reply).join(" ")
    };
    assert_eq!(repeated(), "open open done");
    assert_eq!(repeated(), "open open");
    assert_eq!(status_of(&mut books, "done"), "COMPLETED");
}

#[test]
fn a_refusal_has_no_offers_to_repeat() {
    let mut reply = json!({ "success": false });
    books().repeat_offers("w1", &mut reply);
    assert_eq!(reply, json!({ "success": false }));
}

#[test]
fn a_view_tells_how_long_a_job_took_from_its_start_to_its_end() {
    let mut books = books_with(&["a"]);
    progress(&mut books, "w1", "a", json!(50)).unwrap();
    assert_eq!(books.job_views(at(4))[0].seconds, None);
    complete(&mut books, "a", success(), "k").unwrap();
    let expect = JobView {
        id: "a".to_owned(),
        kind: "training".to_owned(),
        status: Status::Completed,
        progress: 100,
        operation: Some("epoch 1/2".to_owned()),
        result: Some(json!({ "a": 1 })),
        error: None,
        seconds: Some(3.0),
    };
    assert_eq!(books.job_views(at(6)), [expect]);
}

#[test]
fn what_a_person_could_see_changes_the_version_and_looking_does_not() {
    let mut books = books_with(&["a"]);
    let before = books.version();
    books.jobs(at(2));
    books.pending("w1", at(2));
    assert_eq!(books.version(), before);
    progress(&mut books, "w1", "a", json!(50)).unwrap();
    assert_ne!(books.version(), before);
}
