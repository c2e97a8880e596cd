//! The disk: what reads back, what is moved aside, what is refused.

#![expect(clippy::disallowed_methods, reason = "a test plays the disk, which damages as it likes")]

use std::os::unix::fs::PermissionsExt as _;
use std::time::UNIX_EPOCH;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::text;
use crate::work::{Attempt, Blame, ContainerHandle, Handle, Object, ProcessHandle};

mod artefacts;
mod damage;
mod ledger;

const ORIGIN: &str = "http://a:80";

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    (dir, store)
}

fn key(id: &str) -> Key {
    Key::of(ORIGIN, &JobId::parse(id).unwrap())
}

fn record(id: &str, phase: Phase) -> Record {
    let id = JobId::parse(id).unwrap();
    Record {
        attempt: Attempt { id, content: "c0ffee".into(), number: 2, first: 1 },
        origin: ORIGIN.into(),
        worker: Some("w".into()),
        kind: "compute".into(),
        price: None,
        offer: Some(r#"{"id":"job-1"}"#.into()),
        progressed: false,
        phase,
    }
}

fn failed() -> Outcome {
    let metrics = json!({"processingTimeSeconds": 1.5}).as_object().cloned().unwrap();
    let failure = Failure {
        reason: Reason::NonzeroExit,
        blame: Blame::Job,
        stage: Stage::Run,
        error: "exit code 3".into(),
        exit_code: Some(3),
        signal: None,
        log: vec!["last words".into()],
    };
    let at = UNIX_EPOCH + Duration::from_millis(1_768_473_000_120);
    Outcome { metrics, ..Outcome::without_run(Ending::Failed(failure), at) }
}

fn completed() -> Outcome {
    let result = json!({"computationData": {"result": 7}}).as_object().cloned().unwrap();
    Outcome { ending: Ending::Completed(result), ..failed() }
}

fn finished(outcome: Outcome) -> Phase {
    Phase::Finished { outcome, waited: Duration::from_secs(60) }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_768_473_100)
}

#[test]
fn every_phase_reads_back_as_it_was_written() {
    let (_dir, store) = store();
    let handle = Handle::Process(ProcessHandle { pid: 7, start_time: 99, boot_id: "b".into() });
    let container = ContainerHandle {
        engine: "podman".into(),
        name: "qubix-worker-1f-1".into(),
        since: Duration::from_millis(1500),
        time: Duration::from_secs(60),
        gpus: vec!["GPU-1".into()],
        boot_id: "b".into(),
    };
    for phase in [
        Phase::Taken,
        Phase::Running(handle),
        Phase::Running(Handle::Container(container)),
        finished(failed()),
        finished(completed()),
        finished(Outcome { gpus: vec!["GPU-1".into()], ..completed() }),
        finished(Outcome { ending: Ending::Cancelled, ..failed() }),
        Phase::Delivered { outcome: completed(), at: now() },
        Phase::Tombstone { at: now() },
    ] {
        let written = Record { price: Some(0.1), ..record("job-1", phase) };
        store.write(&key("job-1"), &written).unwrap();
        assert_eq!(store.read(&key("job-1")).unwrap(), written);
    }
}

#[test]
fn that_the_backend_had_heard_of_progress_is_kept() {
    let (_dir, store) = store();
    let written = record("job-1", finished(failed()));
    store.write(&key("job-1"), &written).unwrap();
    store.note_progress(&key("job-1")).unwrap();
    let noted = Record { progressed: true, ..written };
    assert_eq!(store.recover(ORIGIN, now()).unwrap().records, [(key("job-1"), noted)]);
}

/// Yesterday's file: should the format change, this must still be read, and the number go up.
#[test]
fn the_format_is_the_released_one() {
    let (_dir, store) = store();
    let key = key("job-1");
    let body = r#"{"id":"job-1","content":"c0ffee","attempt":2,"first_attempt":1,"origin":"http://a:80","kind":"compute","phase":{"finished":{"outcome":{"at":"2026-01-15T10:30:00.120Z","metrics":{"processingTimeSeconds":1.5},"ending":{"failed":{"reason":"nonzero_exit","blame":"job","stage":"run","error":"exit code 3","exit_code":3,"log":["last words"]}}},"waited_seconds":60}}}"#;
    let sha256 = "096a45aa5cc6bad3c27f1f3a2699808d010a378a3753edcbcd50b754736c0b60";
    let written = Record { offer: None, worker: None, ..record("job-1", finished(failed())) };
    store.write(&key, &written).unwrap();
    let text = fs::read_to_string(store.record_path(&key)).unwrap();
    assert_eq!(text, format!(r#"{{"format":1,"sha256":"{sha256}","record":{body}}}"#));
    assert_eq!(store.read(&key).unwrap(), written);
}

#[test]
fn a_record_of_a_newer_version_is_refused_and_left_alone() {
    let (_dir, store) = store();
    let key = key("job-1");
    store.write(&key, &record("job-1", Phase::Taken)).unwrap();
    let sha256 = text::hex(&Sha256::digest(r#"2:["whatever"]"#));
    let newer = format!(r#"{{"format":2,"sha256":"{sha256}","record":["whatever"]}}"#);
    fs::write(store.record_path(&key), &newer).unwrap();
    let error = store.recover(ORIGIN, now()).unwrap_err().to_string();
    assert!(error.contains("was written by a newer version of this program (format 2)"), "{error}");
    assert_eq!(fs::read_to_string(store.record_path(&key)).unwrap(), newer);
}

#[test]
fn another_backends_jobs_are_kept_and_not_touched() {
    let (_dir, store) = store();
    store.write(&key("job-1"), &record("job-1", finished(failed()))).unwrap();
    assert_eq!(store.recover("http://b:80", now()).unwrap().records, []);
    assert_eq!(store.recover(ORIGIN, now()).unwrap().records.len(), 1);
}

#[test]
fn thirty_days_after_delivery_only_the_number_of_attempts_is_remembered() {
    let (_dir, store) = store();
    let delivered = record("job-1", Phase::Delivered { outcome: completed(), at: now() });
    store.write(&key("job-1"), &delivered).unwrap();
    let later = |days: u64| now() + Duration::from_secs(days * 86_400);
    let recovered = |days| store.recover(ORIGIN, later(days)).unwrap().records;
    let tombstone = Record { offer: None, ..record("job-1", Phase::Tombstone { at: now() }) };
    assert_eq!(recovered(29), [(key("job-1"), delivered)]);
    for days in [31, 400] {
        assert_eq!(recovered(days), [(key("job-1"), tombstone.clone())]);
        assert_eq!(store.read(&key("job-1")).unwrap(), tombstone);
    }
}

#[test]
fn what_a_delivered_job_left_waits_in_the_trash_for_its_removal() {
    let (_dir, store) = store();
    let trash = store.dir.join("trash");
    let count = || fs::read_dir(&trash).unwrap().count();
    for id in ["job-1", "job-2"] {
        store.write(&key(id), &record(id, finished(completed()))).unwrap();
        let work = store.make_work(&key(id)).unwrap();
        store.book(&key(id), &Booking::Delivered, 0.0, now()).unwrap();
        assert!(!work.exists());
    }
    store.forget(&key("job-2"));
    assert!(!store.job_dir(&key("job-2")).exists());
    assert_eq!(count(), 3);
    store.trash().empty();
    assert_eq!(count(), 0);
}

#[test]
fn a_folder_without_a_record_was_never_taken() {
    let (_dir, store) = store();
    store.make_work(&key("job-1")).unwrap();
    assert_eq!(store.recover(ORIGIN, now()).unwrap().records, []);
    assert!(!store.job_dir(&key("job-1")).exists());
}

#[test]
fn the_worker_id_is_made_once() {
    let (_dir, store) = store();
    assert_eq!(store.worker_id(|| "first".into()).unwrap(), "first");
    assert_eq!(store.worker_id(|| "second".into()).unwrap(), "first");
}

#[test]
fn nobody_else_can_read_what_is_kept() {
    let (_dir, store) = store();
    store.write(&key("job-1"), &record("job-1", finished(failed()))).unwrap();
    store.book(&key("job-1"), &Booking::Delivered, 2.5, now()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&store.dir), 0o700);
    assert_eq!(mode(&store.record_path(&key("job-1"))), 0o600);
    assert_eq!(mode(&store.dir.join("ledger.jsonl")), 0o600);
    assert_eq!(mode(&store.dir.join("lock")), 0o600);
}

#[test]
fn a_second_agent_on_the_same_state_is_told_who_has_it() {
    let (_dir, store) = store();
    let error = Store::open(&store.dir).map(|_| ()).unwrap_err().to_string();
    let dir = store.dir.display();
    let pid = std::process::id();
    let expected = format!("state directory {dir} is in use by another agent (pid {pid})");
    assert!(error.starts_with(&expected), "{error}");
}
