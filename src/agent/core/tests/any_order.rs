//! Whatever happens, in whatever order: what must hold always.
//!
//! A world around the core, drawn from a seed, does what the threads and a backend do, well or badly,
//! and checks each decision. `CASES=20000 cargo test --release any_order` draws more of them than the
//! usual run does; a failure names its seed, and `SEED=…` draws that one alone.

use std::collections::VecDeque;
use std::panic::catch_unwind;

use super::*;

const CASES: u64 = 300;
const STEPS: usize = 400;

/// A job whose program runs.
struct Program {
    number: u32,
    told: Option<Order>,
}

struct World {
    core: Core,
    now: Time,
    rng: fastrand::Rng,
    slots: usize,
    /// What the net thread is at: a registration, or a beat sent then.
    net: Option<Option<Time>>,
    errands: VecDeque<Action>,
    /// Sent, and not yet answered.
    progress: Vec<Key>,
    running: BTreeMap<Key, Program>,
    /// What the loop itself records: the attempt's number and the verdict.
    recording: Vec<(Key, u32, Verdict)>,
    /// Losses found at the start that the disk has not taken.
    unrecorded: Vec<Key>,
    started: BTreeSet<(Key, u32)>,
    /// Attempts with an outcome on disk, and whether it is booked.
    outcomes: BTreeMap<(Key, u32), bool>,
    /// The newest outcome of each job.
    newest: BTreeMap<Key, (u32, Verdict)>,
    lost: BTreeSet<(Key, u32)>,
    measuring: bool,
    stopped: bool,
    gone: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let slots = rng.usize(1..5);
        let rules = Rules {
            slots,
            max_jobs: (rng.u8(..) < 20).then(|| rng.u32(1..10)),
            exit_when_idle: (rng.u8(..) < 20).then(|| Duration::from_secs(rng.u64(0..10_000))),
            ..rules()
        };
        let now = Duration::from_millis(rng.u64(0..100_000_000));
        let (mut left, mut unrecorded) = (vec![], vec![]);
        let (mut outcomes, mut newest) = (BTreeMap::new(), BTreeMap::new());
        for n in 0..rng.usize(0..4) {
            let name = format!("job-{n}");
            let verdict = verdict(&mut rng);
            let how = match rng.u8(0..5) {
                0 => LeftHow::Taken(Box::new(offer(&name))),
                4 => LeftHow::Running(Box::new(offer(&name))),
                1 => {
                    let waited = Duration::from_secs(rng.u64(0..700_000));
                    LeftHow::Finished { verdict, waited, progressed: rng.bool() }
                }
                2 => LeftHow::Unrecorded,
                _ => LeftHow::Delivered(verdict),
            };
            if matches!(how, LeftHow::Unrecorded) {
                unrecorded.push(key(&name));
            } else if !matches!(how, LeftHow::Taken(_) | LeftHow::Running(_)) {
                outcomes.insert((key(&name), 1), matches!(how, LeftHow::Delivered(_)));
                newest.insert(key(&name), (1, verdict));
            }
            left.push(Left { key: key(&name), attempt: attempt(&name, 1), how });
        }
        Self {
            core: Core::new(rules, "worker", seed, left, now),
            now,
            rng,
            slots,
            net: None,
            errands: VecDeque::new(),
            progress: vec![],
            running: BTreeMap::new(),
            recording: vec![],
            unrecorded,
            started: BTreeSet::new(),
            outcomes,
            newest,
            lost: BTreeSet::new(),
            measuring: false,
            stopped: false,
            gone: false,
        }
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(0..100) < percent
    }

    fn event(&mut self, event: Event) {
        if self.gone {
            return;
        }
        let actions = self.core.handle(self.now, event);
        let next = self.core.next_deadline();
        assert!(next.is_none_or(|next| next > self.now), "{next:?} at {:?}", self.now);
        for action in actions {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Register => {
                assert!(self.net.replace(None).is_none(), "one call at a time");
            }
            Action::Beat { status, .. } => {
                assert!(self.net.replace(Some(self.now)).is_none(), "one call at a time");
                assert!(status != Status::Online || self.running.len() < self.slots);
            }
            Action::Adopt { key, attempt, .. } => {
                let number = attempt.number;
                assert!(self.started.insert((key.clone(), number)), "{attempt:?} runs twice");
                self.running.insert(key, Program { number, told: None });
            }
            Action::Start { key, attempt, .. } => {
                let number = attempt.number;
                assert!(self.started.insert((key.clone(), number)), "{attempt:?} runs twice");
                assert!(!self.outcomes.contains_key(&(key.clone(), number)), "{attempt:?} is over");
                assert!(!self.stopped, "a job begins while the worker stops");
                assert!(!self.measuring, "a job begins while the machine is measured");
                assert!(!self.unrecorded.contains(&key), "an attempt before it is over");
                assert!(!self.is_asked_about(&key), "the answer would be taken for this attempt's");
                self.running.insert(key, Program { number, told: None });
                assert!(self.running.len() <= self.slots, "more jobs than slots");
            }
            Action::Decline { key, attempt, decline, .. } => {
                self.recording.push((key, attempt.number, Verdict::Declined(decline.code.blame())));
            }
            Action::Repeat { key, attempt } => {
                let (_, verdict) = self.newest[&key];
                self.recording.push((key, attempt.number, verdict));
            }
            Action::Abandon { key } => self.recording.push((key, 1, Verdict::Cancelled)),
            Action::Order { key, order } => {
                let program = self.running.get_mut(&key).expect("only what runs is told");
                program.told = Some(order);
            }
            Action::Errand(Errand::Progress { key, .. }) => {
                assert!(self.running.contains_key(&key), "progress of a job that is over");
                self.progress.push(key);
            }
            Action::Errand(Errand::DropProgress { key }) => {
                self.progress.retain(|waits| *waits != key);
            }
            Action::Errand(Errand::Ask { .. }) => self.errands.push_back(action),
            Action::Errand(Errand::Send { ref key, .. }) => {
                assert!(!self.running.contains_key(key) && self.newest.contains_key(key));
                self.errands.push_back(action);
            }
            Action::Book { key, .. } => {
                let (number, _) = self.newest[&key];
                let booked = self.outcomes.insert((key.clone(), number), true);
                assert_eq!(booked, Some(false), "{key:?} {number} is booked once");
            }
            Action::Measure => {
                assert!(self.running.is_empty(), "measured beside a job");
                self.measuring = true;
            }
            Action::StopMeasuring => self.measuring = false,
            Action::Exit(_) | Action::ExitNow(_) => self.gone = true,
            Action::NoteWait { .. }
            | Action::NoteProgress { .. }
            | Action::Forget { .. }
            | Action::Log(..) => {}
        }
    }

    fn is_asked_about(&self, of: &Key) -> bool {
        let asks = |errand: &Action| matches!(errand, Action::Errand(Errand::Ask { key, .. }) if key == of);
        self.errands.iter().any(asks)
    }

    fn step(&mut self) {
        match self.rng.u8(0..16) {
            0..=3 => self.pass_time(),
            4..=6 => self.answer_net(70),
            7..=9 => self.answer_errand(60),
            10 => self.answer_progress(),
            11 => self.report(),
            12 => self.end_one(),
            13 => self.record_one(),
            14 => self.measured(),
            _ => self.odd_event(),
        }
    }

    fn pass_time(&mut self) {
        let due = self.core.next_deadline().unwrap_or(self.now).max(self.now);
        self.now = match self.rng.u8(0..20) {
            0..=13 => due,
            14..=18 => due.min(self.now + Duration::from_millis(self.rng.u64(0..60_000))),
            // Asleep.
            _ => self.now + Duration::from_secs(self.rng.u64(0..200_000)),
        };
        self.event(Event::Tick);
    }

    fn error(&mut self) -> Error {
        let retry_after = self.chance(30).then(|| self.rng.u64(0..2000));
        match self.rng.u8(0..5) {
            0 => unreachable(),
            1 => status_error(404, self.rng.bool(), None),
            2 => status_error(401, self.rng.bool(), retry_after),
            _ => status_error(503, true, retry_after),
        }
    }

    fn answer_net(&mut self, good: u8) {
        let Some(call) = self.net.take() else { return };
        self.now += Duration::from_millis(self.rng.u64(1..5000));
        let good = self.chance(good);
        let event = match call {
            None if good => Event::Registered(Ok(())),
            // Credentials that are refused at first end the run; that has a table of its own.
            None => Event::Registered(Err(RegisterError::Call(unreachable()))),
            Some(sent) if good => Event::Beat { sent, answer: Ok(self.heard()) },
            Some(sent) => Event::Beat { sent, answer: Err(self.error()) },
        };
        self.event(event);
    }

    fn heard(&mut self) -> Heard {
        let mut heard = Heard { polled: self.chance(10), ..Heard::default() };
        for _ in 0..self.rng.usize(0..4) {
            let name = format!("job-{}", self.rng.u8(0..12));
            let content = if self.chance(5) { "changed" } else { "content" }.to_owned();
            let new = if self.chance(15) { bad_offer(&name) } else { offer(&name) };
            heard.offers.push(Offer { content, ..new });
        }
        if self.chance(10) {
            heard.cancel.push(id(&format!("job-{}", self.rng.u8(0..12))));
        }
        heard.interval = self.chance(5).then(|| Duration::from_secs(self.rng.u64(5..600)));
        heard
    }

    fn answer_errand(&mut self, good: u8) {
        let Some(errand) = self.errands.pop_front() else { return };
        self.now += Duration::from_millis(self.rng.u64(1..5000));
        let good = self.chance(good);
        let event = match errand {
            Action::Errand(Errand::Ask { key, .. }) => {
                let answer = if good { Ok(self.state()) } else { Err(self.error()) };
                Event::Asked { key, answer }
            }
            Action::Errand(Errand::Send { key, .. }) if self.chance(2) => {
                let (number, _) = self.newest[&key];
                self.lost.insert((key.clone(), number));
                Event::Unreadable { key, error: "damaged".into() }
            }
            Action::Errand(Errand::Send { key, .. }) if good => {
                let rejected = self.chance(20).then(|| Receipt::Rejected("not yours".into()));
                Event::Sent { key, answer: Ok(rejected.unwrap_or(Receipt::Acknowledged)) }
            }
            Action::Errand(Errand::Send { key, .. }) => {
                Event::Sent { key, answer: Err(self.error()) }
            }
            other => panic!("{other:?} is no errand"),
        };
        self.event(event);
    }

    fn state(&mut self) -> JobState {
        match self.rng.u8(0..12) {
            0..=3 => JobState::Running,
            4..=6 => JobState::Waiting,
            7 => JobState::Unknown,
            8 => JobState::Completed,
            9 => JobState::Failed,
            10 => JobState::Elsewhere,
            _ => JobState::Cancelled,
        }
    }

    fn answer_progress(&mut self) {
        if let Some(key) = self.progress.pop() {
            let acknowledged = self.rng.bool();
            self.event(Event::ProgressSent { key, acknowledged });
        }
    }

    /// Of any job: what was on its way when a job ended comes after its end.
    fn report(&mut self) {
        let key = key(&format!("job-{}", self.rng.u8(0..12)));
        let report = report(self.rng.u8(1..99));
        self.event(Event::Progress { key, report });
    }

    fn end_one(&mut self) {
        let keys: Vec<Key> = self.running.keys().cloned().collect();
        let Some(key) = self.rng.choice(keys) else { return };
        let Some(Program { number, told }) = self.running.remove(&key) else { return };
        if self.chance(3) {
            self.started.remove(&(key.clone(), number));
            return self.event(Event::NotTaken { key, error: "disk full".into() });
        }
        let verdict = match told {
            Some(Order::Cancel) if self.chance(80) => Verdict::Cancelled,
            Some(Order::Stop) if self.chance(80) => worker_fault(),
            _ => [Verdict::Completed, worker_fault(), job_fault()][self.rng.usize(0..3)],
        };
        self.ended(key, number, verdict);
    }

    fn record_one(&mut self) {
        if let Some(key) = self.unrecorded.pop() {
            return self.outcome(key, 1, worker_fault(), |key, _| Event::Lost { key });
        }
        if self.recording.is_empty() {
            return;
        }
        let (key, number, verdict) = self.recording.remove(0);
        if self.chance(5) {
            return self.event(Event::NotTaken { key, error: "disk full".into() });
        }
        self.ended(key, number, verdict);
    }

    fn ended(&mut self, key: Key, number: u32, verdict: Verdict) {
        self.outcome(key, number, verdict, |key, verdict| Event::Ended { key, verdict });
    }

    /// An outcome is on disk.
    fn outcome(
        &mut self,
        key: Key,
        number: u32,
        verdict: Verdict,
        told: fn(Key, Verdict) -> Event,
    ) {
        let twice = self.outcomes.insert((key.clone(), number), false);
        assert_eq!(twice, None, "{key:?} {number} has one outcome");
        self.newest.insert(key.clone(), (number, verdict));
        self.event(told(key, verdict));
    }

    fn measured(&mut self) {
        if self.measuring {
            let answer = if self.rng.bool() { Ok(100.0) } else { Err("busy".to_owned()) };
            self.event(Event::Measured(answer));
        }
    }

    fn odd_event(&mut self) {
        let event = match self.rng.u8(0..20) {
            0..=5 => Event::MachineChanged,
            6..=9 => Event::SpeedUnknown,
            10..=12 => Event::DiskFree(0),
            13..=18 => Event::DiskFree(5 << 30),
            _ if self.chance(30) => {
                self.stopped = true;
                let quick = self.rng.bool();
                Event::Stop(if quick { StopRequest::Cancel } else { StopRequest::Drain })
            }
            _ => Event::Tick,
        };
        self.event(event);
    }

    /// All goes well from now on: whatever was begun comes to its end.
    fn come_to_rest(&mut self) {
        self.event(Event::DiskFree(5 << 30));
        for _ in 0..3000 {
            if self.gone || self.core.jobs.is_empty() {
                return;
            }
            while !self.running.is_empty() {
                self.end_one();
            }
            while !self.recording.is_empty() || !self.unrecorded.is_empty() {
                self.record_one();
            }
            while !self.errands.is_empty() {
                self.answer_errand(100);
            }
            match self.net.take() {
                Some(None) => self.event(Event::Registered(Ok(()))),
                Some(Some(sent)) => self.event(Event::Beat { sent, answer: Ok(Heard::default()) }),
                None => {
                    self.now = self.core.next_deadline().unwrap_or(self.now).max(self.now);
                    self.event(Event::Tick);
                }
            }
        }
        panic!("still there: {:#?}", self.core.jobs);
    }

    /// Every attempt that began has one outcome, and every outcome is booked once.
    fn is_settled(&self) {
        for attempt in &self.started {
            assert!(
                self.outcomes.contains_key(attempt),
                "{attempt:?} was begun and has no outcome"
            );
        }
        for (attempt, booked) in &self.outcomes {
            assert!(*booked || self.lost.contains(attempt), "{attempt:?} is not booked");
        }
    }
}

fn verdict(rng: &mut fastrand::Rng) -> Verdict {
    [
        Verdict::Completed,
        worker_fault(),
        job_fault(),
        Verdict::Declined(Blame::Job),
        Verdict::Declined(Blame::Worker),
        Verdict::Cancelled,
    ][rng.usize(0..6)]
}

#[expect(clippy::disallowed_methods, reason = "it says how much is drawn, and decides nothing")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a whole number"))
}

#[test]
fn in_any_order_nothing_is_lost_doubled_or_begun_twice() {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CASES").unwrap_or(CASES),
    };
    for seed in seeds {
        // The check's own words come before these, which name its seed.
        assert!(catch_unwind(|| draw(seed)).is_ok(), "drawn from SEED={seed}");
    }
}

fn draw(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.come_to_rest();
    if !world.gone {
        world.is_settled();
    }
}
