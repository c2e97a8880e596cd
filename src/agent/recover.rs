//! What an earlier run of the agent left behind.

use std::convert::Infallible;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use super::assignment::RECORD_AGAIN;
use super::core::{Left, LeftHow};
use super::event::Event;
use super::{Error, Shared, assignment};
use crate::backend::wire::Listed;
use crate::clock;
use crate::job::{self, Offer};
use crate::process;
use crate::runner;
use crate::store::{Loss, Phase, Record};
use crate::work::{Blame, Handle, Key, Verdict};

/// Reads the records. A job that was running is over: its program ended with the agent, or is ended
/// now, and it counts as lost. Also returns the losses that the disk did not take.
pub(super) fn recover(shared: &Shared) -> Result<(Vec<Left>, Vec<Loss>), Error> {
    // Before any record is looked at, which may be damaged: nothing of an earlier run is to go on.
    process::kill_marked(&runner::all_marks(&shared.config().identity.state_dir));
    let config = shared.config();
    let origin = &config.connection.backend.origin;
    let found = shared.store.recover(origin, clock::wall())?;
    for line in &found.damage {
        log::error!("{line}");
    }
    let mut losses = found.losses;
    let contained = |(_, record): &(Key, Record)| match &record.phase {
        Phase::Running(Handle::Container(container)) => Some(container.name.clone()),
        _ => None,
    };
    let running: Vec<String> = found.records.iter().filter_map(contained).collect();
    assignment::sweep(shared, &running);
    let mut left = vec![];
    for (key, record) in found.records {
        left.extend(look(shared, key, record, &mut losses));
    }
    for Loss { key, record, .. } in &losses {
        let (key, attempt) = (key.clone(), record.attempt.clone());
        left.push(Left { key, attempt, how: LeftHow::Unrecorded });
    }
    let is_open = |left: &&Left| !matches!(left.how, LeftHow::Delivered(_) | LeftHow::Tombstone);
    let open = left.iter().filter(is_open).count();
    if open > 0 {
        log::info!("jobs of an earlier run not delivered yet: {open}");
    }
    Ok((left, losses))
}

fn look(shared: &Shared, key: Key, record: Record, losses: &mut Vec<Loss>) -> Option<Left> {
    let attempt = record.attempt.clone();
    let mut lose = |record: Record, why| {
        log::warn!("job lost job={}: {why}", record.attempt.id);
        let loss = Loss { key: key.clone(), record, why };
        if let Err(error) = shared.store.lose(&loss, clock::wall()) {
            log::error!("{error}; the loss of job={} is recorded later", loss.record.attempt.id);
            losses.push(loss);
            return None;
        }
        let verdict = Verdict::Failed(Blame::Worker);
        Some(LeftHow::Finished { verdict, waited: Duration::ZERO, progressed: false })
    };
    let how = match &record.phase {
        Phase::Taken => match offer(shared, &record) {
            Some(offer) => LeftHow::Taken(Box::new(offer)),
            None => lose(record, "the offer it was taken from cannot be read")?,
        },
        Phase::Running(Handle::Process(handle)) => {
            process::kill_orphan(handle);
            lose(record, "the worker ended while the job ran")?
        }
        Phase::Running(Handle::Container(handle)) => match offer(shared, &record) {
            Some(offer) => {
                // Before any other job may get them.
                shared.allotments.reserve(&handle.gpus);
                LeftHow::Running(Box::new(offer))
            }
            // Such as one of a kind that is not allowed any more.
            None => {
                assignment::remove_left(shared, handle);
                lose(record, "the offer it was taken from cannot be read")?
            }
        },
        Phase::Finished { outcome, waited } => {
            let (waited, progressed) = (*waited, record.progressed);
            LeftHow::Finished { verdict: outcome.verdict(), waited, progressed }
        }
        Phase::Delivered { outcome, .. } => LeftHow::Delivered(outcome.verdict()),
        Phase::Tombstone { .. } => LeftHow::Tombstone,
    };
    Some(Left { key, attempt, how })
}

fn offer(shared: &Shared, record: &Record) -> Option<Offer> {
    let text = Some(record.offer.clone()?);
    let offer = job::parse(Listed { id: record.attempt.id.clone(), text }, &shared.terms);
    offer.job.is_ok().then_some(offer)
}

/// Records losses that the disk did not take at the start, as soon as it does: without its record
/// nothing may be told, and the job is not to be run again meanwhile. Ends with the loop.
pub(super) fn record_losses(
    shared: &Shared,
    mut losses: Vec<Loss>,
    until: &Receiver<Infallible>,
    events: &Sender<Event>,
) {
    while !losses.is_empty() && until.recv_timeout(RECORD_AGAIN) == Err(RecvTimeoutError::Timeout) {
        losses.retain(|loss| {
            if shared.store.lose(loss, clock::wall()).is_err() {
                return true;
            }
            // Without a loop the agent is ending, and the next one finds the record.
            events.send(Event::Lost { key: loss.key.clone() }).ok();
            false
        });
    }
}
