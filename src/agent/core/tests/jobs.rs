//! Taking jobs, delivering outcomes, and jobs that are offered again.

use super::*;

#[test]
fn a_job_is_taken_once_run_delivered_and_followed_by_a_beat() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    assert_eq!(starts(&desk.offered(vec![offer("job-1")])), []);
    assert_eq!(desk.ends(&key, Verdict::Completed), [send(&key)]);
    assert_eq!(
        desk.sent(&key, Ok(Receipt::Acknowledged)),
        [book(&key, Booking::Delivered), beat(Status::Online, &[])]
    );
}

#[test]
fn a_beat_while_a_result_is_on_its_way_still_names_the_job() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    desk.ends(&key, Verdict::Completed);
    assert_eq!(desk.next_beat(), beat(Status::Online, &["job-1"]));
}

#[test]
fn slots_bound_how_many_run_and_the_status_says_so() {
    let mut desk = Desk::online(Rules { slots: 2, ..rules() }, vec![]);
    let all = || ["a", "b", "c"].map(offer).to_vec();
    assert_eq!(starts(&desk.offered(all())), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
    assert_eq!(desk.next_beat(), beat(Status::Busy, &["a", "b"]));
    desk.good_beat(Heard { offers: all(), ..Heard::default() });
    desk.ends(&key("a"), Verdict::Completed);
    // An undelivered outcome holds no slot.
    assert_eq!(desk.next_beat(), beat(Status::Online, &["a", "b"]));
    let actions = desk.good_beat(Heard { offers: all(), ..Heard::default() });
    assert_eq!(starts(&actions), [("c".to_owned(), 1)]);
}

#[test]
fn a_job_without_a_slot_waits_fifteen_minutes_and_is_handed_back() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.running("long");
    let began = desk.now;
    loop {
        let actions = desk.offered(vec![offer("long"), offer("waits")]);
        let decline = actions.iter().find_map(|action| match action {
            Action::Decline { decline, .. } => Some(decline.code),
            _ => None,
        });
        if let Some(code) = decline {
            assert_eq!(code, DeclineCode::Busy);
            break;
        }
        assert_eq!(starts(&actions), []);
    }
    let waited = (desk.now - began).as_secs();
    assert!((900..=960).contains(&waited), "{waited}");
}

#[test]
fn a_job_waits_on_while_the_others_of_a_long_list_have_their_turn() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.running("long");
    let began = desk.now;
    let is_decline = |action: &Action| matches!(action, Action::Decline { .. });
    let mut turns = [vec![offer("long"), offer("waits")], vec![offer("long")]].into_iter().cycle();
    loop {
        desk.next_beat();
        let offers = turns.next().unwrap();
        let heard = Heard { offers, partial: true, ..Heard::default() };
        if desk.good_beat(heard).iter().any(is_decline) {
            break;
        }
    }
    let waited = (desk.now - began).as_secs();
    assert!((900..=1000).contains(&waited), "{waited}");
}

#[test]
fn a_job_that_was_withdrawn_in_between_begins_its_wait_anew() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.running("long");
    for round in 0..60 {
        let offers = if round % 20 == 19 { vec![] } else { vec![offer("waits")] };
        let actions = desk.offered(offers);
        assert!(!actions.iter().any(|action| matches!(action, Action::Decline { .. })));
    }
}

#[test]
fn what_cannot_be_run_is_declined_once_and_its_delivery_triggers_no_beat() {
    let mut desk = Desk::online(rules(), vec![]);
    let actions = desk.offered(vec![bad_offer("job-1")]);
    assert!(
        matches!(&actions[..], [Action::Decline { attempt, .. }] if *attempt == super::attempt("job-1", 1))
    );
    assert_eq!(desk.offered(vec![bad_offer("job-1")]), []);
    let key = key("job-1");
    assert_eq!(desk.ends(&key, Verdict::Declined(Blame::Job)), [send(&key)]);
    assert_eq!(desk.next_beat(), beat(Status::Online, &[]));
    desk.good_beat(Heard::default());
    assert_eq!(desk.sent(&key, Ok(Receipt::Acknowledged)), [book(&key, Booking::Delivered)]);
}

#[test]
fn polled_jobs_may_be_nobodys_and_are_never_declined() {
    let mut desk = Desk::online(rules(), vec![]);
    let offers = vec![bad_offer("bad"), offer("good"), offer("other")];
    for _ in 0..60 {
        desk.next_beat();
        let heard = Heard { offers: offers.clone(), polled: true, ..Heard::default() };
        let actions = desk.good_beat(heard);
        assert!(!actions.iter().any(|action| matches!(action, Action::Decline { .. })));
    }
}

#[test]
fn a_completion_never_goes_before_some_progress() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    let sent = desk.event(Event::Progress { key: key.clone(), report: report(1) });
    let (id, first) = (id("job-1"), report(1));
    assert_eq!(sent, [Action::Errand(Errand::Progress { key: key.clone(), id, report: first })]);
    // It ends before that progress is answered.
    let first = Some(report(1));
    assert_eq!(
        desk.ends(&key, Verdict::Completed),
        [Action::Errand(Errand::Send { key: key.clone(), first })]
    );

    let key = {
        desk.sent(&key, Ok(Receipt::Acknowledged));
        desk.good_beat(Heard::default());
        desk.running("job-2")
    };
    desk.event(Event::Progress { key: key.clone(), report: report(1) });
    desk.event(Event::ProgressSent { key: key.clone(), acknowledged: true });
    assert_eq!(desk.ends(&key, Verdict::Completed), [send(&key)]);
}

#[test]
fn once_a_job_has_its_outcome_no_progress_is_sent() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    let ended = Event::Ended { key: key.clone(), verdict: Verdict::Completed };
    let dropped = Action::Errand(Errand::DropProgress { key: key.clone() });
    assert!(desk.event_with_log(ended).contains(&dropped));
    assert_eq!(desk.event(Event::Progress { key, report: report(99) }), []);
}

#[test]
fn before_a_second_send_the_backend_is_asked_and_each_answer_has_its_meaning() {
    let rejected = |why: &str| Some(Booking::Rejected(why.into()));
    // (our word, some progress was acknowledged, the answer, what is booked; nothing: sent again)
    let table = [
        (Verdict::Completed, true, JobState::Unknown, None),
        (Verdict::Completed, true, JobState::Running, None),
        (Verdict::Completed, true, JobState::Waiting, None),
        (Verdict::Completed, true, JobState::Completed, Some(Booking::Delivered)),
        (Verdict::Completed, true, JobState::Failed, rejected("the backend has it as failed")),
        (
            Verdict::Completed,
            true,
            JobState::Elsewhere,
            rejected("the job was given to somebody else"),
        ),
        (Verdict::Completed, true, JobState::Cancelled, Some(Booking::Cancelled)),
        (job_fault(), true, JobState::Failed, Some(Booking::Delivered)),
        (job_fault(), true, JobState::Waiting, Some(Booking::Delivered)),
        (job_fault(), false, JobState::Waiting, None),
        (job_fault(), true, JobState::Completed, rejected("the backend has it as completed")),
    ];
    for (verdict, progressed, answer, booked) in table {
        let mut desk = Desk::online(rules(), vec![]);
        let key = desk.running("job-1");
        desk.event(Event::ProgressSent { key: key.clone(), acknowledged: progressed });
        desk.ends(&key, verdict);
        desk.sent(&key, Err(unreachable()));
        desk.good_beat(Heard::default());
        while !desk.wait_due().1.contains(&ask("job-1")) {
            desk.good_beat(Heard::default());
        }
        let actions = desk.asked(&key, Ok(answer));
        let expected = booked.map_or_else(|| send(&key), |booking| book(&key, booking));
        assert_eq!(actions, [expected], "{verdict:?} {progressed} {answer:?}");
    }
}

/// The backend would take it for the failure of the next attempt.
#[test]
fn after_a_restart_too_a_failure_that_put_its_job_back_is_not_sent_once_more() {
    let mut desk = Desk::online(rules(), vec![]);
    let job = desk.running("job-1");
    desk.event(Event::ProgressSent { key: job.clone(), acknowledged: true });
    let note = Action::NoteProgress { key: job.clone() };
    assert_eq!(desk.ends(&job, job_fault()), [note, send(&job)]);

    for (progressed, expected) in [(true, book(&job, Booking::Delivered)), (false, send(&job))] {
        let how = LeftHow::Finished { verdict: job_fault(), waited: Duration::ZERO, progressed };
        let left = Left { key: job.clone(), attempt: attempt("job-1", 1), how };
        let mut desk = Desk::with(rules(), vec![left]);
        desk.tick();
        assert_eq!(desk.asked(&job, Ok(JobState::Waiting)), [expected]);
    }
}

#[test]
fn an_unanswered_question_is_asked_again_and_nothing_is_sent_meanwhile() {
    let left = Left {
        key: key("job-1"),
        attempt: attempt("job-1", 1),
        how: LeftHow::Finished {
            verdict: Verdict::Completed,
            waited: Duration::ZERO,
            progressed: false,
        },
    };
    let mut desk = Desk::with(rules(), vec![left]);
    // Always after a restart: the record does not say whether it was sent.
    assert_eq!(desk.tick(), [ask("job-1"), Action::Register]);
    assert_eq!(desk.asked(&key("job-1"), Err(unreachable())), []);
    let (waited, actions) = desk.wait_due();
    assert_eq!((waited, actions), (INTERVAL, vec![ask("job-1")]));
    assert_eq!(desk.asked(&key("job-1"), Ok(JobState::Unknown)), [send(&key("job-1"))]);
}

#[test]
fn a_result_waits_as_long_as_the_backend_asked_even_if_that_is_back_sooner() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    desk.ends(&key, Verdict::Completed);
    desk.sent(&key, Err(status_error(503, true, Some(600))));
    let asked = desk.now;
    desk.bad_beat(unreachable());
    desk.next_beat();
    desk.good_beat(Heard::default());
    while !desk.wait_due().1.contains(&ask("job-1")) {
        desk.good_beat(Heard::default());
    }
    assert_eq!(desk.now - asked, Duration::from_secs(600));
}

#[test]
fn a_result_nobody_takes_is_given_up_after_seven_days_of_running_time() {
    let waited = Duration::from_secs(7 * 86_400 - 3600);
    let how = LeftHow::Finished { verdict: Verdict::Completed, waited, progressed: false };
    let left = Left { key: key("job-1"), attempt: attempt("job-1", 1), how };
    let mut desk = Desk::with(rules(), vec![left]);
    desk.tick();
    assert_eq!(desk.asked(&key("job-1"), Err(unreachable())), []);
    desk.wait(3601);
    assert_eq!(
        desk.asked(&key("job-1"), Err(unreachable())),
        [book(&key("job-1"), Booking::Undelivered)]
    );
}

#[test]
fn rejected_is_final() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    desk.ends(&key, Verdict::Completed);
    let why = "403: not yours".to_owned();
    let actions = desk.sent(&key, Ok(Receipt::Rejected(why.clone())));
    assert_eq!(actions, [book(&key, Booking::Rejected(why)), beat(Status::Online, &[])]);
    assert_eq!(desk.wait(86_400), []);
}

#[test]
fn a_hundred_undelivered_results_and_paused_is_busy() {
    let left = (0..100).map(|n| {
        let name = format!("job-{n}");
        let how = LeftHow::Finished {
            verdict: Verdict::Completed,
            waited: Duration::ZERO,
            progressed: false,
        };
        Left { key: key(&name), attempt: attempt(&name, 1), how }
    });
    let mut desk = Desk::with(rules(), left.collect());
    desk.tick();
    let actions = desk.event(Event::Registered(Ok(())));
    let Some(Action::Beat { status, paused, .. }) = actions.first() else { panic!("{actions:?}") };
    assert_eq!(*status, Status::Busy);
    assert_eq!(paused.as_deref(), Some("100 results wait to be delivered"));
    assert_eq!(
        starts(&desk.good_beat(Heard { offers: vec![offer("new")], ..Heard::default() })),
        []
    );
}

#[test]
fn offered_again_after_a_delivered_success_the_completion_is_sent_again_once_an_interval() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.delivered("job-1", Verdict::Completed);
    let mut resends = vec![];
    let began = desk.now;
    while desk.now - began < INTERVAL * 10 {
        let actions = desk.offered(vec![offer("job-1")]);
        assert_eq!(starts(&actions), []);
        if actions.contains(&ask("job-1")) {
            resends.push(desk.now);
            assert_eq!(desk.asked(&key, Ok(JobState::Waiting)), [send(&key)]);
            // Nothing new is booked, and no beat follows.
            assert_eq!(desk.sent(&key, Ok(Receipt::Acknowledged)), []);
        }
    }
    assert!(resends.len() >= 4, "{resends:?}");
    assert!(resends.windows(2).all(|two| two[1] - two[0] >= INTERVAL), "{resends:?}");
}

#[test]
fn a_stale_offer_does_not_count() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    desk.ends(&key, worker_fault());
    // A beat goes out, then the completion is acknowledged, then the beat's reply arrives.
    desk.next_beat();
    desk.now += Duration::from_secs(1);
    desk.sent(&key, Ok(Receipt::Acknowledged));
    let actions = desk.good_beat(Heard { offers: vec![offer("job-1")], ..Heard::default() });
    assert_eq!(starts(&actions), []);
    // The next one was sent after the acknowledgement.
    let actions = desk.good_beat(Heard { offers: vec![offer("job-1")], ..Heard::default() });
    assert_eq!(starts(&actions), [("job-1".to_owned(), 2)]);
}

#[test]
fn our_own_failure_is_tried_three_times_and_then_repeated_as_the_last_word() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.delivered("job-1", worker_fault());
    for number in [2, 3] {
        let actions = desk.offered(vec![offer("job-1")]);
        assert_eq!(starts(&actions), [("job-1".to_owned(), number)]);
        desk.ends(&key, worker_fault());
        desk.sent(&key, Ok(Receipt::Acknowledged));
        desk.good_beat(Heard::default());
    }
    desk.wait(60);
    desk.good_beat(Heard::default());
    let attempt = attempt("job-1", 4);
    let repeat = Action::Repeat { key: key.clone(), attempt };
    assert_eq!(desk.offered(vec![offer("job-1")]), [repeat]);
    assert_eq!(desk.ends(&key, worker_fault()), [send(&key)]);
}

#[test]
fn the_jobs_own_failure_is_not_tried_again() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.delivered("job-1", job_fault());
    desk.wait(60);
    desk.good_beat(Heard::default());
    let repeat = Action::Repeat { key, attempt: attempt("job-1", 2) };
    assert_eq!(desk.offered(vec![offer("job-1")]), [repeat]);
}

#[test]
fn other_content_under_a_known_id_is_another_job() {
    let mut desk = Desk::online(rules(), vec![]);
    desk.delivered("job-1", Verdict::Completed);
    let changed = Offer { content: "changed".into(), ..offer("job-1") };
    // Its number goes on, so that its idempotency key is its own.
    assert_eq!(starts(&desk.offered(vec![changed])), [("job-1".to_owned(), 2)]);
}

#[test]
fn a_job_whose_outcome_is_not_kept_any_more_is_done_anew_under_the_next_number() {
    let how = LeftHow::Tombstone;
    let left = Left { key: key("job-1"), attempt: attempt("job-1", 3), how };
    let mut desk = Desk::online(rules(), vec![left]);
    assert_eq!(starts(&desk.offered(vec![offer("job-1")])), [("job-1".to_owned(), 4)]);
}

#[test]
fn a_job_taken_by_an_earlier_run_begins_after_a_good_beat_and_a_question() {
    let left = || {
        let how = LeftHow::Taken(Box::new(offer("job-1")));
        vec![Left { key: key("job-1"), attempt: attempt("job-1", 1), how }]
    };
    let mut desk = Desk::with(rules(), left());
    assert_eq!(desk.tick(), [Action::Register]);
    assert_eq!(desk.event(Event::Registered(Ok(()))), [beat(Status::Busy, &["job-1"])]);
    assert_eq!(desk.good_beat(Heard::default()), [ask("job-1")]);
    assert_eq!(
        starts(&desk.asked(&key("job-1"), Ok(JobState::Waiting))),
        [("job-1".to_owned(), 1)]
    );

    let mut desk = Desk::online(rules(), left());
    let abandon = Action::Abandon { key: key("job-1") };
    assert_eq!(desk.asked(&key("job-1"), Ok(JobState::Elsewhere)), [abandon]);
}

#[test]
fn the_backend_cancels_by_its_reply_or_when_asked() {
    let order = |key: &Key| Action::Order { key: key.clone(), order: Order::Cancel };
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    desk.next_beat();
    let cancel = || Heard { cancel: vec![id("job-1")], ..Heard::default() };
    assert!(desk.good_beat(cancel()).contains(&order(&key)));
    desk.next_beat();
    assert!(!desk.good_beat(cancel()).contains(&order(&key)), "once is enough");
    // Nothing is sent: a failure would start it again.
    assert_eq!(
        desk.ends(&key, Verdict::Cancelled),
        [book(&key, Booking::Cancelled), beat(Status::Online, &[])]
    );

    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    desk.next_beat();
    assert_eq!(desk.good_beat(Heard::default()), [ask("job-1")]);
    assert_eq!(desk.asked(&key, Ok(JobState::Cancelled)), [order(&key)]);
}

#[test]
fn a_result_that_is_cancelled_on_its_way_waits_for_its_own_answer() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    assert_eq!(desk.ends(&key, worker_fault()), [send(&key)]);
    desk.next_beat();
    let again = || Heard { offers: vec![offer("job-1")], ..Heard::default() };
    let actions = desk.good_beat(Heard { cancel: vec![id("job-1")], ..again() });
    assert_eq!(
        (starts(&actions), actions.contains(&book(&key, Booking::Cancelled))),
        (vec![], false)
    );
    let actions = desk.sent(&key, Ok(Receipt::Rejected("403: cancelled".into())));
    assert_eq!(actions[0], book(&key, Booking::Rejected("403: cancelled".into())));
    desk.good_beat(again());
    assert_eq!(starts(&desk.offered(vec![offer("job-1")])), [("job-1".to_owned(), 2)]);
}

#[test]
fn a_cancelled_job_that_ends_by_itself_all_the_same_is_not_completed() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    desk.next_beat();
    desk.good_beat(Heard { cancel: vec![id("job-1")], ..Heard::default() });
    assert_eq!(
        desk.ends(&key, Verdict::Completed),
        [book(&key, Booking::Cancelled), beat(Status::Online, &[])]
    );
}

#[test]
fn the_answer_to_a_question_about_a_cancelled_attempt_does_not_end_the_next() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    desk.next_beat();
    let cancel = Heard { cancel: vec![id("job-1")], ..Heard::default() };
    assert!(desk.good_beat(cancel).contains(&ask("job-1")));
    desk.ends(&key, Verdict::Cancelled);
    let again = || Heard { offers: vec![offer("job-1")], ..Heard::default() };
    desk.good_beat(again());
    assert_eq!(starts(&desk.offered(vec![offer("job-1")])), [], "it waits for the answer");
    assert_eq!(desk.asked(&key, Ok(JobState::Cancelled)), []);
    assert_eq!(starts(&desk.offered(vec![offer("job-1")])), [("job-1".to_owned(), 2)]);
}

#[test]
fn a_backend_that_tells_nothing_of_jobs_is_not_asked_at_every_beat() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    desk.next_beat();
    assert_eq!(desk.good_beat(Heard::default()), [ask("job-1")]);
    assert_eq!(desk.asked(&key, Ok(JobState::Unknown)), []);
    for _ in 0..3 {
        desk.next_beat();
        assert_eq!(desk.good_beat(Heard::default()), []);
    }
}

#[test]
fn a_job_that_cannot_be_recorded_is_not_taken_and_may_come_again() {
    let mut desk = Desk::online(Rules { max_jobs: Some(1), ..rules() }, vec![]);
    let key = desk.running("job-1");
    desk.event(Event::NotTaken { key, error: "disk full".into() });
    assert_eq!(starts(&desk.offered(vec![offer("job-1")])), [("job-1".to_owned(), 1)]);
}

#[test]
fn a_later_attempt_that_cannot_be_recorded_keeps_its_number() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.delivered("job-1", worker_fault());
    assert_eq!(starts(&desk.offered(vec![offer("job-1")])), [("job-1".to_owned(), 2)]);
    desk.event(Event::NotTaken { key, error: "disk full".into() });
    assert_eq!(starts(&desk.offered(vec![offer("job-1")])), [("job-1".to_owned(), 2)]);
}

#[test]
fn an_outcome_that_cannot_be_read_back_was_an_attempt_all_the_same() {
    let mut desk = Desk::online(rules(), vec![]);
    let key = desk.running("job-1");
    desk.ends(&key, Verdict::Completed);
    desk.event(Event::Unreadable { key, error: "damaged".into() });
    assert_eq!(starts(&desk.offered(vec![offer("job-1")])), [("job-1".to_owned(), 2)]);
}

#[test]
fn a_loss_that_the_disk_has_not_taken_is_neither_told_nor_run_again_before() {
    let left = Left { key: key("job-1"), attempt: attempt("job-1", 1), how: LeftHow::Unrecorded };
    let mut desk = Desk::online(rules(), vec![left]);
    for _ in 0..3 {
        assert_eq!(starts(&desk.offered(vec![offer("job-1")])), []);
    }
    let ask = Action::Errand(Errand::Ask { key: key("job-1"), id: id("job-1") });
    assert_eq!(desk.event(Event::Lost { key: key("job-1") }), [ask]);
    assert_eq!(desk.asked(&key("job-1"), Ok(JobState::Running)), [send(&key("job-1"))]);
}

#[test]
fn a_job_that_goes_on_since_an_earlier_run_is_seen_through_and_asked_about_before_it_is_told() {
    let how = LeftHow::Running(Box::new(offer("job-1")));
    let left = Left { key: key("job-1"), attempt: attempt("job-1", 1), how };
    let mut desk = Desk::with(rules(), vec![left]);
    let adopt = Action::Adopt {
        key: key("job-1"),
        attempt: attempt("job-1", 1),
        offer: Box::new(offer("job-1")),
    };
    assert_eq!(desk.tick(), [adopt, Action::Register], "before the backend is there");
    desk.event(Event::Registered(Ok(())));
    assert_eq!(desk.good_beat(Heard::default()), [ask("job-1")], "it may be another's by now");
    assert_eq!(desk.asked(&key("job-1"), Ok(JobState::Running)), []);
    let beat = desk.offered(vec![offer("job-1"), offer("b")]);
    assert_eq!(starts(&beat), [], "its slot is taken");
    desk.asked(&key("job-1"), Ok(JobState::Running));
    assert_eq!(desk.ends(&key("job-1"), Verdict::Completed), [ask("job-1")]);
}
