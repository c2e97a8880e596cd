//! The thread that carries progress, questions and completions. It decides nothing but the order:
//! questions and completions first, then the newest progress of each job, each in its turn.

use std::collections::VecDeque;
use std::mem;
use std::sync::mpsc::{Receiver, SendError, Sender, TryRecvError};

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
    /// One of each job at most, of those that wait longest the first.
    progress: VecDeque<(Key, JobId, Box<Report>)>,
}

pub(super) fn run(shared: &Shared, orders: &Receiver<Errand>, events: &Sender<Event>) {
    let mut bag = Bag::default();
    // Whose progress was acknowledged last: the loop may not have heard of it when it wants the result sent.
    let mut heard = None;
    while bag.fill(orders) {
        let Some(errand) = bag.next() else { continue };
        if carry(shared, errand, &mut heard, events).is_err() {
            return;
        }
    }
}

fn carry(
    shared: &Shared,
    errand: Errand,
    heard: &mut Option<Key>,
    events: &Sender<Event>,
) -> Result<(), SendError<Event>> {
    match errand {
        Errand::Ask { key, id } => {
            let answer = shared.backend.job(&id, &asker(shared, &key));
            events.send(Event::Asked { key, answer })
        }
        Errand::Send { key, first } => {
            let first = first.filter(|_| heard.as_ref() != Some(&key));
            send(shared, key, first.as_deref(), events)
        }
        Errand::Progress { key, id, report } => {
            let acknowledged = tell_progress(shared, &id, &report);
            if acknowledged {
                *heard = Some(key.clone());
            }
            events.send(Event::ProgressSent { key, acknowledged })
        }
        // It is nothing to be carried.
        Errand::DropProgress { .. } => Ok(()),
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

    fn next(&mut self) -> Option<Errand> {
        self.errands.pop_front().or_else(|| {
            let (key, id, report) = self.progress.pop_front()?;
            Some(Errand::Progress { key, id, report })
        })
    }

    fn put(&mut self, errand: Errand) {
        match errand {
            Errand::Progress { key, id, report } => self.put_progress(key, id, report),
            Errand::DropProgress { key } => self.progress.retain(|(of, ..)| *of != key),
            Errand::Ask { .. } | Errand::Send { .. } => self.errands.push_back(errand),
        }
    }

    /// The newest takes the place of the older, so that where each call takes long no job's reports
    /// keep those of another waiting for ever.
    fn put_progress(&mut self, key: Key, id: JobId, mut report: Box<Report>) {
        let Some((.., waiting)) = self.progress.iter_mut().find(|(of, ..)| *of == key) else {
            return self.progress.push_back((key, id, report));
        };
        let mut lines = mem::take(&mut waiting.lines);
        lines.append(&mut report.lines);
        LogLine::keep_newest(&mut lines);
        report.lines = lines;
        *waiting = report;
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
) -> Result<(), SendError<Event>> {
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
    let outcome = shared.outward.outcome(outcome);
    let answer = shared.backend.complete(worker, &record.attempt, &record.kind, &outcome);
    crash::point("answered");
    events.send(Event::Sent { key, answer })
}

/// Progress that fails is no error of the job's: the newest is sent next time.
fn tell_progress(shared: &Shared, id: &JobId, report: &Report) -> bool {
    match shared.backend.progress(id, &shared.outward.report(report)) {
        Ok(()) => true,
        Err(error) => {
            log::debug!("progress not sent job={id}: {error}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn id(name: &str) -> JobId {
        JobId::parse(name).unwrap()
    }

    fn key(name: &str) -> Key {
        Key::of("http://a:80", &id(name))
    }

    fn progress(name: &str, percent: u8) -> Errand {
        let line = LogLine { from_stderr: false, text: format!("{percent} %"), at: UNIX_EPOCH };
        let report = Report {
            percent,
            operation: String::new(),
            lines: vec![line],
            worked: Duration::ZERO,
            reading: None,
            energy_kwh: None,
            at: UNIX_EPOCH,
        };
        Errand::Progress { key: key(name), id: id(name), report: Box::new(report) }
    }

    fn bag(errands: impl IntoIterator<Item = Errand>) -> Bag {
        let (give, orders) = mpsc::channel();
        errands.into_iter().for_each(|errand| give.send(errand).unwrap());
        let mut bag = Bag::default();
        assert!(bag.fill(&orders));
        bag
    }

    #[test]
    fn the_newest_progress_of_a_job_wins_and_takes_the_lines_of_the_older_along() {
        let mut bag = bag([progress("a", 1), progress("b", 5), progress("a", 2), progress("a", 3)]);
        assert_eq!(bag.progress.len(), 2, "one of each job");
        let (_, _, report) = bag.progress.pop_front().unwrap();
        let lines: Vec<&str> = report.lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!((report.percent, &lines[..]), (3, &["1 %", "2 %", "3 %"][..]));
    }

    #[test]
    fn what_waits_of_a_job_that_has_ended_is_dropped() {
        let ended = Errand::DropProgress { key: key("a") };
        let bag = bag([progress("a", 1), progress("b", 5), ended]);
        assert_eq!(bag.progress.into_iter().map(|(key, ..)| key).collect::<Vec<_>>(), [key("b")]);
    }

    #[test]
    fn each_job_has_its_turn_however_often_another_reports() {
        let mut bag = bag(["a", "b", "c"].map(|name| progress(name, 1)));
        let mut carried = vec![];
        for percent in 2..8 {
            let Some(Errand::Progress { id, .. }) = bag.next() else { panic!("nothing waits") };
            // While it was carried, each of them got on.
            ["a", "b", "c"].into_iter().for_each(|name| bag.put(progress(name, percent)));
            carried.push(id.as_str().to_owned());
        }
        assert_eq!(carried, ["a", "b", "c", "a", "b", "c"]);
    }

    #[test]
    fn progress_that_came_first_is_carried_after_questions_and_completions() {
        let send = Errand::Send { key: key("b"), first: None };
        let ask = Errand::Ask { key: key("c"), id: id("c") };
        let mut bag = bag([progress("a", 1), send, ask]);
        let carried = std::iter::from_fn(|| bag.next()).map(|errand| match errand {
            Errand::Progress { .. } => "progress",
            Errand::Send { .. } => "send",
            Errand::Ask { .. } => "ask",
            Errand::DropProgress { .. } => "drop",
        });
        assert_eq!(carried.collect::<Vec<_>>(), ["send", "ask", "progress"]);
    }
}
