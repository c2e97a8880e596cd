//! What the service manager is told at each turn of the loop. The loop that turns is the sign of life:
//! neither another thread nor a backend that answers.

use std::time::Duration;

use crate::notify::Notify;
use crate::snapshot::{Snapshot, State};

/// While it starts or stops, the manager is asked at each turn for so much more time: how long the first
/// answer may take is `--request-timeout`'s to say, and how long a drain, `--drain-timeout`'s.
const MORE_TIME: &str = "EXTEND_TIMEOUT_USEC=60000000";

pub(super) struct Herald<'a> {
    notify: &'a Notify,
    watchdog: Option<Duration>,
    ready: bool,
    stopping: bool,
    status: String,
}

impl<'a> Herald<'a> {
    pub(super) fn new(notify: &'a Notify, watchdog: Option<Duration>) -> Self {
        Self { notify, watchdog, ready: false, stopping: false, status: String::new() }
    }

    /// How often the loop must turn for the watchdog's sake.
    pub(super) fn turn_within(&self, most: Duration) -> Duration {
        self.watchdog.map_or(most, |watchdog| most.min(watchdog / 3))
    }

    pub(super) fn turn(&mut self, snapshot: &Snapshot) {
        if !self.notify.is_heard() {
            return;
        }
        let lines = self.lines(snapshot);
        if !lines.is_empty() {
            self.notify.tell(&lines.join("\n"));
        }
    }

    fn lines(&mut self, snapshot: &Snapshot) -> Vec<String> {
        let mut lines = vec![];
        // The first registration was tried, and answered or not.
        if !self.ready && !matches!(snapshot.state, State::Starting | State::Stopped) {
            self.ready = true;
            lines.push("READY=1".to_owned());
        }
        if !self.stopping && matches!(snapshot.state, State::Stopping | State::Stopped) {
            self.stopping = true;
            lines.push("STOPPING=1".to_owned());
        }
        let status = snapshot.line();
        if status != self.status {
            lines.push(format!("STATUS={status}"));
            self.status = status;
        }
        if self.watchdog.is_some() {
            lines.push("WATCHDOG=1".to_owned());
        }
        if !self.ready || self.stopping {
            lines.push(MORE_TIME.to_owned());
        }
        lines
    }
}
