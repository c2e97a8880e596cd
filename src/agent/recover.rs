//! What an earlier run of the agent left behind.

use std::time::Duration;

use serde_json::value::RawValue;

use super::core::{Left, LeftHow};
use super::{Error, Shared};
use crate::clock;
use crate::job::{self, Offer};
use crate::process;
use crate::runner;
use crate::store::{self, Phase, Record};
use crate::work::{Blame, Key, Verdict};

/// Reads the records. A job that was running is over: its program ended with the agent, or is ended
/// now, and it counts as lost.
pub(super) fn recover(shared: &Shared) -> Result<Vec<Left>, Error> {
    let origin = &shared.config.connection.backend.origin;
    let found = shared.store.recover(origin, clock::wall())?;
    for line in &found.damage {
        log::error!("{line}");
    }
    let records = found.records.into_iter();
    let left: Vec<Left> =
        records.map(|(key, record)| look(shared, key, record)).collect::<Result<_, Error>>()?;
    let is_open = |left: &&Left| !matches!(left.how, LeftHow::Delivered(_) | LeftHow::Tombstone);
    let open = left.iter().filter(is_open).count();
    if open > 0 {
        log::info!("jobs of an earlier run not delivered yet: {open}");
    }
    Ok(left)
}

fn look(shared: &Shared, key: Key, record: Record) -> Result<Left, Error> {
    let attempt = record.attempt.clone();
    let how = match &record.phase {
        Phase::Taken => match offer(shared, &record) {
            Some(offer) => LeftHow::Taken(Box::new(offer)),
            None => lose(shared, &key, record, "the offer it was taken from cannot be read")?,
        },
        Phase::Running(handle) => {
            process::kill_orphan(handle, &runner::mark(&shared.store.work_dir(&key)));
            lose(shared, &key, record, "the worker ended while the job ran")?
        }
        Phase::Finished { outcome, waited } => {
            let (waited, progressed) = (*waited, record.progressed);
            LeftHow::Finished { verdict: outcome.verdict(), waited, progressed }
        }
        Phase::Delivered { outcome, .. } => LeftHow::Delivered(outcome.verdict()),
        Phase::Tombstone { .. } => LeftHow::Tombstone,
    };
    Ok(Left { key, attempt, how })
}

fn offer(shared: &Shared, record: &Record) -> Option<Offer> {
    let raw = RawValue::from_string(record.offer.clone()?).ok()?;
    let offer = job::parse(&raw, &shared.config.connection.backend.origin).ok()?;
    offer.job.is_ok().then_some(offer)
}

/// Without its record the job would be run again, so a disk that does not take it ends the start.
fn lose(shared: &Shared, key: &Key, record: Record, why: &str) -> Result<LeftHow, Error> {
    log::warn!("job lost job={}: {why}", record.attempt.id);
    let dir = shared.config.identity.state_dir.clone();
    let failed = |source| store::Error::File { dir, source };
    shared.store.lose(key, record, why, clock::wall()).map_err(failed)?;
    let verdict = Verdict::Failed(Blame::Worker);
    Ok(LeftHow::Finished { verdict, waited: Duration::ZERO, progressed: false })
}
