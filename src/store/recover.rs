//! What an earlier run of the agent left on disk, put in order.
//!
//! Whatever is done here is done again, to the same end, if the agent ends in the middle of it.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime};

use super::file::FileError;
use super::record::{self, Phase, ReadError, Record};
use super::{Error, Store, ledger, quarantine};
use crate::work::Key;

/// How long a delivered record is kept, in case its job is offered again.
const KEEP_DELIVERED: Duration = Duration::from_secs(30 * 86_400);

/// How many delivered records are kept at most, oldest dropped first: a backend may offer junk at
/// every beat.
const KEEP_RECORDS: usize = 10_000;

/// What a look through the records found.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) records: Vec<(Key, Record)>,
    /// What did not read back, a line each.
    pub(crate) damage: Vec<String>,
}

impl Store {
    /// Mends what a crash left half done. Returns the records of jobs from `origin`; another backend's
    /// are kept.
    pub(crate) fn recover(&self, origin: &str, now: SystemTime) -> Result<Recovered, Error> {
        let failed = |source| Error::File { dir: self.dir.clone(), source };
        let mut found = self.read_all()?;
        found.damage.extend(self.ledger().mend().map_err(failed)?);
        self.end_bookings(&mut found.records, now).map_err(failed)?;
        found.records = self.drop_old(found.records, now);
        found.records.retain(|(_, record)| record.origin == origin);
        Ok(found)
    }

    fn read_all(&self) -> Result<Recovered, Error> {
        let jobs = self.dir.join("jobs");
        let failed = |source| Error::File { dir: self.dir.clone(), source };
        let listing = |error| failed(FileError::new("list", &jobs, error));
        let mut found = Recovered::default();
        for entry in fs::read_dir(&jobs).map_err(listing)? {
            let name = entry.map_err(listing)?.file_name();
            let Some(key) = name.to_str().and_then(Key::from_folder) else { continue };
            let path = self.record_path(&key);
            match record::read(&path) {
                Ok(record) => found.records.push((key, record)),
                // Only the folder was made: the job was never taken.
                Err(ReadError::Absent) => self.forget(&key),
                Err(ReadError::Newer { format }) => return Err(Error::Newer { path, format }),
                Err(ReadError::Io(error)) => {
                    return Err(failed(FileError::new("read", &path, error)));
                }
                Err(ReadError::Damaged(why)) => {
                    found.damage.push(self.quarantine(&key, &why).map_err(failed)?);
                }
            }
        }
        Ok(found)
    }

    /// A delivery whose line was written, but whose record was not, is over all the same.
    fn end_bookings(
        &self,
        records: &mut [(Key, Record)],
        now: SystemTime,
    ) -> Result<(), FileError> {
        let open = records.iter().filter(|(_, record)| !record.phase.is_delivered());
        let open: BTreeSet<Key> = open.map(|(key, _)| key.clone()).collect();
        let booked = self.ledger().booked(&open)?;
        for (key, record) in records {
            if let Phase::Finished { outcome, .. } = &record.phase
                && booked.get(&(key.clone(), record.attempt.number))
                    == Some(&ledger::ended(outcome))
            {
                record.phase = Phase::Delivered { outcome: outcome.clone(), at: now };
                self.write(key, record)?;
            }
            if record.phase.is_delivered() {
                self.remove_work(key);
            }
        }
        Ok(())
    }

    fn drop_old(&self, mut records: Vec<(Key, Record)>, now: SystemTime) -> Vec<(Key, Record)> {
        records.sort_by_key(|(_, record)| record.delivered_at());
        let delivered = records.iter().filter(|(_, record)| record.phase.is_delivered()).count();
        let mut surplus = delivered.saturating_sub(KEEP_RECORDS);
        records.retain(|(key, record)| {
            if !record.phase.is_delivered() {
                return true;
            }
            let aged =
                now.duration_since(record.delivered_at()).is_ok_and(|age| age > KEEP_DELIVERED);
            let drop = aged || surplus > 0;
            surplus = surplus.saturating_sub(1);
            if drop {
                self.forget(key);
            }
            !drop
        });
        records
    }

    /// Keeps a record that does not read back aside.
    fn quarantine(&self, key: &Key, why: &str) -> Result<String, FileError> {
        let path = self.record_path(key);
        let content = fs::read(&path).map_err(|error| FileError::new("read", &path, error))?;
        let name = format!("{}.json", key.as_str());
        let kept = quarantine::keep(&self.dir.join("quarantine"), &name, &content)?;
        self.forget(key);
        Ok(format!("{} is damaged ({why}) and was moved to {}", path.display(), kept.display()))
    }
}
