//! Jobs that are offered to do harm by being read: too large, too deep, too many, no numbers.

use std::ops::Range;

use serde_json::{Value, json};

use crate::support::{Backend, Home, Program, Reply, Request, endless, short};

const BEAT: &str = "POST /api/providers/*/heartbeat";

/// The agent's most memory, whatever it was offered, its code without optimisation among it.
const PEAK_KIB: u64 = 40 << 10;

/// A worker that is to do an ordinary job after each attack.
struct Market {
    home: Home,
    backend: Backend,
    worker: Program,
    done: usize,
}

/// One offer as the backend's database has it: its id, if it has one, and its text.
type Offer = (Option<String>, String);

fn offer(id: &str, fields: &str) -> Offer {
    (Some(id.to_owned()), format!(r#"{{"id":"{id}",{fields}}}"#))
}

fn answered(seen: &[Request], id: &str) -> bool {
    let complete = format!("POST /api/jobs/{id}/complete");
    seen.iter().any(|request| request.call == complete)
}

impl Market {
    fn open() -> Self {
        let (home, backend) = (Home::new(), Backend::start());
        let worker = home.worker(&backend.url(), &[]);
        Self { home, backend, worker, done: 0 }
    }

    /// Lists these and behind them an ordinary job, so many at most at once and oldest first, each until it
    /// was answered. Waits for the ordinary one's completion.
    #[track_caller]
    fn survives(&mut self, most: usize, offers: Vec<Offer>) {
        self.done += 1;
        let good = format!("good-{}", self.done);
        let text = short(&good).to_string();
        let offers = [offers, vec![(Some(good.clone()), text)]].concat();
        self.backend.answer(BEAT, move |seen| {
            let open = |(id, _): &&Offer| !id.as_ref().is_some_and(|id| answered(seen, id));
            let open: Vec<&str> =
                offers.iter().filter(open).take(most).map(|(_, text)| text.as_str()).collect();
            let reply = format!(r#"{{"success":true,"pendingJobs":[{}]}}"#, open.join(","));
            Some(Reply::json(200, reply))
        });
        assert_eq!(self.answer(&good)["status"], "completed");
        assert!(self.worker.peak_kib() < PEAK_KIB, "it took {} KiB", self.worker.peak_kib());
    }

    fn answer(&self, id: &str) -> Value {
        self.backend.wait_for(&format!("POST /api/jobs/{id}/complete"), 1).body
    }
}

#[test]
fn jobs_that_cannot_be_read_keep_no_others_from_being_done() {
    let (nest, close) = ("[".repeat(130), "]".repeat(130));
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let text = |mib: usize| format!("\"{}\"", "x".repeat(mib << 20));
    let mut market = Market::open();
    for (n, (input, code)) in [
        (format!("{nest}{close}"), "bad_input"),
        (deep, "bad_input"),
        ("1e999".into(), "bad_input"),
        (r#"{"script":"\ud800"}"#.into(), "bad_input"),
        (r#"{"\udfff":1}"#.into(), "bad_input"),
        ("tru".into(), "bad_input"),
        (text(9), "too_large"),
        (text(50), "too_large"),
        (format!("[0{}]", ",0".repeat(1_000_000)), "too_large"),
        (format!("[0{}]", ",{}".repeat(200_000)), "too_large"),
        (format!("[0{}]", r#",{"a":[]}"#.repeat(100_000)), "too_large"),
    ]
    .into_iter()
    .enumerate()
    {
        // The real backend lists five at most.
        let ids = |large: bool| (0..if large { 1 } else { 5 }).map(move |i| format!("odd-{n}-{i}"));
        let large = code == "too_large";
        let fields = format!(r#""modelType":"compute","inputData":{input}"#);
        market.survives(5, ids(large).map(|id| offer(&id, &fields)).collect());
        for id in ids(large) {
            let answer = market.answer(&id);
            assert_eq!(answer["status"], "failed", "{id}");
            assert_eq!(answer["result"]["code"], code, "{id}: {}", answer["error"]);
        }
    }
    market.worker.stop();
    assert_eq!(market.worker.count("backend in trouble"), 0, "each beat was good");
    assert_eq!(market.home.ledger().iter().filter(|line| line["status"] == "declined").count(), 35);
}

#[test]
fn what_cannot_be_answered_is_skipped_and_said_once() {
    let mut market = Market::open();
    let odd = |text: &str| (None, text.to_owned());
    let odds = [
        odd(r#"{"id":"../../etc","modelType":"compute"}"#),
        odd(r#"{"id":"a\u0000b"}"#),
        odd(r#"{"id":"\u202e","modelType":"compute"}"#),
        odd(r#"{"id":["a"]}"#),
        odd(r#"{"modelType":"compute"}"#),
        odd("null"),
        odd("[[[[]]]]"),
        odd(r#""\ud800""#),
        odd(&format!("\"{}\"", "x".repeat(20 << 20))),
        odd(&format!(r#"{{"id":"{}"}}"#, "x".repeat(1 << 20))),
    ];
    market.survives(usize::MAX, odds.to_vec());
    market.survives(usize::MAX, odds.to_vec());
    // Ahead of it, at each beat.
    let junk = |range: Range<usize>| range.map(|n| odd(&format!(r#"{{"id":"/{n}"}}"#))).collect();
    market.survives(usize::MAX, junk(0..200));
    market.survives(usize::MAX, junk(0..100_000));
    market.worker.stop();
    let said = market.worker.count("job skipped");
    assert!((odds.len()..1100).contains(&said), "{said}");
    assert_eq!(market.worker.count("what else is odd about this backend is not logged"), 0);
}

#[test]
fn of_more_jobs_than_are_looked_at_with_one_beat_none_waits_for_ever() {
    let mut market = Market::open();
    let unknown = (0..150).map(|n| offer(&format!("unknown-{n}"), r#""modelType":"gpt2""#));
    market.survives(usize::MAX, unknown.collect());
    // These are answered, and listed all the same.
    let stuck: Vec<Offer> = (0..70)
        .map(|n| (None, offer(&format!("unknown-{n}"), r#""modelType":"gpt2""#).1))
        .collect();
    market.survives(usize::MAX, stuck);
    market.worker.stop();
}

#[test]
fn numbers_that_are_none_are_declined_or_bounded() {
    let mut market = Market::open();
    let job = |name: &str, value: &str| {
        let mut fields = json!({"modelType": "compute", "computeNeeded": 0.0001, "timeoutSeconds": 30,
                                "inputData": {"kernel": "primes"}});
        let value = serde_json::from_str(value).unwrap();
        if name == "epochs" {
            fields = json!({"modelType": "training", "timeoutSeconds": 1,
                            "inputData": {"dataset": "digits"}});
            fields["inputData"][name] = value;
        } else {
            fields[name] = value;
        }
        fields.to_string().trim_matches(['{', '}']).to_owned() + "}"
    };
    let table = [
        ("computeNeeded", "1e300", "too_large"),
        ("computeNeeded", "-1", "bad_input"),
        ("computeNeeded", "0", "bad_input"),
        ("computeNeeded", "1e-300", "completed"),
        ("computeNeeded", "1e-5", "completed"),
        ("computeNeeded", "\"x\"", "bad_input"),
        ("computeNeeded", "[]", "bad_input"),
        ("computeNeeded", "true", "bad_input"),
        ("timeoutSeconds", "1e300", "completed"),
        ("timeoutSeconds", "-1", "bad_input"),
        ("timeoutSeconds", "1e-300", "timeout"),
        ("timeoutSeconds", "0.0000001", "timeout"),
        ("timeoutSeconds", "\"NaN\"", "bad_input"),
        ("timeoutSeconds", "[]", "bad_input"),
        ("epochs", "1e300", "bad_input"),
        ("epochs", "-3", "bad_input"),
        ("epochs", "100001", "bad_input"),
        ("epochs", "100000", "timeout"),
        ("epochs", "\"x\"", "bad_input"),
    ];
    let id = |n: usize| format!("number-{n}");
    let offers = table.iter().enumerate();
    let offers = offers.map(|(n, (name, value, _))| {
        (Some(id(n)), format!(r#"{{"id":"{}",{}"#, id(n), job(name, value)))
    });
    market.survives(usize::MAX, offers.collect());
    for (n, (name, value, wanted)) in table.iter().enumerate() {
        let answer = market.answer(&id(n));
        let said =
            [&answer["result"]["code"], &answer["errorDetails"]["reason"], &answer["status"]];
        let said = said.into_iter().find(|said| !said.is_null());
        assert_eq!(said, Some(&json!(wanted)), "{name} {value}: {answer:#}");
    }
    market.worker.stop();
}

#[test]
fn a_job_that_is_listed_twice_is_done_once_and_one_that_changes_is_another() {
    let mut market = Market::open();
    let twice = offer("twice", r#""modelType":"compute","computeNeeded":0.0001"#);
    market.survives(usize::MAX, vec![twice; 3]);
    assert_eq!(market.backend.requests("POST /api/jobs/twice/complete").len(), 1);
    market.backend.answer(BEAT, |seen| {
        let mut job = short("changes");
        job["inputData"]["seed"] = json!(seen.len());
        Some(Reply::json(200, json!({"success": true, "pendingJobs": [job]}).to_string()))
    });
    market.backend.wait_for("POST /api/jobs/changes/complete", 2);
    market.survives(usize::MAX, vec![]);
    market.worker.stop();
}

#[test]
fn nobody_elses_jobs_are_cancelled_by_odd_lists() {
    let mut market = Market::open();
    market.backend.offer(&[endless("mine")]);
    market.worker.wait_log("job taken job=mine");
    let long = format!("[{}\"mine\"]", r#""other","#.repeat(100_000));
    for cancel in [
        r#"["other","../mine","Mine","mine ",null,{},["mine"]]"#,
        r#"{"mine":1}"#,
        "\"mine\"",
        &long,
    ] {
        let reply = format!(r#"{{"success":true,"pendingJobs":[],"cancelJobs":{cancel}}}"#);
        market.backend.always(BEAT, Reply::json(200, reply));
        let beat = market.backend.wait_beats(2);
        assert_eq!(beat.body["currentJob"], "mine");
    }
    market.backend.always(
        BEAT,
        Reply::json(200, r#"{"success":true,"cancelJobs":["mine"],"pendingJobs":[]}"#),
    );
    market.worker.wait_log("job cancelled by the backend job=mine");
    market.survives(usize::MAX, vec![]);
    market.worker.stop();
}

#[test]
fn a_reply_that_does_not_end_is_given_up() {
    let mut market = Market::open();
    market.survives(usize::MAX, vec![]);
    let spaces = " ".repeat((64 << 20) + 1);
    let large = [
        format!(r#"{{"success":true,{spaces}"pendingJobs":[]}}"#),
        format!("{{\"x\":\"{spaces}\"}}"),
    ];
    for (n, body) in large.into_iter().enumerate() {
        market.backend.next(BEAT, [Reply::json(200, body)]);
        market.worker.wait_count("the reply is over 64 MiB: is this the backend?", n + 1);
        market.survives(usize::MAX, vec![]);
    }
    market.worker.stop();
}

#[test]
fn results_that_the_backend_finds_too_large_keep_no_jobs_away() {
    let market = Market::open();
    let refused = r#"{"success":false,"error":"request entity too large"}"#;
    market.backend.always("POST /api/jobs/*/complete", Reply::json(413, refused));
    // More than may wait for their delivery.
    let offers: Vec<String> =
        (0..110).map(|n| format!(r#"{{"id":"large-{n}","modelType":"gpt2"}}"#)).collect();
    market.backend.always(
        BEAT,
        Reply::json(200, format!(r#"{{"success":true,"pendingJobs":[{}]}}"#, offers.join(","))),
    );
    let status = market.home.path("state/status.json");
    market.worker.wait_count("result refused as too large, trying on", 100);
    let beat = market.backend.wait("a beat that says so", |seen| {
        let reason = |request: &&Request| request.body["pausedReason"].as_str().map(str::to_owned);
        let said = |reason: String| reason.ends_with("results as too large (413)");
        seen.iter().find(|request| reason(request).is_some_and(said)).cloned()
    });
    assert_eq!(beat.body["status"], "busy");
    let written: Value = serde_json::from_str(&std::fs::read_to_string(status).unwrap()).unwrap();
    assert!(written["tooLargeResults"].as_u64().unwrap() > 0, "{written:#}");
}

#[test]
fn one_result_that_the_backend_finds_too_large_is_tried_on_while_jobs_go_on() {
    let mut market = Market::open();
    let refused = Reply::json(413, r#"{"success":false,"error":"request entity too large"}"#);
    market.backend.always("POST /api/jobs/large/complete", refused);
    market.survives(usize::MAX, vec![(None, short("large").to_string())]);
    market.backend.wait_for("POST /api/jobs/large/complete", 2);
    market.survives(usize::MAX, vec![]);
    assert_eq!(market.worker.count("result refused as too large, trying on job=large"), 1);
    let (_, told, _) = crate::support::run(&["status", "--state-dir", &market.home.path("state")]);
    assert!(
        told.contains("wait to be delivered; the backend refuses 1 as too large (413)"),
        "{told}"
    );
}
