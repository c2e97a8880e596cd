//! Failures of ours in a row, and the pause that follows.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Runs so many jobs, each of which ends so. They are new ones each time.
fn run_jobs(desk: &mut Desk, verdicts: &[Verdict]) {
    for verdict in verdicts {
        let name = format!("job-{}", desk.core.next_seq);
        desk.delivered(&name, *verdict);
    }
}

fn tripped(rules: Rules) -> Desk {
    let mut desk = Desk::online(rules, vec![]);
    run_jobs(&mut desk, &[worker_fault(); 5]);
    desk
}

/// How long it takes until an offered job is begun.
fn until_begun(desk: &mut Desk) -> Duration {
    let name = format!("job-{}", desk.core.next_seq);
    let since = desk.now;
    // Offered at the very moment that the next deadline comes, and at no other.
    loop {
        if !matches!(desk.core.breaker, Breaker::Open { .. }) {
            return desk.now - since;
        }
        desk.wait_due();
        assert_eq!(starts(&desk.good_beat(Heard::default())), []);
        let offers = vec![offer(&name)];
        if starts(&desk.good_beat(Heard { offers, ..Heard::default() })).is_empty() {
            continue;
        }
        desk.ends(&key(&name), worker_fault());
        desk.sent(&key(&name), Ok(Receipt::Acknowledged));
        return desk.now - since;
    }
}

#[test]
fn five_failures_of_ours_in_a_row_pause_for_ten_minutes_and_the_heartbeat_says_so() {
    let mut desk = Desk::online(rules(), vec![]);
    run_jobs(&mut desk, &[worker_fault(); 4]);
    assert_eq!(paused(&mut desk), None);
    desk.good_beat(Heard::default());
    run_jobs(&mut desk, &[worker_fault()]);
    let wanted = "jobs failed here one after the other: none are taken for 10m";
    assert_eq!(paused(&mut desk).as_deref(), Some(wanted));
    assert_eq!(
        starts(&desk.good_beat(Heard { offers: vec![offer("new")], ..Heard::default() })),
        []
    );
}

#[test]
fn each_trial_that_fails_doubles_the_pause_up_to_two_hours() {
    let mut desk = tripped(rules());
    for minutes in [10, 20, 40, 80, 120, 120] {
        let waited = until_begun(&mut desk);
        let wanted = MINUTE * minutes;
        assert!((wanted - MINUTE..wanted + MINUTE).contains(&waited), "{waited:?} of {wanted:?}");
    }
}

#[test]
fn one_job_is_on_trial_whatever_the_slots() {
    let mut desk = tripped(Rules { slots: 3, ..rules() });
    desk.wait(600);
    let offers = || ["a", "b", "c"].map(offer).to_vec();
    desk.good_beat(Heard::default());
    assert_eq!(starts(&desk.offered(offers())), [("a".to_owned(), 1)]);
    let wanted = "jobs failed here one after the other: one is on trial";
    assert_eq!(paused(&mut desk).as_deref(), Some(wanted));
    assert_eq!(starts(&desk.good_beat(Heard { offers: offers(), ..Heard::default() })), []);
    desk.ends(&key("a"), Verdict::Completed);
    let begun = starts(&desk.offered(offers()));
    assert_eq!(begun, [("b".to_owned(), 1), ("c".to_owned(), 1)]);
}

#[test]
fn what_shows_that_the_machine_works_begins_the_count_anew() {
    for verdict in [Verdict::Completed, job_fault()] {
        let mut desk = Desk::online(rules(), vec![]);
        run_jobs(&mut desk, &[worker_fault(); 4]);
        run_jobs(&mut desk, &[verdict]);
        run_jobs(&mut desk, &[worker_fault(); 4]);
        assert_eq!(paused(&mut desk), None, "{verdict:?}");
    }
}

#[test]
fn a_trial_that_succeeds_ends_it_and_the_next_pause_is_short_again() {
    let mut desk = tripped(rules());
    until_begun(&mut desk);
    until_begun(&mut desk);
    desk.wait(40 * 60);
    desk.good_beat(Heard::default());
    run_jobs(&mut desk, &[Verdict::Completed]);
    run_jobs(&mut desk, &[worker_fault(); 5]);
    assert_eq!(paused(&mut desk).map(|why| why.ends_with("for 10m")), Some(true));
}

#[test]
fn jobs_that_an_earlier_run_lost_do_not_count() {
    let left = (0..5).map(|n| {
        let name = format!("lost-{n}");
        let waited = Duration::ZERO;
        let how = LeftHow::Finished { verdict: worker_fault(), waited, progressed: false };
        Left { key: key(&name), attempt: attempt(&name, 1), how }
    });
    let mut desk = Desk::with(rules(), left.collect());
    desk.tick();
    for n in 0..5 {
        desk.asked(&key(&format!("lost-{n}")), Ok(JobState::Failed));
    }
    desk.event(Event::Registered(Ok(())));
    desk.good_beat(Heard::default());
    assert_eq!(paused(&mut desk), None);
}

#[test]
fn jobs_that_were_taken_away_do_not_count() {
    let mut desk = Desk::online(rules(), vec![]);
    for n in 0..6 {
        let name = format!("job-{n}");
        let key = desk.running(&name);
        desk.next_beat();
        desk.good_beat(Heard { cancel: vec![id(&name)], ..Heard::default() });
        desk.ends(&key, worker_fault());
        desk.good_beat(Heard::default());
    }
    assert_eq!(paused(&mut desk), None);
}

#[test]
fn jobs_that_end_because_the_agent_stops_do_not_count() {
    let mut desk = Desk::online(Rules { slots: 5, ..rules() }, vec![]);
    let names = ["a", "b", "c", "d", "e"];
    desk.offered(names.map(offer).to_vec());
    desk.event(Event::Stop(StopRequest::Cancel));
    for name in names {
        desk.ends(&key(name), worker_fault());
    }
    assert_eq!(desk.core.breaker, Breaker::new());
}

#[test]
fn the_log_says_when_it_begins_and_when_it_is_over() {
    let mut desk = Desk::online(rules(), vec![]);
    run_jobs(&mut desk, &[worker_fault(); 4]);
    let mut said = vec![];
    let mut ends = |desk: &mut Desk, name: &str, verdict| {
        let key = desk.running(name);
        said.extend(desk.event_with_log(Event::Ended { key: key.clone(), verdict }));
        desk.sent(&key, Ok(Receipt::Acknowledged));
        desk.good_beat(Heard::default());
    };
    ends(&mut desk, "last", worker_fault());
    desk.wait(600);
    desk.good_beat(Heard::default());
    ends(&mut desk, "trial", worker_fault());
    desk.wait(1200);
    desk.good_beat(Heard::default());
    ends(&mut desk, "trial-2", Verdict::Completed);
    let lines = said.into_iter().filter_map(|action| match action {
        Action::Log(level, line) => Some(format!("{level} {line}")),
        _ => None,
    });
    let wanted = [
        "ERROR 5 jobs in a row failed by this worker's fault: none are taken for 10m, then one on trial",
        "ERROR the job on trial failed too: none are taken for 20m, then one on trial",
        "INFO jobs no longer fail here: they are taken as before",
    ];
    assert_eq!(lines.collect::<Vec<_>>(), wanted);
}
