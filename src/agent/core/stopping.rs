//! Drain, cancel, leave: what is still done, in which order, and for how long.
//!
//! `offline` is said before the failures that stopping causes, or the backend would hand the same
//! jobs straight back; and once more as the last word.

use std::time::Duration;

use log::Level;

use super::{Action, Core, State, Time};
use crate::agent::core::link::Said;
use crate::agent::event::StopRequest;
use crate::exit::Exit;
use crate::work::Order;

/// How long cancelled jobs may take to end: their grace twice over, and time to write it down.
const CANCEL_FOR: Duration = Duration::from_secs(30);

/// How long undelivered outcomes may take once nothing runs any more; then they wait on disk.
const DELIVER_FOR: Duration = Duration::from_secs(10);

/// How long the last heartbeat may take.
const LEAVE_FOR: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Stopping {
    No,
    /// What runs may finish.
    Draining {
        until: Time,
    },
    /// What runs was told to stop. Completions wait for `offline` to be said.
    Cancelling {
        until: Time,
        offline: Offline,
    },
    Delivering {
        until: Time,
    },
    /// The last `offline`.
    Leaving {
        until: Time,
        offline: Offline,
    },
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Offline {
    Wanted,
    UnderWay,
    Said,
}

impl Stopping {
    pub(super) fn is_no(self) -> bool {
        self == Self::No
    }

    pub(super) fn allows_beats(self) -> bool {
        matches!(self, Self::No | Self::Draining { .. })
    }

    pub(super) fn holds_sends(self) -> bool {
        match self {
            Self::Cancelling { offline, .. } => offline != Offline::Said,
            Self::Leaving { .. } | Self::Gone => true,
            Self::No | Self::Draining { .. } | Self::Delivering { .. } => false,
        }
    }

    pub(super) fn due(self) -> Option<Time> {
        match self {
            Self::Draining { until }
            | Self::Cancelling { until, .. }
            | Self::Delivering { until }
            | Self::Leaving { until, .. } => Some(until),
            Self::No | Self::Gone => None,
        }
    }
}

impl Core {
    pub(super) fn stop(&mut self, now: Time, request: StopRequest) {
        self.stop_requests = match request {
            StopRequest::Drain => self.stop_requests + 1,
            StopRequest::Cancel => self.stop_requests.max(1) + 1,
        };
        match (self.stop_requests, self.stopping) {
            (1, Stopping::No) => {
                let running = self.running().count();
                let most = humantime::format_duration(self.rules.drain_timeout);
                let how = match running {
                    0 => String::new(),
                    n => format!(", {n} running may finish for {most} (again: cancel)"),
                };
                self.log(Level::Info, format!("stopping: no new jobs{how}"));
                self.begin_drain(now);
            }
            (2, Stopping::No | Stopping::Draining { .. }) => self.cancel_running(now, "asked to"),
            // Nothing runs any more that could be cancelled. Whoever forwards signals sends some twice.
            (1 | 2, _) => {}
            _ => {
                self.log(Level::Warn, "leaving at once".into());
                self.stopping = Stopping::Gone;
                self.out.push(Action::ExitNow(self.exit()));
            }
        }
    }

    pub(super) fn begin_drain(&mut self, now: Time) {
        self.stopping = Stopping::Draining { until: now + self.rules.drain_timeout };
    }

    fn cancel_running(&mut self, now: Time, why: &str) {
        let running: Vec<_> = self.running().map(|(key, _)| key.clone()).collect();
        self.log(Level::Info, format!("cancelling {} running: {why}", running.len()));
        for key in running {
            if let Some(State::Running { told, .. }) =
                self.jobs.get_mut(&key).map(|job| &mut job.state)
                && told.is_none()
            {
                *told = Some(Order::Stop);
                self.out.push(Action::Order { key, order: Order::Stop });
            }
        }
        self.stopping = Stopping::Cancelling { until: now + CANCEL_FOR, offline: Offline::Wanted };
    }

    pub(super) fn step_stopping(&mut self, now: Time) {
        let before = self.stopping;
        let running = self.running().next().is_some();
        match before {
            Stopping::Draining { .. } if !running => self.begin_delivering(now),
            Stopping::Draining { until } if now >= until => {
                self.cancel_running(now, "time is over");
            }
            // Whatever still runs then cannot be killed, or its end cannot be written.
            Stopping::Cancelling { until, .. } if now >= until => self.begin_delivering(now),
            Stopping::Cancelling { until, offline: Offline::Wanted } => {
                let offline = self.try_offline();
                self.stopping = Stopping::Cancelling { until, offline };
            }
            Stopping::Cancelling { offline: Offline::Said, .. } if !running => {
                self.begin_delivering(now);
            }
            Stopping::Delivering { until } if now >= until || !self.delivers_before(until) => {
                let until = now + LEAVE_FOR;
                self.stopping = Stopping::Leaving { until, offline: Offline::Wanted };
            }
            Stopping::Leaving { until, offline } if now >= until || offline == Offline::Said => {
                self.leave();
            }
            Stopping::Leaving { until, offline: Offline::Wanted } => {
                let offline = self.try_offline();
                self.stopping = Stopping::Leaving { until, offline };
            }
            _ => {}
        }
        if self.stopping != before {
            self.step_deliveries(now);
            self.step_stopping(now);
        }
    }

    fn begin_delivering(&mut self, now: Time) {
        self.stopping = Stopping::Delivering { until: now + DELIVER_FOR };
    }

    fn try_offline(&mut self) -> Offline {
        match self.say_offline() {
            Said::UnderWay => Offline::UnderWay,
            Said::Later => Offline::Wanted,
            Said::Never => Offline::Said,
        }
    }

    /// An `offline` was answered, or failed: either way it was said.
    pub(super) fn offline_said(&mut self) {
        match &mut self.stopping {
            Stopping::Cancelling { offline, .. } | Stopping::Leaving { offline, .. } => {
                *offline = Offline::Said;
            }
            Stopping::No
            | Stopping::Draining { .. }
            | Stopping::Delivering { .. }
            | Stopping::Gone => {}
        }
    }

    fn leave(&mut self) {
        let waiting = self.undelivered();
        if waiting > 0 {
            let line = format!("{waiting} results wait on disk for the next start");
            self.log(Level::Warn, line);
        }
        self.stopping = Stopping::Gone;
        self.out.push(Action::Exit(self.exit()));
    }

    fn exit(&self) -> Exit {
        let counted = self.rules.max_jobs.is_some() && self.counts.failed > 0;
        if counted { Exit::JobFailed } else { Exit::Stopped }
    }
}
