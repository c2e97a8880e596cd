//! Failures of ours in a row, and the pause that follows for jobs of their kind.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

const PAUSED: &str = "paused: compute jobs, for 10m after 5 failures in a row";
const TRIAL: &str = "paused: compute jobs but one on trial, after failures in a row";

fn unclear() -> Verdict {
    Verdict::Failed(Blame::Unclear)
}

/// An offer of that kind by this submitter.
fn of(name: &str, kind: &str, submitter: &str) -> Offer {
    let submitter = (!submitter.is_empty()).then(|| submitter.to_owned());
    Offer { kind: kind.into(), submitter, ..offer(name) }
}

/// Runs so many jobs, each of which ends so. They are new ones each time.
fn run_jobs(desk: &mut Desk, verdicts: &[Verdict]) {
    for verdict in verdicts {
        run_one(desk, "compute", "", *verdict);
    }
}

fn run_one(desk: &mut Desk, kind: &str, submitter: &str, verdict: Verdict) {
    let name = format!("job-{}", desk.core.next_seq);
    let begun = starts(&desk.offered(vec![of(&name, kind, submitter)]));
    assert_eq!(begun, [(name.clone(), 1)], "{kind} {submitter}");
    desk.ends(&key(&name), verdict);
    desk.sent(&key(&name), Ok(Receipt::Acknowledged));
    desk.good_beat(Heard::default());
}

fn tripped(rules: Rules) -> Desk {
    let mut desk = Desk::online(rules, vec![]);
    run_jobs(&mut desk, &[worker_fault(); 5]);
    desk
}

/// Whether a job like this is taken when it is offered.
fn takes(desk: &mut Desk, kind: &str, submitter: &str) -> bool {
    let begun = starts(&desk.offered(vec![of("asked", kind, submitter)]));
    let taken = !begun.is_empty();
    if taken {
        desk.event(Event::NotTaken { key: key("asked"), error: "only asked".into() });
    }
    desk.good_beat(Heard::default());
    taken
}

/// What waits, as the next heartbeat tells it.
fn waits(desk: &mut Desk) -> Option<String> {
    let Action::Beat { status, paused, .. } = desk.next_beat() else { panic!("no beat") };
    assert_eq!(status, Status::Online, "other kinds are taken: {paused:?}");
    desk.good_beat(Heard::default());
    paused
}

/// How long it takes until an offered job is begun.
fn until_begun(desk: &mut Desk) -> Duration {
    let name = format!("job-{}", desk.core.next_seq);
    let since = desk.now;
    // Offered at the very moment that the next deadline comes, and at no other.
    loop {
        if desk.core.breaker_due().is_none() {
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
fn five_failures_of_ours_in_a_row_pause_that_kind_alone_and_the_heartbeat_says_so() {
    let mut desk = Desk::online(rules(), vec![]);
    run_jobs(&mut desk, &[worker_fault(); 4]);
    assert_eq!(waits(&mut desk), None);
    run_jobs(&mut desk, &[worker_fault()]);
    assert_eq!(waits(&mut desk).as_deref(), Some(PAUSED));
    assert_eq!(desk.core.view().paused.as_deref(), Some(PAUSED));
    assert_eq!(desk.core.view().state, crate::snapshot::State::Online);
    assert!(!takes(&mut desk, "compute", ""));
    assert!(takes(&mut desk, "script", ""));
}

#[test]
fn who_failed_is_counted_and_who_waits_follows() {
    let all = ["a", "b", "c", "d", "e"];
    // Whose jobs fail, one after the other, and how; then whether a job of the first and one of anybody
    // else is taken.
    for (what, whose, verdict, wanted) in [
        ("five submitters", &all[..], worker_fault(), [false, false]),
        ("four submitters", &all[..4], worker_fault(), [true, true]),
        ("one, five times", &["a"; 5], worker_fault(), [false, true]),
        ("one, four times", &["a"; 4], worker_fault(), [true, true]),
        ("nobody is named", &[""; 5], worker_fault(), [false, false]),
        ("one, in ways that a job can cause", &["a"; 5], unclear(), [false, true]),
        ("five, in ways that a job can cause", &all, unclear(), [true, true]),
        ("nobody, in ways that a job can cause", &[""; 9], unclear(), [true, true]),
        ("one, by their own mistakes", &["a"; 9], job_fault(), [true, true]),
    ] {
        let mut desk = Desk::online(rules(), vec![]);
        for submitter in whose {
            run_one(&mut desk, "script", submitter, verdict);
        }
        let taken = [takes(&mut desk, "script", "a"), takes(&mut desk, "script", "z")];
        assert_eq!(taken, wanted, "{what}");
        assert!(takes(&mut desk, "compute", "a"), "{what}");
    }
}

#[test]
fn one_job_that_fails_again_and_again_counts_once() {
    let mut desk = Desk::online(rules(), vec![]);
    for round in 0..9 {
        let number = round % 3 + 1;
        let content = format!("content {}", round / 3);
        let again = Offer { content, ..of("same", "script", "") };
        let begun = starts(&desk.offered(vec![again]));
        assert_eq!(begun.len(), 1, "{number}");
        desk.ends(&key("same"), worker_fault());
        desk.sent(&key("same"), Ok(Receipt::Acknowledged));
        desk.now += INTERVAL;
        desk.good_beat(Heard::default());
    }
    assert!(takes(&mut desk, "script", ""));
}

#[test]
fn one_submitters_pause_ends_with_a_trial_of_theirs() {
    let mut desk = Desk::online(rules(), vec![]);
    for _ in 0..5 {
        run_one(&mut desk, "script", "a", unclear());
    }
    let wanted = "paused: script jobs of 1 submitter, after failures in a row";
    assert_eq!(waits(&mut desk).as_deref(), Some(wanted));
    desk.wait(600);
    desk.good_beat(Heard::default());
    run_one(&mut desk, "script", "a", unclear());
    assert!(!takes(&mut desk, "script", "a"), "the next pause began");
    desk.wait(1200);
    desk.good_beat(Heard::default());
    run_one(&mut desk, "script", "a", Verdict::Completed);
    assert_eq!(waits(&mut desk), None);
}

#[test]
fn submitters_that_are_made_up_for_each_job_fill_no_memory() {
    let mut desk = Desk::online(rules(), vec![]);
    let whose = |n: u32| Whose { kind: "script".into(), submitter: Some(n.to_string()) };
    for n in 0..5000 {
        desk.core.judge(desk.now, &whose(n), "job", unclear());
    }
    assert_eq!(desk.core.breakers["script"].submitters(), 1000);
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
    assert_eq!(desk.core.view().paused.as_deref(), Some(TRIAL));
    desk.next_beat();
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
        assert_eq!(waits(&mut desk), None, "{verdict:?}");
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
    assert_eq!(waits(&mut desk).as_deref(), Some(PAUSED));
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
    assert_eq!(waits(&mut desk), None);
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
    assert_eq!(waits(&mut desk), None);
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
    assert!(desk.core.breakers.is_empty());
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
        "ERROR compute jobs fail here one after the other: none are taken for 10m, then one on trial",
        "ERROR compute jobs fail here one after the other: none are taken for 20m, then one on trial",
        "INFO compute jobs no longer fail here: they are taken as before",
    ];
    assert_eq!(lines.collect::<Vec<_>>(), wanted);
}
