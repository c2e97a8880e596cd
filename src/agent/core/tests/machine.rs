//! Facts of the machine that change, and its speed that is to be measured.

use super::*;

/// Online, with a speed that is not known.
fn unmeasured(rules: Rules, left: Vec<Left>) -> Desk {
    let mut desk = Desk::with(rules, left);
    assert_eq!(desk.tick(), [Action::Register]);
    assert_eq!(desk.event(Event::SpeedUnknown), []);
    desk.event(Event::Registered(Ok(())));
    desk
}

fn measured(desk: &mut Desk, answer: Result<f64, &str>) -> Vec<Action> {
    desk.event(Event::Measured(answer.map_err(str::to_owned)))
}

#[test]
fn other_facts_are_registered_at_once_and_beats_go_on_after() {
    let mut desk = Desk::online(rules(), vec![]);
    assert_eq!(desk.event(Event::MachineChanged), [Action::Register]);
    let beat = beat(Status::Online, &[]);
    assert_eq!(desk.event(Event::Registered(Ok(()))), [beat]);
    assert_eq!(desk.good_beat(Heard::default()), []);
    assert!(matches!(desk.next_beat(), Action::Beat { .. }), "and not one more registration");
}

#[test]
fn facts_that_change_during_a_beat_are_registered_after_it() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.next_beat();
    assert_eq!(desk.event(Event::MachineChanged), []);
    assert_eq!(desk.good_beat(Heard::default()), [Action::Register]);
}

#[test]
fn a_registration_by_choice_that_fails_does_not_hold_up_the_beats() {
    let mut desk = Desk::online(rules(), vec![]);
    assert_eq!(desk.event(Event::MachineChanged), [Action::Register]);
    let refused = || Err(RegisterError::Call(status_error(422, true, None)));
    let (mut tries, mut lines) = (0, 0);
    let end = desk.now + Duration::from_secs(3600);
    let mut actions = desk.event_with_log(Event::Registered(refused()));
    while desk.now < end {
        lines += actions.iter().filter(|action| matches!(action, Action::Log(..))).count();
        actions = if actions.contains(&Action::Register) {
            tries += 1;
            let actions = desk.event_with_log(Event::Registered(refused()));
            assert!(actions.contains(&beat(Status::Online, &[])), "a beat at once: {actions:?}");
            actions
        } else if actions.contains(&beat(Status::Online, &[])) {
            desk.good_beat(Heard::default())
        } else {
            desk.wait_due().1
        };
    }
    assert!((8..=24).contains(&tries), "{tries} tries in an hour, ever less often");
    assert_eq!(lines, 1, "said once");
}

#[test]
fn a_worker_that_stops_while_it_registers_other_facts_says_offline() {
    let mut desk = Desk::online(rules(), vec![]);
    assert_eq!(desk.event(Event::MachineChanged), [Action::Register]);
    assert_eq!(desk.event(Event::Stop(StopRequest::Drain)), []);
    let actions = desk.event(Event::Registered(Ok(())));
    let paused = Some("stopping".into());
    assert_eq!(actions, [Action::Beat { status: Status::Offline, jobs: vec![], paused }]);
}

#[test]
fn a_registration_by_choice_that_fails_while_it_drains_is_not_tried_again() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.running("job-1");
    assert_eq!(desk.event(Event::MachineChanged), [Action::Register]);
    desk.event(Event::Stop(StopRequest::Drain));
    desk.event(Event::Registered(Err(RegisterError::Call(unreachable()))));
    for _ in 0..5 {
        desk.good_beat(Heard::default());
        let (_, actions) = desk.wait_due();
        assert!(!actions.contains(&Action::Register), "{actions:?}");
    }
}

#[test]
fn facts_wait_while_the_backend_is_in_trouble() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.next_beat();
    desk.bad_beat(unreachable());
    assert_eq!(desk.event(Event::MachineChanged), []);
    desk.next_beat();
    assert_eq!(desk.good_beat(Heard::default()), [Action::Register]);
}

#[test]
fn whoever_stops_registers_no_other_facts() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.running("job-1");
    desk.event(Event::Stop(StopRequest::Drain));
    assert_eq!(desk.event(Event::MachineChanged), []);
}

#[test]
fn the_speed_is_measured_after_the_first_beat_and_then_registered() {
    let mut desk = unmeasured(rules(), vec![]);
    assert_eq!(desk.good_beat(Heard::default()), [Action::Measure]);
    assert_eq!(measured(&mut desk, Ok(812.4)), [Action::StopMeasuring, Action::Register]);
    desk.event(Event::Registered(Ok(())));
    assert_eq!(desk.good_beat(Heard::default()), [], "once is enough");
}

#[test]
fn nothing_is_measured_while_a_job_runs_or_waits_to_run() {
    let mut desk = unmeasured(rules(), vec![]);
    let offers = vec![offer("a"), offer("b")];
    let actions = desk.good_beat(Heard { offers, ..Heard::default() });
    assert_eq!(starts(&actions), [("a".to_owned(), 1)]);
    assert!(!actions.contains(&Action::Measure));
    desk.ends(&key("a"), Verdict::Completed);
    let actions = desk.sent(&key("a"), Ok(Receipt::Acknowledged));
    assert!(!actions.contains(&Action::Measure), "b waits: {actions:?}");
    let actions = desk.good_beat(Heard { offers: vec![offer("b")], ..Heard::default() });
    assert_eq!(starts(&actions), [("b".to_owned(), 1)]);
    assert!(desk.ends(&key("b"), Verdict::Completed).contains(&Action::Measure));
}

#[test]
fn a_job_ends_the_measuring_which_begins_anew_after_it() {
    let mut desk = unmeasured(rules(), vec![]);
    assert_eq!(desk.good_beat(Heard::default()), [Action::Measure]);
    let actions = desk.offered(vec![offer("a")]);
    assert_eq!(actions[0], Action::StopMeasuring, "before anything of the job: {actions:?}");
    assert_eq!(starts(&actions), [("a".to_owned(), 1)]);
    assert!(desk.ends(&key("a"), Verdict::Completed).contains(&Action::Measure));
}

#[test]
fn a_busy_machine_is_measured_later_and_ever_less_often() {
    let mut desk = unmeasured(rules(), vec![]);
    assert_eq!(desk.good_beat(Heard::default()), [Action::Measure]);
    for minutes in [10, 20, 40, 80, 160, 320, 360, 360] {
        let failed = desk.now;
        assert_eq!(measured(&mut desk, Err("the machine is busy")), [Action::StopMeasuring]);
        let begun = loop {
            if desk.core.measuring_due().is_some_and(|at| at <= desk.now) {
                break desk.now;
            }
            let (_, actions) = desk.wait_due();
            if actions.contains(&Action::Measure) {
                break desk.now;
            }
            if actions.iter().any(|action| matches!(action, Action::Beat { .. }))
                && desk.good_beat(Heard::default()).contains(&Action::Measure)
            {
                break desk.now;
            }
        };
        let waited = (begun - failed).as_secs();
        assert_eq!(waited / 60, minutes, "{waited} s");
    }
}

#[test]
fn whoever_stops_measures_nothing() {
    let mut desk = unmeasured(Rules { max_jobs: Some(1), ..rules() }, vec![]);
    let offers = vec![offer("a")];
    desk.good_beat(Heard { offers, ..Heard::default() });
    let actions = desk.ends(&key("a"), Verdict::Completed);
    assert!(!actions.contains(&Action::Measure), "{actions:?}");
}
