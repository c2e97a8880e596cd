//! The owner's pause: no new job until they say so, or until its time is over.

use log::Level;

use super::{Core, Time};
use crate::agent::event::Pause;

impl Core {
    /// The owner wants a pause, or none any more. Said again at every look, and heeded when it is new.
    pub(super) fn owner_pauses(&mut self, now: Time, pause: Option<Pause>) {
        let pause = pause.filter(|pause| pause.until.is_none_or(|until| now < until));
        let before = std::mem::replace(&mut self.pause, pause);
        let line = match (before, &self.pause) {
            (Some(before), Some(pause)) if before.words == pause.words => return,
            (_, Some(pause)) => format!("{}: no new jobs, what runs goes on", pause.words),
            (Some(_), None) => "the pause is over: jobs are taken again".to_owned(),
            (None, None) => return,
        };
        self.log(Level::Info, line);
        self.beat_soon(now);
    }

    pub(super) fn step_pause(&mut self, now: Time) {
        if self.paused_until().is_some_and(|until| now >= until) {
            self.owner_pauses(now, None);
        }
    }

    /// When the owner's pause ends by itself.
    pub(super) fn paused_until(&self) -> Option<Time> {
        self.pause.as_ref()?.until
    }
}
