//! Stopping: by signals, when enough jobs were taken, when there is nothing to do.

use super::*;

fn drain() -> Event {
    Event::Stop(StopRequest::Drain)
}

fn offline(jobs: &[&str]) -> Action {
    let Action::Beat { jobs, .. } = beat(Status::Offline, jobs) else { unreachable!() };
    Action::Beat { status: Status::Offline, jobs, paused: Some("stopping".into()) }
}

fn stop_order(key: &Key) -> Action {
    Action::Order { key: key.clone(), order: Order::Stop }
}

#[test]
fn the_first_signal_lets_running_jobs_finish_and_takes_nothing_new() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    assert_eq!(desk.event(drain()), []);
    let Action::Beat { status, paused, .. } = desk.next_beat() else { panic!("no beat") };
    assert_eq!((status, paused.as_deref()), (Status::Busy, Some("stopping")));
    assert_eq!(
        starts(&desk.good_beat(Heard { offers: vec![offer("new")], ..Heard::default() })),
        []
    );
    assert_eq!(desk.ends(&key, Verdict::Completed), [send(&key)]);
    assert_eq!(
        desk.sent(&key, Ok(Receipt::Acknowledged)),
        [book(&key, Booking::Delivered), offline(&[])]
    );
    assert_eq!(desk.good_beat(Heard::default()), [Action::Exit(Exit::Stopped)]);
}

#[test]
fn an_idle_agent_says_offline_and_leaves() {
    let mut desk = Desk::online(rules(), vec![]);
    assert_eq!(desk.event(drain()), [offline(&[])]);
    assert_eq!(desk.good_beat(Heard::default()), [Action::Exit(Exit::Stopped)]);
}

#[test]
fn the_second_signal_cancels_and_says_offline_before_the_failure() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    desk.event(drain());
    assert_eq!(desk.event(drain()), [stop_order(&key), offline(&["job-1"])]);
    // The failure waits until that was said.
    let failed = Verdict::Failed(Blame::Worker);
    assert_eq!(desk.ends(&key, failed), []);
    assert_eq!(desk.good_beat(Heard::default()), [send(&key)]);
    assert_eq!(
        desk.sent(&key, Ok(Receipt::Acknowledged)),
        [book(&key, Booking::Delivered), offline(&[])]
    );
    assert_eq!(desk.good_beat(Heard::default()), [Action::Exit(Exit::Stopped)]);
}

#[test]
fn the_third_signal_leaves_at_once() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.running("job-1");
    desk.event(drain());
    desk.event(drain());
    assert_eq!(desk.event(drain()), [Action::ExitNow(Exit::Stopped)]);
}

#[test]
fn a_signal_sent_twice_to_an_idle_agent_takes_nothing_from_its_farewell() {
    let mut desk = Desk::online(rules(), vec![]);
    assert_eq!(desk.event(drain()), [offline(&[])]);
    assert_eq!(desk.event(drain()), []);
    assert_eq!(desk.event(drain()), [Action::ExitNow(Exit::Stopped)]);
}

#[test]
fn quit_cancels_at_once() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    let actions = desk.event(Event::Stop(StopRequest::Cancel));
    assert_eq!(actions, [stop_order(&key), offline(&["job-1"])]);
}

#[test]
fn a_drain_that_takes_too_long_cancels() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    desk.event(drain());
    desk.now += Duration::from_secs(600);
    let actions = desk.tick();
    assert_eq!(actions, [stop_order(&key), offline(&["job-1"])]);
}

#[test]
fn offline_waits_for_the_beat_under_way() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.next_beat();
    assert_eq!(desk.event(drain()), []);
    assert_eq!(desk.good_beat(Heard::default()), [offline(&[])]);
    assert_eq!(desk.good_beat(Heard::default()), [Action::Exit(Exit::Stopped)]);
}

#[test]
fn an_unreachable_backend_holds_the_exit_up_for_a_bounded_time() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    desk.event(Event::Stop(StopRequest::Cancel));
    desk.ends(&key, Verdict::Failed(Blame::Worker));
    assert_eq!(desk.bad_beat(unreachable()), [send(&key)]);
    let began = desk.now;
    desk.sent(&key, Err(unreachable()));
    let mut actions = vec![];
    while !actions.contains(&Action::Exit(Exit::Stopped)) {
        (_, actions) = desk.wait_due();
        assert!(desk.now - began <= Duration::from_secs(20), "it does not leave");
    }
}

#[test]
fn before_any_registration_there_is_nobody_to_say_offline_to() {
    let mut desk = Desk::new();
    desk.tick();
    assert_eq!(desk.event(drain()), [Action::Exit(Exit::Stopped)]);
}

#[test]
fn once_takes_one_job_waits_for_its_delivery_and_leaves() {
    let once = || Rules { max_jobs: Some(1), ..rules() };
    for (verdict, exit) in
        [(Verdict::Completed, Exit::Stopped), (Verdict::Failed(Blame::Job), Exit::JobFailed)]
    {
        let mut desk = Desk::online(once(), vec![]);
        let key = desk.running("job-1");
        desk.ends(&key, verdict);
        assert!(!desk.sent(&key, Err(unreachable())).contains(&offline(&[])), "not yet delivered");
        desk.good_beat(Heard::default());
        while !desk.wait_due().1.contains(&ask("job-1")) {
            desk.good_beat(Heard::default());
        }
        desk.asked(&key, Ok(JobState::Unknown));
        let actions = desk.sent(&key, Ok(Receipt::Acknowledged));
        assert_eq!(actions, [book(&key, Booking::Delivered), offline(&[])]);
        assert_eq!(desk.good_beat(Heard::default()), [Action::Exit(exit)]);
    }
}

#[test]
fn a_declined_job_does_not_count_for_once() {
    let mut desk = Desk::online(Rules { max_jobs: Some(1), ..rules() }, vec![]);
    desk.offered(vec![bad_offer("bad")]);
    let bad = key("bad");
    desk.ends(&bad, Verdict::Declined(Blame::Job));
    desk.sent(&bad, Ok(Receipt::Acknowledged));
    desk.running("job-1");
}

#[test]
fn nothing_to_do_for_so_long_ends_the_run_and_work_begins_the_time_anew() {
    let idle = Duration::from_secs(100);
    let mut desk = Desk::online(Rules { exit_when_idle: Some(idle), ..rules() }, vec![]);
    desk.delivered("job-1", Verdict::Completed);
    let since = desk.now;
    loop {
        let (_, actions) = desk.wait_due();
        if actions.contains(&offline(&[])) {
            break;
        }
        desk.good_beat(Heard::default());
    }
    let waited = desk.now - since;
    assert!((Duration::from_secs(99)..=idle).contains(&waited), "{waited:?}");
}

#[test]
fn a_backend_that_is_not_up_yet_is_not_idleness() {
    let idle = Some(Duration::from_secs(1));
    let mut desk = Desk::with(Rules { exit_when_idle: idle, ..rules() }, vec![]);
    desk.tick();
    desk.event(Event::Registered(Err(RegisterError::Call(unreachable()))));
    assert_eq!(desk.wait(3600), [Action::Register]);
}
