//! The ledger: one line an attempt, whatever happens between the steps of a booking.

use super::*;

const CID: &str = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4";

fn ledger(store: &Store) -> PathBuf {
    store.dir.join("ledger.jsonl")
}

fn lines(path: &Path) -> Vec<Object> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(store: &Store) -> Vec<String> {
    let id = |line: &Object| line["id"].as_str().unwrap().to_owned();
    lines(&ledger(store)).iter().map(id).collect()
}

fn book(store: &Store, id: &str) {
    store.book(&key(id), &Booking::Delivered, 2.5, now()).unwrap();
}

/// A job whose outcome waits to be booked.
fn finish(store: &Store, id: &str) {
    store.write(&key(id), &record(id, finished(completed()))).unwrap();
}

fn is_delivered(store: &Store, id: &str) -> bool {
    store.read(&key(id)).unwrap().phase.is_over()
}

#[test]
fn a_delivered_job_is_one_line_however_often_it_is_booked() {
    let (_dir, store) = store();
    let key = key("job-1");
    let mut outcome = completed();
    outcome.metrics.insert("energyKwh".into(), json!(0.25));
    outcome.gpus = vec!["GPU-1".into()];
    let Ending::Completed(result) = &mut outcome.ending else { panic!("{outcome:?}") };
    result.insert("artefacts".into(), json!([{"cid": CID}]));
    store.write(&key, &record("job-1", finished(outcome))).unwrap();
    let work = store.make_work(&key).unwrap();
    for _ in 0..2 {
        book(&store, "job-1");
    }
    let expected = json!({
        "id": "job-1", "attempt": 2, "kind": "compute", "status": "completed", "reason": null,
        "seconds": 1.5, "kwh": 0.25, "price": 2.5, "amount": 0.001042, "gpus": ["GPU-1"],
        "cids": [CID], "origin": ORIGIN,
        "ended": "2026-01-15T10:30:00.120Z", "booked": "2026-01-15T10:31:40.000Z",
    });
    assert_eq!(lines(&ledger(&store)), [expected.as_object().cloned().unwrap()]);
    assert!(!work.exists(), "the work folder goes with the delivery");
}

#[test]
fn an_attempt_earns_by_the_price_at_which_it_was_taken_or_else_by_the_one_of_now() {
    let (_dir, store) = store();
    let hour = json!({"processingTimeSeconds": 3600}).as_object().cloned().unwrap();
    for (id, price) in [("taken-at-4", Some(4.0)), ("of-an-older-version", None)] {
        let phase = finished(Outcome { metrics: hour.clone(), ..completed() });
        store.write(&key(id), &Record { price, ..record(id, phase) }).unwrap();
        book(&store, id);
    }
    let told: Vec<_> = lines(&ledger(&store))
        .iter()
        .map(|line| ["price", "amount"].map(|name| line[name].as_f64().unwrap()))
        .collect();
    assert_eq!(told, [[4.0, 4.0], [2.5, 2.5]]);
}

#[test]
fn a_kill_before_the_line_leaves_the_outcome_waiting() {
    let (_dir, store) = store();
    finish(&store, "job-1");
    store.recover(ORIGIN, now()).unwrap();
    assert!(!is_delivered(&store, "job-1"));
    book(&store, "job-1");
    assert_eq!(ids(&store), ["job-1"]);
}

#[test]
fn a_kill_between_the_line_and_the_record_ends_as_delivered_with_one_line() {
    let (_dir, store) = store();
    let key = key("job-1");
    finish(&store, "job-1");
    let waiting = fs::read(store.record_path(&key)).unwrap();
    book(&store, "job-1");
    fs::write(store.record_path(&key), waiting).unwrap();
    let work = store.make_work(&key).unwrap();

    let found = store.recover(ORIGIN, now()).unwrap();
    let delivered = Phase::Delivered { outcome: completed(), at: now() };
    assert_eq!(found.records, [(key, record("job-1", delivered))]);
    assert!(is_delivered(&store, "job-1"));
    assert!(!work.exists());
    assert_eq!(ids(&store), ["job-1"]);
}

#[test]
fn a_kill_between_the_record_and_the_work_folder_leaves_no_work_folder() {
    let (_dir, store) = store();
    finish(&store, "job-1");
    book(&store, "job-1");
    let work = store.make_work(&key("job-1")).unwrap();
    store.recover(ORIGIN, now()).unwrap();
    assert!(!work.exists());
    assert_eq!(ids(&store), ["job-1"]);
}

#[test]
fn a_line_about_another_attempt_or_outcome_does_not_end_a_delivery() {
    let later = Outcome { at: now(), ..completed() };
    let mut next = record("job-1", finished(completed()));
    next.attempt.number = 3;
    for waiting in [next, record("job-1", finished(later))] {
        let (_dir, store) = store();
        finish(&store, "job-1");
        book(&store, "job-1");
        store.write(&key("job-1"), &waiting).unwrap();
        assert_eq!(store.recover(ORIGIN, now()).unwrap().records, [(key("job-1"), waiting)]);
    }
}

#[test]
fn wherever_the_ledger_is_cut_the_whole_lines_stay_and_the_rest_is_kept_aside() {
    let (_dir, store) = store();
    for id in ["job-1", "job-2"] {
        finish(&store, id);
        book(&store, id);
    }
    let whole = fs::read(ledger(&store)).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let quarantine = store.dir.join("quarantine");
    // Every byte of the last line, and of the line before it the ends.
    for at in (first - 1..=whole.len()).chain([0, 1]) {
        fs::write(ledger(&store), &whole[..at]).unwrap();
        let damage = store.recover(ORIGIN, now()).unwrap().damage;

        let stays = [whole.len(), first, 0].into_iter().find(|end| *end <= at).unwrap();
        assert_eq!(fs::read(ledger(&store)).unwrap(), &whole[..stays], "cut at {at}");
        let aside: Vec<_> = fs::read_dir(&quarantine).into_iter().flatten().collect();
        let aside: Vec<_> =
            aside.into_iter().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
        let torn = &whole[stays..at];
        assert_eq!(aside, if torn.is_empty() { vec![] } else { vec![torn.to_vec()] });
        assert_eq!(damage.len(), usize::from(!torn.is_empty()), "{damage:?}");
        assert_eq!(store.recover(ORIGIN, now()).unwrap().damage, [""; 0], "it is said once");

        fs::remove_dir_all(&quarantine).ok();
    }
}

#[test]
fn whatever_stands_at_the_end_of_the_ledger_is_moved_aside() {
    let (_dir, store) = store();
    for garbage in [&b"\0\0\0\0"[..], b"\n", b"\n\n{}x\n", b"null\n", b"\xff\xfe\n{\"id\":"] {
        finish(&store, "job-1");
        book(&store, "job-1");
        let whole = fs::read(ledger(&store)).unwrap();
        fs::write(ledger(&store), [&whole, garbage].concat()).unwrap();
        let damage = store.recover(ORIGIN, now()).unwrap().damage;
        let start =
            format!("{} was damaged: its last {} bytes", ledger(&store).display(), garbage.len());
        assert!(damage.len() == 1 && damage[0].starts_with(&start), "{damage:?}");
        assert_eq!(fs::read(ledger(&store)).unwrap(), whole);
        fs::remove_file(ledger(&store)).unwrap();
    }
}

#[test]
fn a_full_ledger_makes_room_and_both_of_them_are_looked_into() {
    let (_dir, store) = store();
    let older = store.dir.join("ledger.1.jsonl");
    finish(&store, "job-1");
    let waiting = fs::read(store.record_path(&key("job-1"))).unwrap();
    book(&store, "job-1");
    // Another line would not fit any more.
    let line = fs::read(ledger(&store)).unwrap();
    let filler = vec![b'\n'; (16 << 20) - line.len()];
    fs::write(ledger(&store), [filler, line].concat()).unwrap();
    finish(&store, "job-2");
    book(&store, "job-2");
    assert_eq!(fs::metadata(&older).unwrap().len(), 16 << 20);
    assert_eq!(ids(&store), ["job-2"]);

    fs::write(store.record_path(&key("job-1")), waiting).unwrap();
    store.recover(ORIGIN, now()).unwrap();
    assert!(is_delivered(&store, "job-1"));
}

#[test]
fn a_torn_line_that_cannot_be_kept_aside_stays_and_spoils_no_other() {
    let (_dir, store) = store();
    fs::write(store.dir.join("quarantine"), "in the way").unwrap();
    fs::write(ledger(&store), "{\"id\":").unwrap();
    let damage = store.recover(ORIGIN, now()).unwrap().damage;
    assert!(damage.len() == 1 && damage[0].contains("its last 6 bytes stay there: "), "{damage:?}");
    finish(&store, "job-1");
    book(&store, "job-1");
    let text = fs::read_to_string(ledger(&store)).unwrap();
    let (torn, line) = text.split_once('\n').unwrap();
    assert_eq!(torn, "{\"id\":");
    assert_eq!(serde_json::from_str::<Object>(line).unwrap()["id"], "job-1");
}

#[test]
fn a_booking_that_is_made_again_adds_no_second_line() {
    let (_dir, store) = store();
    let key = key("job-1");
    finish(&store, "job-1");
    let waiting = fs::read(store.record_path(&key)).unwrap();
    book(&store, "job-1");
    // As if only the line had found room.
    fs::write(store.record_path(&key), waiting).unwrap();
    finish(&store, "job-2");
    let keys = [key, super::key("job-2"), super::key("job-3")];
    let mut unbooked = BTreeMap::from(keys.map(|key| (key, Booking::Delivered)));
    store.book_again(&mut unbooked, 2.5, now());
    assert!(is_delivered(&store, "job-1") && is_delivered(&store, "job-2"));
    assert_eq!(ids(&store), ["job-1", "job-2"]);
    assert_eq!(unbooked.into_keys().collect::<Vec<_>>(), [super::key("job-3")], "not recorded yet");
}
