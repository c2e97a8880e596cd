//! One registered worker as the books keep it.

use std::{fmt, mem, time::Duration};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Now;
use crate::clock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Online,
    Busy,
    Offline,
}

impl Presence {
    pub(super) fn of(word: &str) -> Option<Self> {
        [Self::Online, Self::Busy, Self::Offline]
            .into_iter()
            .find(|presence| presence.to_string() == word)
    }
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Online => "online",
            Self::Busy => "busy",
            Self::Offline => "offline",
        })
    }
}

#[derive(Debug)]
pub(super) struct Provider {
    pub(super) id: String,
    pub(super) worker: String,
    pub(super) presence: Presence,
    /// Its missed beats were noticed, and its jobs taken away.
    pub(super) lapsed: bool,
    pub(super) beats: u64,
    /// When it last beat or registered, from which its silence counts.
    pub(super) seen: Now,
    pub(super) beat_at: Option<Now>,
    /// The registration as it came.
    pub(super) facts: Value,
    pub(super) last_beat: Value,
}

impl Provider {
    pub(super) fn new(worker: &str, facts: Value, now: Now) -> Self {
        Self {
            id: provider_id(worker),
            worker: worker.to_owned(),
            presence: Presence::Online,
            lapsed: false,
            beats: 0,
            seen: now,
            beat_at: None,
            facts,
            last_beat: Value::Null,
        }
    }

    pub(super) fn is_silent(&self, lease: Duration, now: Now) -> bool {
        now.since_boot.saturating_sub(self.seen.since_boot) > lease
    }

    /// Returns whom it was about and what was thought of it until now.
    pub(super) fn lapse(&mut self) -> (String, Presence) {
        self.lapsed = true;
        (self.worker.clone(), mem::replace(&mut self.presence, Presence::Offline))
    }

    pub(super) fn name(&self) -> &str {
        self.facts["name"].as_str().unwrap_or(&self.worker)
    }

    pub(super) fn wire(&self) -> Value {
        let fact = |key: &str| self.facts[key].clone();
        let last = |key: &str| self.last_beat[key].clone();
        json!({
            "id": self.id,
            "workerId": self.worker,
            "name": self.name(),
            "address": fact("address"),
            "location": fact("location"),
            "computePower": fact("computePower"),
            "pricePerHour": fact("pricePerHour"),
            "isActive": self.presence != Presence::Offline,
            "specs": fact("specs"),
            "status": self.presence.to_string(),
            "lastHeartbeat": self.beat_at.map(|now| clock::rfc3339(now.wall)),
            "beats": self.beats,
            "usage": last("usage"),
            "currentJob": last("currentJob"),
            "currentJobs": last("currentJobs"),
            "pausedReason": last("pausedReason"),
        })
    }
}

/// The same for the same worker, also after a restart, and in the form of a UUID as the real backend's are.
fn provider_id(worker: &str) -> String {
    let hash = Sha256::digest(worker.as_bytes());
    uuid_like(u128::from_be_bytes(std::array::from_fn(|index| hash[index])))
}

pub(super) fn uuid_like(bits: u128) -> String {
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
