//! The thread that registers and beats, so that nothing else waits for the backend.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender};

use super::event::{Event, Heard};
use super::gpu_roll::GpuRoll;
use super::outward::without_paths;
use super::{GPU_FIRST, Shared};
use crate::backend::{Beat, BeatReply, Status};
use crate::job;
use crate::machine::{self, HostMeter, VitalsMeter};
use crate::reading::Reading;
use crate::work::JobId;
use crate::{clock, text};

/// So many jobs are cancelled by one reply; the others come again.
const CANCELS_MAX: usize = 64;

/// So many different oddities are logged.
const SAID_MAX: usize = 1000;

/// What the loop asks of this thread.
#[derive(Debug)]
pub(super) enum Order {
    Register,
    Beat { status: Status, jobs: Vec<JobId>, paused: Option<String> },
}

pub(super) fn run(shared: &Shared, orders: &Receiver<Order>, events: &Sender<Event>) {
    let mut meter = HostMeter::with_boot();
    let mut vitals = VitalsMeter::new();
    let mut said = Said::default();
    let mut roll = GpuRoll::default();
    // Once: a driver that hangs is to hang nobody but itself.
    shared.gpus.wait_first(GPU_FIRST);
    for order in orders {
        // Before anything that may bring a job.
        let disk = machine::disk(&shared.config().identity.state_dir);
        if let Some(disk) = &disk {
            if disk.free >= shared.config().rules.min_free {
                shared.store.keep_reserve(disk.free);
            }
            events.send(Event::DiskFree(disk.free)).ok();
        }
        let event = match order {
            Order::Register => {
                let gpus = shared.gpus.latest();
                roll.call(&gpus);
                let facts = shared.facts(&gpus);
                let absence = gpus.absence.as_ref().map(|absence| absence.reason().to_owned());
                shared.board.note_machine(&facts, absence);
                if facts.gflops.is_none() {
                    events.send(Event::SpeedUnknown).ok();
                }
                Event::Registered(shared.backend.register(&facts))
            }
            Order::Beat { status, jobs, paused } => {
                let sent = clock::since_boot();
                let gpus = shared.gpus.latest();
                if roll.call(&gpus) {
                    events.send(Event::MachineChanged).ok();
                }
                let gpu_absence = roll.missing().as_deref().map(without_paths);
                let reading = Reading { host: meter.read(), gpus: gpus.usage };
                let vitals = vitals.read(disk.as_ref());
                shared.board.note_usage(&reading, &vitals);
                let at = clock::wall();
                let beat = Beat { status, jobs, paused, reading, gpu_absence, vitals, at };
                let answer = shared.backend.heartbeat(&beat);
                Event::Beat { sent, answer: answer.map(|reply| hear(shared, reply, &mut said)) }
            }
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

/// Takes a reply apart. What cannot be understood is said once, and is nobody else's trouble.
fn hear(shared: &Shared, reply: BeatReply, said: &mut Said) -> Heard {
    let BeatReply { polled, partial, interval, .. } = reply;
    let mut heard = Heard { polled, partial, interval, ..Heard::default() };
    for oddity in &reply.oddities {
        said.once(log::Level::Warn, oddity);
    }
    for listed in reply.jobs {
        let offer = job::parse(listed, &shared.terms);
        let given = offer.provider_id.as_deref();
        let ours = given.is_none_or(|id| shared.backend.is_surely_our_provider(id));
        if !polled || ours {
            heard.offers.push(offer);
        }
    }
    heard.cancel =
        reply.cancel.iter().take(CANCELS_MAX).filter_map(|id| JobId::parse(id)).collect();
    heard
}

/// What was said already: a backend repeats itself at every beat, the log does not.
#[derive(Default)]
struct Said(BTreeSet<String>);

impl Said {
    fn once(&mut self, level: log::Level, line: &str) {
        if self.0.len() > SAID_MAX {
            return;
        }
        if self.0.len() == SAID_MAX {
            self.0.insert(String::new());
            return log::warn!("what else is odd about this backend is not logged");
        }
        if self.0.insert(text::cap(line, 500)) {
            log::log!(level, "{line}");
        }
    }
}
