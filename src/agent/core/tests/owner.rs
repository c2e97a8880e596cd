//! What the owner says while the agent runs: a pause, and other rules.

use super::*;
use crate::snapshot;

const HOUR: Duration = Duration::from_secs(3600);

fn pause(until: Option<Time>) -> Event {
    Event::Pause(Some(Pause { words: "paused by its owner: gaming".into(), until }))
}

fn busy(jobs: &[&str]) -> Action {
    let jobs = jobs.iter().map(|name| id(name)).collect();
    let paused = Some("paused by its owner: gaming".into());
    Action::Beat { status: Status::Busy, jobs, paused }
}

#[test]
fn a_pause_is_told_at_once_and_no_job_is_taken_until_it_is_over() {
    let mut desk = Desk::online(rules(), vec![]);
    assert_eq!(desk.event(pause(None)), [busy(&[])]);
    assert_eq!(desk.good_beat(Heard { offers: vec![offer("a")], ..Heard::default() }), []);
    assert_eq!(desk.core.view().state, snapshot::State::Paused);
    assert_eq!(desk.event(Event::Pause(None)), [beat(Status::Online, &[])]);
    let actions = desk.good_beat(Heard { offers: vec![offer("a")], ..Heard::default() });
    assert_eq!(starts(&actions), [("a".to_owned(), 1)]);
}

#[test]
fn what_runs_goes_on_while_the_owner_pauses() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("a");
    assert_eq!(desk.event(pause(None)), [busy(&["a"])]);
    desk.good_beat(Heard::default());
    assert_eq!(desk.ends(&key, Verdict::Completed), [send(&key)]);
}

#[test]
fn a_pause_ends_by_itself_with_a_beat() {
    let mut desk = Desk::online(rules(), vec![]);
    let until = desk.now + HOUR;
    desk.event(pause(Some(until)));
    desk.good_beat(Heard::default());
    loop {
        let (_, actions) = desk.wait_due();
        if desk.now >= until {
            assert_eq!(actions, [beat(Status::Online, &[])]);
            break assert_eq!(desk.now, until, "at its end, and not at some beat after");
        }
        assert_eq!(actions, [busy(&[])]);
        desk.good_beat(Heard::default());
    }
}

#[test]
fn a_pause_that_is_said_again_is_no_news_but_its_end_may_move() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.event(pause(Some(desk.now + HOUR)));
    desk.good_beat(Heard::default());
    let sooner = desk.now + Duration::from_secs(1);
    assert_eq!(desk.event_with_log(pause(Some(sooner))), [], "the clock was set");
    assert_eq!(desk.core.view().paused_until, Some(sooner));
    assert_eq!(desk.wait(1), [beat(Status::Online, &[])]);
    desk.good_beat(Heard::default());
    assert_eq!(desk.event_with_log(pause(Some(sooner))), [], "it is over");
}

#[test]
fn a_job_of_an_earlier_run_waits_for_the_end_of_the_pause() {
    let how = LeftHow::Taken(Box::new(offer("a")));
    let left = Left { key: key("a"), attempt: attempt("a", 1), how };
    let mut desk = Desk::with(rules(), vec![left]);
    desk.event(pause(None));
    desk.event(Event::Registered(Ok(())));
    assert!(!desk.good_beat(Heard::default()).contains(&ask("a")));
    assert!(desk.event(Event::Pause(None)).contains(&ask("a")));
}

#[test]
fn nothing_is_measured_while_the_owner_wants_the_machine() {
    let mut desk = Desk::with(rules(), vec![]);
    desk.tick();
    desk.event(Event::SpeedUnknown);
    desk.event(pause(None));
    desk.event(Event::Registered(Ok(())));
    assert!(!desk.good_beat(Heard::default()).contains(&Action::Measure));
    assert!(desk.event(Event::Pause(None)).contains(&Action::Measure));
}

#[test]
fn other_rules_hold_from_the_next_beat_on() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.running("a");
    let minute = Duration::from_secs(60);
    let two = Rules { slots: 2, heartbeat_interval: minute, ..rules() };
    assert_eq!(desk.event(Event::Reloaded(Box::new(two))), [beat(Status::Online, &["a"])]);
    let actions = desk.good_beat(Heard { offers: vec![offer("b")], ..Heard::default() });
    assert_eq!(starts(&actions), [("b".to_owned(), 1)]);
    let view = desk.core.view();
    assert_eq!((view.slots, view.interval, view.jobs.len()), (2, minute, 2));
}

#[test]
fn fewer_slots_than_jobs_end_none_of_them() {
    let mut desk = Desk::online(Rules { slots: 2, ..rules() }, vec![]);
    desk.running("a");
    desk.running("b");
    let actions = desk.event(Event::Reloaded(Box::new(rules())));
    assert_eq!(actions, [beat(Status::Busy, &["a", "b"])]);
}

#[test]
fn the_view_tells_state_and_reason_of_each_stretch_of_its_life() {
    let mut desk = Desk::new();
    let state = |desk: &Desk| desk.core.view().state;
    assert_eq!(state(&desk), snapshot::State::Starting);
    desk.tick();
    desk.event(Event::Registered(Err(RegisterError::Call(unreachable()))));
    assert_eq!(state(&desk), snapshot::State::Unreachable);
    let ailment = desk.core.view().ailment.unwrap();
    assert_eq!((ailment.what, ailment.since), ("backend unreachable", desk.now));
    assert!(!desk.core.view().registered);
    desk.wait_due();
    desk.event(Event::Registered(Ok(())));
    desk.good_beat(Heard::default());
    assert_eq!(state(&desk), snapshot::State::Online);
    let key = desk.running("a");
    desk.event(Event::Progress { key: key.clone(), report: report(42) });
    let view = desk.core.view();
    let job = &view.jobs[0];
    assert_eq!((view.state, &job.id, job.seen.percent), (snapshot::State::Busy, &"a".into(), 42));
    assert_eq!(job.seen.kind, "compute");
    desk.ends(&key, Verdict::Completed);
    let counts = desk.core.view().counts;
    assert_eq!((counts.completed, counts.registrations, counts.heartbeats), (1, 1, 2));
    desk.event(Event::Stop(StopRequest::Drain));
    assert_eq!(state(&desk), snapshot::State::Stopping);
}
