//! Artefacts: kept by address, checked when taken, dropped when there are too many.

use super::*;
use crate::cid::Cid;

/// So many seconds after the beginning.
fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn put(store: &Store, content: &[u8], now: SystemTime) -> Cid {
    let file = store.dir.join("made");
    fs::write(&file, content).unwrap();
    let address = store.put_artefact(&file, now).unwrap();
    assert!(!file.exists(), "it was moved");
    address.cid
}

fn are_here(store: &Store, cids: &[Cid]) -> Vec<bool> {
    cids.iter().map(|cid| store.dir.join("artefacts").join(cid.to_string()).exists()).collect()
}

/// A job's record whose result names the artefact.
fn outcome_naming(store: &Store, cid: &Cid) -> Key {
    let result = json!({"artefacts": [{"path": "m", "bytes": 1, "cid": cid.to_string()}]});
    let ending = Ending::Completed(result.as_object().cloned().unwrap());
    let outcome = Outcome { ending, ..completed() };
    let finished = Phase::Finished { outcome, waited: Duration::ZERO };
    store.write(&key("job-1"), &record("job-1", finished)).unwrap();
    key("job-1")
}

#[test]
fn an_artefact_is_found_by_its_address_and_is_its_owners_alone() {
    let (_dir, store) = store();
    let cid = put(&store, b"hello world\n", at(0));
    let name = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4";
    assert_eq!(cid.to_string(), name);
    let path = store.artefact(&cid, at(1)).unwrap();
    assert_eq!(path, store.dir.join("artefacts").join(name));
    assert_eq!(fs::read(&path).unwrap(), b"hello world\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let other: Cid = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o".parse().unwrap();
    assert_eq!(store.artefact(&other, at(1)), None);
}

#[test]
fn a_damaged_one_is_set_aside_counts_as_absent_and_can_be_put_again() {
    let (_dir, store) = store();
    let cid = put(&store, b"good", at(0));
    let path = store.artefact(&cid, at(0)).unwrap();
    fs::write(&path, b"evil").unwrap();
    assert_eq!(store.artefact(&cid, at(0)), None);
    assert_eq!(fs::read(path.with_extension("damaged")).unwrap(), b"evil");
    assert_eq!(store.artefact(&cid, at(0)), None);
    put(&store, b"good", at(0));
    assert_eq!(store.artefact(&cid, at(0)), Some(path));
}

#[test]
fn a_link_a_folder_or_nothing_cannot_be_put() {
    let (_dir, store) = store();
    let link = store.dir.join("link");
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    for bad in [link, store.dir.join("jobs"), store.dir.join("absent")] {
        let told = store.put_artefact(&bad, at(0)).unwrap_err().to_string();
        assert!(told.starts_with(&format!("cannot keep {}: ", bad.display())), "{told}");
    }
}

#[test]
fn the_oldest_go_until_the_rest_has_room() {
    let (_dir, store) = store();
    let cids: Vec<_> = (0..4).map(|n| put(&store, &[n; 100], at(n.into()))).collect();
    store.bound_artefacts(400, at(10_000));
    assert_eq!(are_here(&store, &cids), [true, true, true, true]);
    store.bound_artefacts(399, at(10_000));
    assert_eq!(are_here(&store, &cids), [false, true, true, true]);
    store.bound_artefacts(100, at(10_000));
    assert_eq!(are_here(&store, &cids), [false, false, false, true]);
}

#[test]
fn one_that_is_put_again_or_taken_counts_as_new() {
    let (_dir, store) = store();
    let cids: Vec<_> = (0..3).map(|n| put(&store, &[n; 100], at(n.into()))).collect();
    put(&store, &[0; 100], at(100));
    store.artefact(&cids[1], at(101)).unwrap();
    store.bound_artefacts(200, at(10_000));
    assert_eq!(are_here(&store, &cids), [true, true, false]);
}

#[test]
fn what_an_undelivered_result_names_stays_however_full_it_is() {
    let (_dir, store) = store();
    let cids: Vec<_> = (0..2).map(|n| put(&store, &[n; 100], at(n.into()))).collect();
    let key = outcome_naming(&store, &cids[0]);
    store.bound_artefacts(0, at(10_000));
    assert_eq!(are_here(&store, &cids), [true, false]);
    store.book(&key, &Booking::Delivered, 1.0, at(10_000)).unwrap();
    store.bound_artefacts(0, at(10_000));
    assert_eq!(are_here(&store, &cids), [false, false]);
}

#[test]
fn while_a_record_cannot_be_read_nothing_is_dropped() {
    let (_dir, store) = store();
    let cid = put(&store, b"x", at(0));
    let key = outcome_naming(&store, &cid);
    fs::write(store.dir.join("jobs").join(key.as_str()).join("record.json"), b"torn").unwrap();
    store.bound_artefacts(0, at(10_000));
    assert_eq!(are_here(&store, &[cid]), [true]);
}

#[test]
fn what_is_in_use_stays_for_an_hour() {
    let (_dir, store) = store();
    let cid = put(&store, b"x", at(10_000));
    for (now, stays) in [(10_000, true), (13_599, true), (13_600, false)] {
        store.bound_artefacts(0, at(now));
        assert_eq!(are_here(&store, &[cid]), [stays], "{now}");
    }
}

#[test]
fn damaged_ones_go_like_the_others() {
    let (_dir, store) = store();
    let cid = put(&store, b"good", at(0));
    let path = store.artefact(&cid, at(0)).unwrap();
    fs::write(&path, b"evil").unwrap();
    assert_eq!(store.artefact(&cid, at(0)), None);
    store.bound_artefacts(0, at(10_000));
    assert!(!path.with_extension("damaged").exists());
}
