//! The loop's rules as tables: a time and an event in, the actions out. No thread, no clock.

use std::time::Duration;

use super::*;
use crate::agent::event::{Heard, StopRequest};
use crate::backend::{Error, Receipt, RegisterError};
use crate::exit::Exit;
use crate::work::{Compute, Decline, DeclineCode, Kernel, Task};

mod any_order;
mod beats;
mod breaker;
mod clock;
mod disk;
mod jobs;
mod machine;
mod outage;
mod owner;
mod stop;

const INTERVAL: Duration = Duration::from_secs(30);

/// The core at a time of our choosing.
struct Desk {
    core: Core,
    now: Time,
    sent: Time,
}

fn rules() -> Rules {
    Rules {
        heartbeat_interval: INTERVAL,
        progress_interval: Duration::from_secs(5),
        max_failures: 5,
        drain_timeout: Duration::from_secs(600),
        slots: 1,
        max_jobs: None,
        exit_when_idle: None,
        min_free: 1 << 30,
        private_downloads: false,
    }
}

impl Desk {
    fn begun_at(now: Time, rules: Rules, left: Vec<Left>) -> Self {
        Self { core: Core::new(rules, "worker", 7, left, now), now, sent: now }
    }

    fn with(rules: Rules, left: Vec<Left>) -> Self {
        Self::begun_at(Duration::from_secs(10_000), rules, left)
    }

    fn new() -> Self {
        Self::with(rules(), vec![])
    }

    /// Registered, and the first beat answered.
    fn online(rules: Rules, left: Vec<Left>) -> Self {
        Self::with(rules, left).go_online()
    }

    fn go_online(mut self) -> Self {
        assert_eq!(self.tick(), [Action::Register]);
        self.event(Event::Registered(Ok(())));
        self.good_beat(Heard::default());
        self
    }

    /// What is decided, without the lines for the log and the progress that is dropped at each end.
    fn event(&mut self, event: Event) -> Vec<Action> {
        let aside = |action: &Action| {
            matches!(action, Action::Log(..) | Action::Errand(Errand::DropProgress { .. }))
        };
        self.event_with_log(event).into_iter().filter(|action| !aside(action)).collect()
    }

    fn event_with_log(&mut self, event: Event) -> Vec<Action> {
        let actions = self.core.handle(self.now, event);
        // A deadline that stays in the past would make the loop spin.
        let next = self.core.next_deadline();
        assert!(next.is_none_or(|next| next > self.now), "{next:?} at {:?}", self.now);
        if actions.iter().any(|action| matches!(action, Action::Beat { .. })) {
            self.sent = self.now;
        }
        actions
    }

    fn tick(&mut self) -> Vec<Action> {
        self.event(Event::Tick)
    }

    fn wait(&mut self, seconds: u64) -> Vec<Action> {
        self.now += Duration::from_secs(seconds);
        self.tick()
    }

    /// Lets the time of the next deadline come. Returns how long that took, and what was decided.
    fn wait_due(&mut self) -> (Duration, Vec<Action>) {
        let due = self.core.next_deadline().expect("something is due");
        let waited = due.saturating_sub(self.now);
        self.now = self.now.max(due);
        (waited, self.tick())
    }

    fn good_beat(&mut self, heard: Heard) -> Vec<Action> {
        // An answer takes its time.
        self.now += Duration::from_millis(1);
        self.event(Event::Beat { sent: self.sent, answer: Ok(heard) })
    }

    fn bad_beat(&mut self, error: Error) -> Vec<Action> {
        self.event(Event::Beat { sent: self.sent, answer: Err(error) })
    }

    /// Waits for the next beat to fall due, and has it answered with these offers.
    fn offered(&mut self, offers: Vec<Offer>) -> Vec<Action> {
        self.next_beat();
        self.good_beat(Heard { offers, ..Heard::default() })
    }

    fn next_beat(&mut self) -> Action {
        for _ in 0..20 {
            let (_, actions) = self.wait_due();
            if let Some(beat) =
                actions.into_iter().find(|action| matches!(action, Action::Beat { .. }))
            {
                return beat;
            }
        }
        panic!("no beat falls due");
    }

    /// A job that runs.
    fn running(&mut self, id: &str) -> Key {
        let actions = self.offered(vec![offer(id)]);
        assert_eq!(starts(&actions), [(id.to_owned(), 1)]);
        key(id)
    }

    fn ends(&mut self, key: &Key, verdict: Verdict) -> Vec<Action> {
        self.event(Event::Ended { key: key.clone(), verdict })
    }

    fn sent(&mut self, key: &Key, answer: Result<Receipt, Error>) -> Vec<Action> {
        self.event(Event::Sent { key: key.clone(), answer })
    }

    fn asked(&mut self, key: &Key, answer: Result<JobState, Error>) -> Vec<Action> {
        self.event(Event::Asked { key: key.clone(), answer })
    }

    /// A job that ran, ended so, and was delivered.
    fn delivered(&mut self, id: &str, verdict: Verdict) -> Key {
        let key = self.running(id);
        assert_eq!(self.ends(&key, verdict), [send(&key)]);
        self.sent(&key, Ok(Receipt::Acknowledged));
        self.good_beat(Heard::default());
        key
    }
}

fn id(id: &str) -> JobId {
    JobId::parse(id).unwrap()
}

fn key(name: &str) -> Key {
    Key::of("http://a:80", &id(name))
}

fn offer(name: &str) -> Offer {
    let task = Task::Compute(Compute { kernel: Kernel::Primes, seed: 0, amount: 1.0 });
    Offer {
        key: key(name),
        id: id(name),
        content: "content".into(),
        kind: "compute".into(),
        provider_id: None,
        submitter: None,
        job: Ok(crate::work::Job {
            id: id(name),
            task,
            time_limit: Duration::from_secs(3600),
            transfer: None,
        }),
        text: String::new(),
    }
}

fn bad_offer(name: &str) -> Offer {
    let decline = Decline { code: DeclineCode::UnknownKind, reason: "no such kind".into() };
    Offer { job: Err(decline), ..offer(name) }
}

fn attempt(name: &str, number: u32) -> Attempt {
    Attempt { id: id(name), content: "content".into(), number, first: 1 }
}

fn send(key: &Key) -> Action {
    Action::Errand(Errand::Send { key: key.clone(), first: None })
}

fn ask(name: &str) -> Action {
    Action::Errand(Errand::Ask { key: key(name), id: id(name) })
}

fn book(key: &Key, booking: Booking) -> Action {
    Action::Book { key: key.clone(), booking }
}

fn beat(status: Status, jobs: &[&str]) -> Action {
    Action::Beat { status, jobs: jobs.iter().map(|name| id(name)).collect(), paused: None }
}

/// Why no job is taken, as the next heartbeat tells it.
fn paused(desk: &mut Desk) -> Option<String> {
    let Action::Beat { status, paused, .. } = desk.next_beat() else { panic!("no beat") };
    assert!(paused.is_none() || status == Status::Busy, "{status:?} {paused:?}");
    paused
}

/// Which jobs are started, and which attempt at them.
fn starts(actions: &[Action]) -> Vec<(String, u32)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Start { attempt, .. } => Some((attempt.id.to_string(), attempt.number)),
            _ => None,
        })
        .collect()
}

fn worker_fault() -> Verdict {
    Verdict::Failed(Blame::Worker)
}

fn job_fault() -> Verdict {
    Verdict::Failed(Blame::Job)
}

fn report(percent: u8) -> Box<Report> {
    Box::new(Report {
        percent,
        operation: String::new(),
        lines: vec![],
        worked: Duration::ZERO,
        reading: None,
        energy_kwh: None,
        at: std::time::UNIX_EPOCH,
    })
}

fn unreachable() -> Error {
    Error::Unreachable { call: "POST /x".into(), cause: "connection refused".into() }
}

fn status_error(status: u16, json: bool, retry_after: Option<u64>) -> Error {
    let retry_after = retry_after.map(Duration::from_secs);
    Error::Status { call: "POST /x".into(), status, json, message: String::new(), retry_after }
}
