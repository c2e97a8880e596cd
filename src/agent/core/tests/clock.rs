//! Clocks: what lasts, lasts in running time, whenever that began; the wall clock only labels.

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// A machine that has just booted, one that runs for hours, one that runs for years.
const BEGAN: [Time; 3] =
    [Duration::ZERO, Duration::from_secs(10_000), Duration::from_secs(3000 * 86_400)];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn begun_at(began: Time) -> Desk {
    Desk::begun_at(began, rules(), vec![]).go_online()
}

#[test]
fn the_lease_is_over_after_three_silent_intervals_and_not_before() {
    for began in BEGAN {
        for (silence, first) in [(89, send(&key("job-1"))), (91, ask("job-1"))] {
            let mut desk = begun_at(began);
            let key = desk.running("job-1");
            desk.now += seconds(silence);
            let actions = desk.ends(&key, Verdict::Completed);
            assert_eq!(actions[0], first, "{began:?} {silence}");
        }
    }
}

#[test]
fn a_result_is_given_up_after_seven_days_and_not_before() {
    for began in BEGAN {
        let mut desk = begun_at(began);
        let key = desk.running("job-1");
        desk.ends(&key, Verdict::Completed);
        let since = desk.now;
        desk.sent(&key, Err(unreachable()));
        let given_up = book(&key, Booking::Undelivered);
        assert!(desk.wait(7 * 86_400 - 1).contains(&ask("job-1")));
        assert!(!desk.asked(&key, Err(unreachable())).contains(&given_up));
        while !desk.wait_due().1.contains(&ask("job-1")) {}
        assert!(desk.asked(&key, Err(unreachable())).contains(&given_up), "{began:?}");
        assert!((DAY * 7..DAY * 7 + seconds(600)).contains(&(desk.now - since)));
    }
}

#[test]
fn the_breaker_pauses_for_ten_minutes() {
    for began in BEGAN {
        let mut desk = begun_at(began);
        for n in 0..5 {
            desk.delivered(&format!("job-{n}"), worker_fault());
        }
        let mut offered_after = |time| {
            desk.now += time;
            starts(&desk.good_beat(Heard { offers: vec![offer("new")], ..Heard::default() })).len()
        };
        assert_eq!((offered_after(seconds(599)), offered_after(seconds(1))), (0, 1), "{began:?}");
    }
}

#[test]
fn a_job_waits_fifteen_minutes_for_a_slot() {
    for began in BEGAN {
        let mut desk = begun_at(began);
        desk.running("long");
        let mut handed_back_after = |time| {
            desk.now += time;
            let offers = vec![offer("waits")];
            let actions = desk.good_beat(Heard { offers, ..Heard::default() });
            actions.iter().any(|action| matches!(action, Action::Decline { .. }))
        };
        let told = [0, 899, 1].map(|time| handed_back_after(seconds(time)));
        assert_eq!(told, [false, false, true], "{began:?}");
    }
}

#[test]
fn facts_that_were_refused_are_registered_again_after_two_intervals() {
    for began in BEGAN {
        let mut desk = begun_at(began);
        assert_eq!(desk.event(Event::MachineChanged), [Action::Register]);
        let since = desk.now;
        let refused = RegisterError::Call(status_error(422, true, None));
        desk.event(Event::Registered(Err(refused)));
        while !desk.good_beat(Heard::default()).contains(&Action::Register)
            && !desk.wait_due().1.contains(&Action::Register)
        {}
        let waited = desk.now - since;
        assert!((INTERVAL * 2..INTERVAL * 4).contains(&waited), "{began:?} {waited:?}");
    }
}

#[test]
fn labels_of_other_times_change_nothing() {
    // The core never sees the wall clock; what it hands on of it, it hands on as it came.
    let now = std::time::UNIX_EPOCH + DAY * 20_000;
    let run = |began: Time, label| {
        let mut desk = Desk::begun_at(began, rules(), vec![]);
        let mut decided = vec![desk.tick(), desk.event(Event::Registered(Ok(())))];
        decided.push(desk.good_beat(Heard::default()));
        let key = desk.running("job-1");
        for percent in 1..20 {
            let report = Box::new(Report { at: label, ..*report(percent) });
            let sent = desk.event(Event::Progress { key: key.clone(), report: report.clone() });
            let id = id("job-1");
            assert_eq!(sent, [Action::Errand(Errand::Progress { key: key.clone(), id, report })]);
            desk.event(Event::ProgressSent { key: key.clone(), acknowledged: true });
            decided.push(desk.wait(5));
        }
        decided.push(desk.ends(&key, Verdict::Completed));
        decided.push(desk.sent(&key, Ok(Receipt::Acknowledged)));
        decided
    };
    for began in BEGAN {
        let wanted = run(began, now);
        for label in [std::time::UNIX_EPOCH, now - DAY, now + DAY] {
            assert_eq!(run(began, label), wanted, "{began:?} {label:?}");
        }
    }
}
