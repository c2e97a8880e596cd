//! When to register, when to beat, how long to wait after a failure.

use std::time::Duration;

use log::Level;
use sha2::{Digest as _, Sha256};

use super::view::Ailment;
use super::{Action, Core, State, Time};
use crate::agent::event::Heard;
use crate::backend::{Advice, Error, RegisterError, Status};
use crate::exit::Exit;
use crate::retry;

/// How long refused credentials are left alone.
pub(super) const REFUSED_WAIT: Duration = Duration::from_secs(300);

/// The lease: silence for so many intervals, and the backend may give our jobs away.
const LEASE_INTERVALS: u32 = 3;

/// How a failed heartbeat's retry is bounded.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Link {
    state: LinkState,
    interval: Duration,
    /// Where in the interval our beats fall, so that a fleet's are spread.
    phase: f64,
    /// Heartbeats that failed in a row.
    failures: u32,
    /// Registrations since the last good heartbeat.
    registrations: u32,
    ever_registered: bool,
    /// When to register other facts than those last registered.
    renew_at: Option<Time>,
    renewals_failed: u32,
    last_good: Option<Time>,
    last_lapse: Option<Time>,
    /// A beat is wanted as soon as the one under way is answered.
    again: bool,
    trouble: Option<Trouble>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum LinkState {
    ToRegister { at: Time },
    Registering,
    ToBeat { at: Time },
    Beating { offline: bool },
}

/// What is wrong with the backend, since when.
#[derive(Debug)]
struct Trouble {
    since: Time,
    attempts: u32,
    kind: String,
    said: String,
}

impl Link {
    pub(super) fn new(worker_id: &str, interval: Duration, now: Time) -> Self {
        Self {
            state: LinkState::ToRegister { at: now },
            interval,
            phase: f64::from(Sha256::digest(worker_id)[0]) / 256.0,
            failures: 0,
            registrations: 0,
            ever_registered: false,
            renew_at: None,
            renewals_failed: 0,
            last_good: None,
            last_lapse: None,
            again: false,
            trouble: None,
        }
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    pub(super) fn ever_good(&self) -> bool {
        self.last_good.is_some()
    }

    pub(super) fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Whether the last heartbeat was good.
    pub(super) fn is_good(&self) -> bool {
        self.ever_good() && self.failures == 0
    }

    pub(super) fn ever_registered(&self) -> bool {
        self.ever_registered
    }

    /// Whether the backend knows us, as far as we know.
    pub(super) fn is_registered(&self) -> bool {
        matches!(self.state, LinkState::ToBeat { .. } | LinkState::Beating { .. }) || self.is_good()
    }

    pub(super) fn last_good(&self) -> Option<Time> {
        self.last_good
    }

    /// What is wrong with the backend, if something is.
    pub(super) fn ailment(&self) -> Option<Ailment> {
        let trouble = self.trouble.as_ref()?;
        let what = match trouble.kind.as_str() {
            "unreachable" => "backend unreachable",
            "401" | "403" => "backend refuses our credentials",
            "404" => "backend does not know us",
            _ => "backend in trouble",
        };
        Some(Ailment { since: trouble.since, what, said: trouble.said.clone() })
    }

    pub(super) fn due(&self) -> Option<Time> {
        match self.state {
            LinkState::ToRegister { at } | LinkState::ToBeat { at } => Some(at),
            LinkState::Registering | LinkState::Beating { .. } => None,
        }
    }

    fn lease_end(&self) -> Option<Time> {
        self.last_good.map(|good| good + self.interval * LEASE_INTERVALS)
    }

    /// Remembers that the lease has run out, however shortly.
    pub(super) fn note_lapse(&mut self, now: Time) {
        if self.lease_end().is_some_and(|end| now > end) {
            self.last_lapse = Some(now);
        }
    }

    pub(super) fn lapsed_since(&self, time: Time) -> bool {
        self.last_lapse.is_some_and(|lapse| lapse >= time)
    }

    /// The next stable point of the interval that is at least half an interval away, ±10 %.
    fn next_beat(&self, now: Time, rng: &mut fastrand::Rng) -> Time {
        let interval = self.interval.as_secs_f64();
        let earliest = now.as_secs_f64() / interval + 0.5 - self.phase;
        let point = (earliest.ceil() + self.phase + (rng.f64() - 0.5) / 5.0) * interval;
        Duration::from_secs_f64(point).max(now)
    }
}

impl Core {
    pub(super) fn machine_changed(&mut self, now: Time) {
        self.link.renew_at.get_or_insert(now);
    }

    /// When to register though the backend knows us: between two heartbeats, while all is well.
    pub(super) fn renewal_due(&self) -> Option<Time> {
        let between_beats = matches!(self.link.state, LinkState::ToBeat { .. });
        let well = self.link.is_good() && self.stopping.is_no();
        self.link.renew_at.filter(|_| between_beats && well)
    }

    pub(super) fn step_link(&mut self, now: Time) {
        if self.renewal_due().is_some_and(|at| now >= at) {
            self.link.state = LinkState::ToRegister { at: now };
        }
        match self.link.state {
            LinkState::ToRegister { at } if now >= at && self.stopping.allows_beats() => {
                self.link.registrations += 1;
                self.link.renew_at = None;
                self.link.state = LinkState::Registering;
                self.out.push(Action::Register);
            }
            LinkState::ToBeat { at } if now >= at && self.stopping.allows_beats() => {
                self.send_beat(self.status());
            }
            _ => {}
        }
    }

    fn send_beat(&mut self, status: Status) {
        self.link.state = LinkState::Beating { offline: status == Status::Offline };
        let (jobs, paused) = (self.current(), self.wholly_or_partly_paused());
        self.out.push(Action::Beat { status, jobs, paused });
    }

    /// Says `offline` if that can be said now.
    pub(super) fn say_offline(&mut self) -> Said {
        match self.link.state {
            LinkState::ToBeat { .. } => {
                self.send_beat(Status::Offline);
                Said::UnderWay
            }
            LinkState::Beating { .. } => Said::Later,
            // It knows us, and is only told other facts.
            LinkState::Registering if self.link.is_good() => Said::Later,
            LinkState::ToRegister { .. } | LinkState::Registering => Said::Never,
        }
    }

    /// Beats now, or as soon as the beat under way is answered.
    pub(super) fn beat_soon(&mut self, now: Time) {
        match &mut self.link.state {
            // After a failure the retry's own time holds.
            LinkState::ToBeat { at } if self.link.failures == 0 => *at = now,
            LinkState::Beating { .. } => self.link.again = true,
            _ => {}
        }
    }

    pub(super) fn registered(&mut self, now: Time, answer: Result<(), RegisterError>) {
        match answer {
            Ok(()) => {
                self.link.state = LinkState::ToBeat { at: now };
                self.link.failures = 0;
                self.link.renewals_failed = 0;
                if !self.link.ever_registered {
                    self.log(Level::Info, "registered".into());
                }
                self.link.ever_registered = true;
                self.counts.registrations += 1;
            }
            Err(error) if self.link.is_good() => self.renew_later(now, &error),
            Err(RegisterError::NeedsAddress(said)) if !self.link.ever_registered => {
                let error = RegisterError::NeedsAddress(said);
                self.log(Level::Error, error.to_string());
                self.out.push(Action::Exit(Exit::Usage));
            }
            Err(RegisterError::NeedsAddress(said)) => {
                self.register_later(now, None);
                self.trouble(now, "register", &said);
            }
            Err(RegisterError::Call(error)) if error.refuses_us() && !self.link.ever_registered => {
                let hint = "check the token: --token-file, and that the backend knows it";
                self.log(Level::Error, format!("refused by the backend: {error}; {hint}"));
                self.out.push(Action::Exit(Exit::Refused));
            }
            Err(RegisterError::Call(error)) => {
                self.register_later(now, Some(&error));
                self.trouble_with(now, &error);
            }
        }
    }

    fn register_later(&mut self, now: Time, error: Option<&Error>) {
        // The first registration after a good heartbeat is at once, the others back off.
        let delay = match self.link.registrations {
            0 => Duration::ZERO,
            n => retry::delay(n - 1, &mut self.rng),
        };
        self.link.state = LinkState::ToRegister { at: now + wait_for(error, delay) };
    }

    /// The backend knows us: the heartbeats do not wait for our other facts.
    fn renew_later(&mut self, now: Time, error: &RegisterError) {
        if self.link.renewals_failed == 0 {
            let line =
                format!("the backend does not take what has changed here, trying on: {error}");
            self.log(Level::Warn, line);
        }
        let delay = retry::delay(self.link.renewals_failed, &mut self.rng);
        let call = match error {
            RegisterError::Call(call) => Some(call),
            RegisterError::NeedsAddress(_) => None,
        };
        self.link.renewals_failed = self.link.renewals_failed.saturating_add(1);
        self.link.renew_at = Some(now + wait_for(call, delay).max(self.link.interval * 2));
        self.link.state = LinkState::ToBeat { at: now };
    }

    pub(super) fn beaten(&mut self, now: Time, sent: Time, answer: Result<Heard, Error>) {
        let offline = self.link.state == LinkState::Beating { offline: true };
        match answer {
            Ok(heard) => {
                self.counts.heartbeats += 1;
                self.good_beat(now, sent, heard);
            }
            Err(error) => {
                self.counts.heartbeats_failed += 1;
                self.failed_beat(now, &error);
            }
        }
        if offline {
            self.offline_said();
        }
    }

    fn good_beat(&mut self, now: Time, sent: Time, heard: Heard) {
        let was_bad = self.link.failures > 0 || self.link.trouble.is_some();
        self.link.failures = 0;
        self.link.registrations = 0;
        self.link.last_good = Some(now);
        if let Some(interval) = heard.interval {
            self.link.interval = interval;
        }
        let again = std::mem::take(&mut self.link.again);
        let next = if again { now } else { self.link.next_beat(now, &mut self.rng) };
        self.link.state = LinkState::ToBeat { at: next };
        if let Some(trouble) = self.link.trouble.take() {
            let seconds = Duration::from_secs((now - trouble.since).as_secs());
            let after = humantime::format_duration(seconds);
            self.log(
                Level::Info,
                format!("backend back after {after}, {} attempts", trouble.attempts),
            );
        }
        if was_bad {
            self.hurry_deliveries(now);
        }
        self.ask_about_running(now);
        self.hear(now, sent, heard);
    }

    fn failed_beat(&mut self, now: Time, error: &Error) {
        self.link.again = false;
        self.link.failures += 1;
        let unknown = error.advice() == Advice::NotFound;
        if unknown || self.link.failures >= self.rules.max_failures {
            self.register_later(now, Some(error));
        } else {
            let left = self.link.lease_end().map_or(Duration::ZERO, |end| end.saturating_sub(now));
            let delay = left.mul_f64(self.rng.f64()).clamp(RETRY_MIN, RETRY_MAX);
            self.link.state = LinkState::ToBeat { at: now + wait_for(Some(error), delay) };
        }
        self.trouble_with(now, error);
    }

    fn trouble_with(&mut self, now: Time, error: &Error) {
        let kind = match error {
            Error::Unreachable { .. } => "unreachable".to_owned(),
            Error::Status { status, .. } => status.to_string(),
            Error::Undecodable { .. } => "undecodable".to_owned(),
        };
        self.trouble(now, &kind, &error.to_string());
    }

    /// Says what is wrong when that changes, and not each time.
    fn trouble(&mut self, now: Time, kind: &str, said: &str) {
        let attempts = self.link.trouble.as_ref().map_or(0, |trouble| trouble.attempts) + 1;
        let since = self.link.trouble.as_ref().map_or(now, |trouble| trouble.since);
        let changed = self.link.trouble.as_ref().is_none_or(|trouble| trouble.kind != kind);
        let trouble = Trouble { since, attempts, kind: kind.to_owned(), said: said.to_owned() };
        self.link.trouble = Some(trouble);
        if changed {
            let line = match kind {
                "unreachable" => format!("backend unreachable, trying on: {said}"),
                "401" | "403" => {
                    format!("backend refuses our credentials, trying on every 5 min: {said}")
                }
                "404" => format!("backend does not know us, registering again: {said}"),
                _ => format!("backend in trouble, trying on: {said}"),
            };
            let level = if matches!(kind, "401" | "403") { Level::Error } else { Level::Warn };
            self.log(level, line);
        }
    }

    /// A running job may have been cancelled; once an interval, if the backend tells of jobs at all.
    fn ask_about_running(&mut self, now: Time) {
        if self.tells_of_jobs != Some(false) {
            self.ask_due(now, |state| match state {
                State::Running { told: None, ask_at, .. } => Some(*ask_at),
                _ => None,
            });
        }
    }
}

/// What became of the wish to say `offline`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Said {
    UnderWay,
    /// Another heartbeat is under way.
    Later,
    /// There is nobody to say it to.
    Never,
}

fn wait_for(error: Option<&Error>, delay: Duration) -> Duration {
    let Some(error) = error else { return delay };
    if error.advice() == Advice::Unauthorised {
        return REFUSED_WAIT;
    }
    retry::at_least(delay, error.retry_after())
}
