//! Registering, beating, backing off.

use super::*;

#[test]
fn the_first_beat_follows_the_registration_at_once_and_the_others_keep_the_pace() {
    let mut desk = Desk::new();
    assert_eq!(desk.tick(), [Action::Register]);
    assert_eq!(desk.event(Event::Registered(Ok(()))), [beat(Status::Online, &[])]);
    desk.good_beat(Heard::default());
    for _ in 0..50 {
        let (waited, actions) = desk.wait_due();
        assert_eq!(actions, [beat(Status::Online, &[])]);
        assert!((0.4..=1.6).contains(&(waited.as_secs_f64() / 30.0)), "{waited:?}");
        desk.good_beat(Heard::default());
    }
    let average = (desk.now - Duration::from_secs(10_000)).as_secs_f64() / 50.0;
    assert!((29.0..=31.0).contains(&average), "{average}");
}

#[test]
fn five_failures_in_a_row_and_we_register_again() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.next_beat();
    for failure in 1..5 {
        assert_eq!(desk.bad_beat(unreachable()), [], "failure {failure}");
        let (waited, actions) = desk.wait_due();
        assert!((1..=30).contains(&waited.as_secs()), "{waited:?}");
        assert_eq!(actions, [beat(Status::Online, &[])]);
    }
    assert_eq!(desk.bad_beat(unreachable()), [Action::Register]);
}

#[test]
fn a_beat_that_the_backend_answers_with_not_found_registers_at_once() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.next_beat();
    assert_eq!(desk.bad_beat(status_error(404, true, None)), [Action::Register]);
    assert_eq!(desk.event(Event::Registered(Ok(()))), [beat(Status::Online, &[])]);
}

#[test]
fn a_404_page_is_no_word_of_the_backends() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.next_beat();
    assert_eq!(desk.bad_beat(status_error(404, false, None)), []);
}

#[test]
fn a_backend_that_registers_us_and_knows_us_not_is_not_hammered() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.next_beat();
    let began = desk.now;
    let mut registrations = 0;
    let mut actions = desk.bad_beat(status_error(404, true, None));
    while desk.now - began < Duration::from_secs(3600) {
        if actions.is_empty() {
            (_, actions) = desk.wait_due();
        }
        assert_eq!(actions, [Action::Register]);
        registrations += 1;
        assert_eq!(desk.event(Event::Registered(Ok(()))), [beat(Status::Online, &[])]);
        actions = desk.bad_beat(status_error(404, true, None));
    }
    assert!((10..=32).contains(&registrations), "{registrations} registrations in an hour");

    // A good beat, and the next trouble begins anew.
    desk.wait_due();
    desk.event(Event::Registered(Ok(())));
    desk.good_beat(Heard::default());
    desk.next_beat();
    assert_eq!(desk.bad_beat(status_error(404, true, None)), [Action::Register]);
}

#[test]
fn registering_backs_off_and_honours_retry_after_up_to_fifteen_minutes() {
    let mut desk = Desk::new();
    desk.tick();
    let mut refused = |error| {
        assert_eq!(desk.event(Event::Registered(Err(RegisterError::Call(error)))), []);
        let (waited, actions) = desk.wait_due();
        assert_eq!(actions, [Action::Register]);
        waited.as_secs_f64()
    };
    for full in [1.0, 2.0, 4.0, 8.0] {
        let waited = refused(unreachable());
        assert!((full / 2.0..full).contains(&waited), "{waited} of {full}");
    }
    assert_eq!(refused(status_error(503, true, Some(120))), 120.0);
    assert_eq!(refused(status_error(429, false, Some(86_400))), 900.0);
}

#[test]
fn a_failed_beats_retry_after_is_honoured() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.next_beat();
    desk.bad_beat(status_error(503, true, Some(77)));
    assert_eq!(desk.wait_due(), (Duration::from_secs(77), vec![beat(Status::Online, &[])]));
}

#[test]
fn credentials_refused_at_the_first_registration_end_the_run() {
    let refused = |json| Event::Registered(Err(RegisterError::Call(status_error(401, json, None))));
    let mut desk = Desk::new();
    desk.tick();
    assert_eq!(desk.event(refused(true)), [Action::Exit(Exit::Refused)]);

    // A page is a proxy's word, not the backend's.
    let mut desk = Desk::new();
    desk.tick();
    assert_eq!(desk.event(refused(false)), []);
    assert_eq!(desk.wait_due(), (Duration::from_secs(300), vec![Action::Register]));
}

#[test]
fn credentials_refused_later_are_tried_every_five_minutes_while_jobs_go_on() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.running("job-1");
    desk.next_beat();
    assert_eq!(desk.bad_beat(status_error(401, true, None)), []);
    let retry = desk.wait_due();
    assert_eq!(retry, (Duration::from_secs(300), vec![beat(Status::Busy, &["job-1"])]));
}

#[test]
fn a_backend_that_wants_an_address_ends_the_first_registration_only() {
    let wanted = || Event::Registered(Err(RegisterError::NeedsAddress("301".into())));
    let mut desk = Desk::new();
    desk.tick();
    assert_eq!(desk.event(wanted()), [Action::Exit(Exit::Usage)]);

    let mut desk = Desk::online(rules(), vec![]);
    desk.next_beat();
    desk.bad_beat(status_error(404, true, None));
    assert_eq!(desk.event(wanted()), []);
}

#[test]
fn trouble_is_said_when_it_changes_and_its_end_is_said() {
    let mut desk = Desk::online(rules(), vec![]);
    let mut said = vec![];
    desk.next_beat();
    for error in [unreachable(), unreachable(), status_error(500, true, None)] {
        let answer = Err(error);
        said.extend(desk.event_with_log(Event::Beat { sent: desk.sent, answer }));
        desk.wait_due();
    }
    let answer = Ok(Heard::default());
    said.extend(desk.event_with_log(Event::Beat { sent: desk.sent, answer }));
    let lines: Vec<String> = said
        .into_iter()
        .filter_map(|action| match action {
            Action::Log(level, line) => Some(format!("{level} {line}")),
            _ => None,
        })
        .collect();
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert_eq!(lines[0], "WARN backend unreachable, trying on: POST /x: connection refused");
    assert_eq!(lines[1], "WARN backend in trouble, trying on: POST /x: 500");
    assert!(lines[2].starts_with("INFO backend back after "), "{}", lines[2]);
    assert!(lines[2].ends_with(", 3 attempts"), "{}", lines[2]);
}

#[test]
fn the_backend_may_set_the_pace() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.next_beat();
    desk.good_beat(Heard { interval: Some(Duration::from_secs(300)), ..Heard::default() });
    let (waited, _) = desk.wait_due();
    assert!((120..=480).contains(&waited.as_secs()), "{waited:?}");
}

#[test]
fn waking_from_eight_hours_of_sleep_beats_at_once_and_asks_before_it_completes() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    assert_eq!(desk.wait(8 * 3600), [beat(Status::Busy, &["job-1"])]);
    // The lease ran out: the job may be somebody else's by now.
    assert_eq!(desk.ends(&key, Verdict::Completed), [ask("job-1")]);
    assert_eq!(
        desk.asked(&key, Ok(JobState::Elsewhere)),
        [book(&key, Booking::Rejected("the job was given to somebody else".into()))]
    );
}

#[test]
fn an_order_of_events_that_cannot_be_does_no_harm() {
    let mut desk = Desk::new();
    let key = key("job-1");
    for event in [
        Event::Ended { key: key.clone(), verdict: Verdict::Completed },
        Event::Sent { key: key.clone(), answer: Ok(Receipt::Acknowledged) },
        Event::Asked { key: key.clone(), answer: Ok(JobState::Completed) },
        Event::ProgressSent { key: key.clone(), acknowledged: true },
        Event::NotTaken { key, error: String::new() },
    ] {
        desk.event(event);
    }
    assert_eq!(desk.core.jobs.len(), 0);
}
