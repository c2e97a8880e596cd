//! The thread that carries progress, questions and completions. It decides nothing but the order:
//! questions and completions first, then the newest progress of each job.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};

use super::Shared;
use super::event::{Errand, Event};
use crate::backend::Error;
use crate::crash;
use crate::store::ReadError;
use crate::work::{JobId, Key, LogLine, Report};

/// What waits to be carried.
#[derive(Default)]
struct Bag {
    errands: VecDeque<Errand>,
    progress: BTreeMap<Key, (JobId, Box<Report>)>,
}

pub(super) fn run(shared: &Shared, orders: &Receiver<Errand>, events: &Sender<Event>) {
    let mut bag = Bag::default();
    while bag.fill(orders) {
        let told = match bag.errands.pop_front() {
            Some(Errand::Ask { key, id }) => {
                let answer = shared.backend.job(&id, &asker(shared, &key));
                events.send(Event::Asked { key, answer })
            }
            Some(Errand::Send { key, first }) => send(shared, key, first.as_deref(), events),
            Some(Errand::Progress { .. } | Errand::DropProgress { .. }) | None => {
                let Some((key, (id, report))) = bag.progress.pop_first() else { continue };
                let acknowledged = tell_progress(shared, &id, &report);
                events.send(Event::ProgressSent { key, acknowledged })
            }
        };
        if told.is_err() {
            return;
        }
    }
}

impl Bag {
    /// Waits for something to do, and takes in all there is. False when the loop is gone.
    fn fill(&mut self, orders: &Receiver<Errand>) -> bool {
        if self.errands.is_empty() && self.progress.is_empty() {
            match orders.recv() {
                Ok(errand) => self.put(errand),
                Err(_) => return false,
            }
        }
        loop {
            match orders.try_recv() {
                Ok(errand) => self.put(errand),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn put(&mut self, errand: Errand) {
        match errand {
            Errand::Progress { key, id, mut report } => {
                if let Some((_, older)) = self.progress.remove(&key) {
                    let mut lines = older.lines;
                    lines.append(&mut report.lines);
                    LogLine::keep_newest(&mut lines);
                    report.lines = lines;
                }
                self.progress.insert(key, (id, report));
            }
            Errand::DropProgress { key } => {
                self.progress.remove(&key);
            }
            Errand::Ask { .. } | Errand::Send { .. } => self.errands.push_back(errand),
        }
    }
}

/// An outcome is asked about as the worker that took its job, and a job still to be done as ourselves.
fn asker(shared: &Shared, key: &Key) -> String {
    let taker = shared.store.outcome(key).ok().and_then(|(record, _)| record.worker);
    taker.unwrap_or_else(|| shared.worker_id.clone())
}

fn send(
    shared: &Shared,
    key: Key,
    first: Option<&Report>,
    events: &Sender<Event>,
) -> Result<(), std::sync::mpsc::SendError<Event>> {
    let (record, outcome) = match shared.store.outcome(&key) {
        Ok(found) => found,
        // The disk's trouble may pass; what it holds is not given up for it.
        Err(ReadError::Io(cause)) => {
            let call = "read the result from disk".to_owned();
            let answer = Err(Error::Unreachable { call, cause: cause.to_string() });
            return events.send(Event::Sent { key, answer });
        }
        Err(error) => {
            let error = shared.store.unreadable(&key, &error);
            return events.send(Event::Unreadable { key, error });
        }
    };
    if let Some(report) = first {
        let acknowledged = tell_progress(shared, &record.attempt.id, report);
        events.send(Event::ProgressSent { key: key.clone(), acknowledged })?;
    }
    let worker = record.worker.as_ref().unwrap_or(&shared.worker_id);
    crash::point("before-send");
    let answer = shared.backend.complete(worker, &record.attempt, &record.kind, &outcome);
    crash::point("answered");
    events.send(Event::Sent { key, answer })
}

/// Progress that fails is no error of the job's: the newest is sent next time.
fn tell_progress(shared: &Shared, id: &JobId, report: &Report) -> bool {
    match shared.backend.progress(id, report) {
        Ok(()) => true,
        Err(error) => {
            log::debug!("progress not sent job={id}: {error}");
            false
        }
    }
}
