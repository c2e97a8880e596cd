//! Records that do not read back: their jobs are lost, never new, and never something else.

use super::*;

/// Damages in turn: cut before every byte, every byte changed in several ways.
fn damages(whole: &[u8]) -> Vec<Vec<u8>> {
    let mut damages: Vec<Vec<u8>> = (0..whole.len()).map(|at| whole[..at].to_vec()).collect();
    for at in 0..whole.len() {
        for mask in [0x01, 0x02, 0x20, 0x80, 0xff] {
            let mut flipped = whole.to_vec();
            flipped[at] ^= mask;
            damages.push(flipped);
        }
    }
    damages
}

fn phases() -> [Phase; 4] {
    let handle = Handle::Process(ProcessHandle { pid: 7, start_time: 99, boot_id: "b".into() });
    let delivered = Phase::Delivered { outcome: completed(), at: now() };
    [Phase::Taken, Phase::Running(handle), finished(completed()), delivered]
}

/// The record of a job that was found damaged.
fn lost(id: &str) -> Record {
    let error = "lost: its record was damaged".to_owned();
    let failure = Failure::of_worker(Reason::Lost, Stage::Run, error);
    let outcome = Outcome::without_run(Ending::Failed(failure), now());
    let phase = Phase::Finished { outcome, waited: Duration::ZERO };
    Record { offer: None, ..record(id, phase) }
}

fn ids_of_quarantine(store: &Store) -> Vec<String> {
    let dir = fs::read_dir(store.dir.join("quarantine")).into_iter().flatten();
    dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_file_with_any_byte_changed_or_cut_off_never_reads_as_something_else() {
    let (_dir, store) = store();
    let key = key("job-1");
    for phase in phases() {
        let written = record("job-1", phase);
        store.write(&key, &written).unwrap();
        for (path, right) in
            [(store.record_path(&key), &written), (store.id_path(&key), &written.first())]
        {
            let whole = fs::read(&path).unwrap();
            for damaged in damages(&whole) {
                match record::parse(&damaged) {
                    Err(ReadError::Damaged(_)) => {}
                    Ok(read) => assert_eq!(read, *right),
                    Err(other) => panic!("{}: {other:?}", String::from_utf8_lossy(&damaged)),
                }
            }
        }
    }
}

#[test]
fn a_damaged_record_is_moved_aside_and_reported_once_and_its_job_is_lost() {
    for phase in phases() {
        let (_dir, store) = store();
        let (key, path) = (key("job-1"), store.record_path(&key("job-1")));
        store.write(&key, &record("job-1", phase)).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();

        let found = store.recover(ORIGIN, now()).unwrap();
        assert_eq!(found.records, [(key.clone(), lost("job-1"))]);
        let [line] = &found.damage[..] else { panic!("{:?}", found.damage) };
        assert!(line.starts_with(&format!("{} is damaged (", path.display())), "{line}");
        assert!(line.ends_with("; job=job-1 counts as lost"), "{line}");
        assert_eq!(ids_of_quarantine(&store), [format!("{}.json", key.as_str())]);

        let found = store.recover(ORIGIN, now() + Duration::from_secs(60)).unwrap();
        assert_eq!(found.records, [(key, lost("job-1"))]);
        assert_eq!(found.damage, [""; 0]);
    }
}

#[test]
fn a_kill_before_the_loss_is_recorded_leads_to_the_same_end() {
    let (_dir, store) = store();
    let key = key("job-1");
    store.write(&key, &record("job-1", Phase::Taken)).unwrap();
    fs::write(store.record_path(&key), "{").unwrap();
    // As far as the first step.
    quarantine::keep(&store.dir.join("quarantine"), &format!("{}.json", key.as_str()), b"{")
        .unwrap();
    assert_eq!(store.recover(ORIGIN, now()).unwrap().records, [(key, lost("job-1"))]);
    assert_eq!(ids_of_quarantine(&store).len(), 1);
}

#[test]
fn the_loss_is_that_of_the_last_attempt() {
    let (_dir, store) = store();
    let key = key("job-1");
    store.write(&key, &record("job-1", finished(failed()))).unwrap();
    store.book(&key, &Booking::Delivered, 2.5, now()).unwrap();
    let mut next = record("job-1", Phase::Taken);
    next.attempt.number = 3;
    store.write(&key, &next).unwrap();
    fs::write(store.record_path(&key), "").unwrap();
    let found = store.recover(ORIGIN, now()).unwrap().records;
    assert_eq!(found, [(key, Record { attempt: next.attempt, ..lost("job-1") })]);
}

/// A loss that is told of a job long paid could undo that.
#[test]
fn a_damaged_record_of_an_attempt_in_the_ledger_is_no_loss() {
    let (_dir, store) = store();
    let key = key("job-1");
    store.write(&key, &record("job-1", finished(completed()))).unwrap();
    store.book(&key, &Booking::Delivered, 2.5, now()).unwrap();
    fs::write(store.record_path(&key), "").unwrap();
    let found = store.recover(ORIGIN, now()).unwrap();
    let tombstone = Record { offer: None, ..record("job-1", Phase::Tombstone { at: now() }) };
    assert_eq!(found.records, [(key, tombstone)]);
    assert!(found.damage[0].ends_with("; job=job-1 was delivered before"), "{:?}", found.damage);
}

#[test]
fn a_job_that_nothing_is_known_of_is_only_moved_aside() {
    let (_dir, store) = store();
    let key = key("job-1");
    store.write(&key, &record("job-1", Phase::Taken)).unwrap();
    fs::write(store.record_path(&key), "x").unwrap();
    fs::write(store.id_path(&key), "y").unwrap();
    let found = store.recover(ORIGIN, now()).unwrap();
    assert_eq!((found.records.len(), found.damage.len()), (0, 1));
    assert!(!store.job_dir(&key).exists());
    assert_eq!(ids_of_quarantine(&store).len(), 1);
}

#[test]
fn what_a_job_is_known_by_is_written_once_an_attempt_and_before_its_record() {
    let (_dir, store) = store();
    let (key, path) = (key("job-1"), store.id_path(&key("job-1")));
    let mut written = record("job-1", Phase::Taken);
    store.write(&key, &written).unwrap();
    let made = fs::metadata(&path).unwrap().modified().unwrap();
    written.phase = finished(completed());
    store.write(&key, &written).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), made);
    written.attempt.number = 3;
    store.write(&key, &written).unwrap();
    assert_eq!(record::read(&path).unwrap(), written.first());

    // Killed in between: the job was never taken.
    fs::remove_file(store.record_path(&key)).unwrap();
    assert_eq!(store.recover(ORIGIN, now()).unwrap().records, []);
    assert!(!store.job_dir(&key).exists());
}

/// As a bad sector makes it, or a permission that was removed.
#[test]
fn a_record_that_cannot_be_read_is_moved_aside_unread_and_its_job_is_lost() {
    let (_dir, store) = store();
    let (key, path) = (key("job-1"), store.record_path(&key("job-1")));
    store.write(&key, &record("job-1", Phase::Taken)).unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();

    let found = store.recover(ORIGIN, now()).unwrap();
    assert_eq!(found.records, [(key.clone(), lost("job-1"))]);
    let [line] = &found.damage[..] else { panic!("{:?}", found.damage) };
    assert!(line.starts_with(&format!("{} cannot be read (", path.display())), "{line}");
    assert!(line.ends_with("; job=job-1 counts as lost"), "{line}");
    assert_eq!(ids_of_quarantine(&store), [format!("{}.json", key.as_str())]);
    assert_eq!(store.read(&key).unwrap(), lost("job-1"));
}

#[test]
fn a_record_that_can_be_neither_read_nor_replaced_is_a_loss_to_be_recorded_later() {
    let (_dir, store) = store();
    let (key, path) = (key("job-1"), store.record_path(&key("job-1")));
    store.write(&key, &record("job-1", Phase::Taken)).unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    store.write(&super::key("job-2"), &record("job-2", Phase::Taken)).unwrap();

    let found = store.recover(ORIGIN, now()).unwrap();
    assert_eq!(found.records.len(), 1, "the others are as they were");
    let [loss] = &found.losses[..] else { panic!("{:?}", found.losses) };
    assert_eq!(loss.key, key);
    fs::remove_dir(&path).unwrap();
    assert_eq!(store.lose(loss, now()).unwrap(), lost("job-1"));
}

#[test]
fn a_record_that_cannot_be_kept_aside_is_a_loss_all_the_same() {
    let (_dir, store) = store();
    let key = key("job-1");
    store.write(&key, &record("job-1", Phase::Taken)).unwrap();
    fs::write(store.record_path(&key), "x").unwrap();
    fs::write(store.dir.join("quarantine"), "in the way").unwrap();
    let found = store.recover(ORIGIN, now()).unwrap();
    assert_eq!(found.records, [(key, lost("job-1"))]);
    assert!(found.damage[0].contains(" and was not kept aside: "), "{:?}", found.damage);
}

#[test]
fn a_damaged_number_of_the_format_is_not_taken_for_a_newer_version() {
    let (_dir, store) = store();
    let (key, written) = (key("job-1"), record("job-1", finished(completed())));
    store.write(&key, &written).unwrap();
    let text = fs::read_to_string(store.record_path(&key)).unwrap();
    for number in ["0", "3", "9"] {
        let flipped = text.replacen(r#""format":1"#, &format!(r#""format":{number}"#), 1);
        fs::write(store.record_path(&key), flipped).unwrap();
        let found = store.recover(ORIGIN, now()).unwrap();
        assert_eq!((found.records, found.damage), (vec![(key.clone(), written.clone())], vec![]));
    }
}

#[test]
fn what_a_kill_left_of_a_file_that_was_being_written_is_removed() {
    let (_dir, store) = store();
    let key = key("job-1");
    store.write(&key, &record("job-1", finished(completed()))).unwrap();
    let left = [store.dir.join(".tmpAbCdEf"), store.job_dir(&key).join(".tmpGhIjKl")];
    for path in &left {
        fs::write(path, "half").unwrap();
    }
    store.recover(ORIGIN, now()).unwrap();
    assert_eq!(left.map(|path| path.exists()), [false, false]);
}

#[test]
fn fuzz_record() {
    const WORDS: [&str; 16] = [
        "{",
        "}",
        "\"",
        ",",
        "null",
        "-1",
        "18446744073709551616",
        "\"taken\"",
        "\"running\":",
        "\"finished\":",
        "\"delivered\":",
        "\"tombstone\":",
        "\"failed\":",
        "\"cancelled\"",
        "\"at\":\"2026-01-01T00:00:00Z\"",
        "\\u0000",
    ];
    let (_dir, store) = store();
    let path = store.record_path(&key("job-1"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    crate::fuzz::run("record", &WORDS, |bytes| {
        // As it stands; and as a record with the checksum that belongs to it, as no damage has it.
        let as_it_stands = match record::parse(bytes) {
            Ok(_) => "a record".to_owned(),
            Err(error) => error.to_string(),
        };
        let Ok(text) = str::from_utf8(bytes) else { return as_it_stands };
        let sum = text::hex(&Sha256::digest(text));
        let framed = format!(r#"{{"format":1,"sha256":"{sum}","record":{text}}}"#);
        match record::parse(framed.as_bytes()) {
            Ok(read) => {
                // Times are written to the millisecond.
                record::write(&path, &read).unwrap();
                let again = record::read(&path).unwrap();
                record::write(&path, &again).unwrap();
                assert_eq!(record::read(&path).unwrap(), again);
                "another record".into()
            }
            Err(error) => error.to_string(),
        }
    });
}
