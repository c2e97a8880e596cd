//! A job like one before is answered from its result, where the provider wants that.

use serde_json::{Value, json};

use super::{ended, ended_at, inline, result, training};
use crate::support::{Backend, Home};

const REUSE: &[&str] = &["--reuse-results"];
const CSV: &str = "a,kind\n1,x\n2,y\n3,x\n4,y\n5,x\n6,y\n7,x\n8,y\n";

fn of(id: &str, seed: u64) -> Value {
    training(id, json!({"dataset": inline(CSV), "epochs": 2, "seed": seed}))
}

fn without_mark(result: &Value) -> Value {
    let mut result = result.clone();
    result.as_object_mut().unwrap().retain(|name, _| name != "cached" && name != "timestamp");
    result
}

#[test]
fn the_same_training_again_is_answered_from_the_first_and_says_so() {
    let home = Home::new();
    let jobs = [of("first", 1), of("again", 1), of("other", 2)];
    let told = ended(&home, &jobs, REUSE);
    let [first, again, other] = [0, 1, 2].map(|at| result(&told[at]));
    assert_eq!(
        [&first["cached"], &again["cached"], &other["cached"]],
        [&Value::Null, &json!(true), &Value::Null]
    );
    assert_eq!(without_mark(again), without_mark(first));
    assert_ne!(other["modelUrl"], first["modelUrl"]);
    assert_eq!(told[1]["metrics"], told[0]["metrics"], "what the first took");
}

#[test]
fn a_result_outlives_the_worker_that_made_it_but_not_its_files() {
    let home = Home::new();
    let first = ended(&home, &[of("first", 1)], REUSE);
    let again = ended(&home, &[of("again", 1)], REUSE);
    assert_eq!(result(&again[0])["cached"], true);
    let cid = result(&first[0])["artefacts"][0]["cid"].as_str().unwrap();
    std::fs::remove_file(home.path(&format!("state/artefacts/{cid}"))).unwrap();
    let anew = ended(&home, &[of("anew", 1)], REUSE);
    assert_eq!(result(&anew[0])["cached"], Value::Null);
    assert_eq!(result(&anew[0])["modelUrl"], result(&first[0])["modelUrl"]);
}

#[test]
fn nothing_is_reused_unless_the_provider_says_so() {
    let home = Home::new();
    let told = ended(&home, &[of("first", 1), of("again", 1)], &[]);
    assert!(told.iter().all(|told| result(told)["cached"].is_null()), "{told:#?}");
}

#[test]
fn a_reused_result_is_told_after_a_first_progress_and_starts_no_program() {
    let home = Home::new();
    ended(&home, &[of("first", 1)], REUSE);
    let backend = Backend::start();
    ended_at(&backend, &home, &[of("again", 1)], REUSE);
    let calls = backend.calls();
    let mut about: Vec<&String> = calls.iter().filter(|call| call.contains("/again/")).collect();
    about.dedup();
    assert_eq!(about, ["POST /api/jobs/again/progress", "POST /api/jobs/again/complete"]);
    // A program's first report would be that it is starting.
    for progress in backend.requests("POST /api/jobs/again/progress") {
        assert_eq!(progress.body["currentOperation"], "answered from an earlier result");
    }
}
