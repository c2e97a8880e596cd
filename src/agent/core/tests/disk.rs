//! Room on the disk, which a job's result will need.

use super::*;

const WANTED: &str = "less than 1 GiB free on the disk of its state";

fn free(desk: &mut Desk, bytes: u64) -> Vec<String> {
    let actions = desk.event_with_log(Event::DiskFree(bytes));
    let lines = actions.into_iter().filter_map(|action| match action {
        Action::Log(level, line) => Some(format!("{level} {line}")),
        _ => None,
    });
    lines.collect()
}

#[test]
fn without_room_no_job_is_taken_and_the_heartbeat_says_why() {
    let mut desk = Desk::online(rules(), vec![]);
    let offers = || vec![offer("job-1")];
    free(&mut desk, (1 << 30) - 1);
    assert_eq!(paused(&mut desk).as_deref(), Some(WANTED));
    assert_eq!(starts(&desk.good_beat(Heard { offers: offers(), ..Heard::default() })), []);
    free(&mut desk, 1 << 30);
    assert_eq!(paused(&mut desk), None);
    let actions = desk.good_beat(Heard { offers: offers(), ..Heard::default() });
    assert_eq!(starts(&actions), [("job-1".to_owned(), 1)]);
}

#[test]
fn what_runs_goes_on_and_is_delivered_without_room() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    free(&mut desk, 0);
    assert_eq!(desk.ends(&key, Verdict::Completed), [send(&key)]);
    let actions = desk.sent(&key, Ok(Receipt::Acknowledged));
    assert_eq!(actions[0], book(&key, Booking::Delivered));
}

#[test]
fn the_log_says_it_when_it_changes() {
    let mut desk = Desk::online(rules(), vec![]);
    let none: [&str; 0] = [];
    assert_eq!(free(&mut desk, 5 << 30), none);
    let short = "WARN no jobs are taken: 512 MiB free on the disk of the state directory, less than --min-free 1 GiB";
    assert_eq!(free(&mut desk, 1 << 29), [short]);
    assert_eq!(free(&mut desk, 1 << 28), none);
    assert_eq!(free(&mut desk, 3 << 29), ["INFO jobs are taken again: 1.5 GiB free on the disk"]);
}

#[test]
fn whoever_wants_no_such_rule_writes_0() {
    let mut desk = Desk::online(Rules { min_free: 0, ..rules() }, vec![]);
    free(&mut desk, 0);
    assert_eq!(paused(&mut desk), None);
}
