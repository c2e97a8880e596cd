//! What an earlier run of the agent left on disk, put in order.
//!
//! Whatever is done here is done again, to the same end, if the agent ends in the middle of it.
//!
//! A record that does not read back does not make its job unknown: beside it stands `id.json`, the record as it first
//! was. What the ledger has a line for was delivered; anything else counts as lost, so that the backend
//! is asked about it and it is not run as if it were new.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime};

use super::file::{self, FileError};
use super::ledger::{self, Booked};
use super::record::{self, Phase, ReadError, Record};
use super::{Error, Store, quarantine};
use crate::work::{Key, REMEMBERED_MAX};

/// How long a delivered outcome is kept, in case its job is offered again.
const KEEP_DELIVERED: Duration = Duration::from_secs(30 * 86_400);

/// What a look through the records found.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) records: Vec<(Key, Record)>,
    /// What did not read back, a line each.
    pub(crate) damage: Vec<String>,
    /// Losses that the disk did not take.
    pub(crate) losses: Vec<Loss>,
}

/// A job that counts as lost, which has yet to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Loss {
    pub(crate) key: Key,
    pub(crate) record: Record,
    pub(crate) why: &'static str,
}

/// What a look into the folders found.
#[derive(Default)]
struct Found {
    records: Vec<(Key, Record)>,
    /// Jobs whose record did not read back.
    torn: Vec<Torn>,
}

/// A job whose record did not read back.
struct Torn {
    key: Key,
    why: ReadError,
    /// What it is known by, if that can still be read.
    first: Option<Record>,
}

impl Store {
    /// Mends what a crash left half done. Returns the records of jobs from `origin`; another backend's
    /// are kept.
    pub(crate) fn recover(&self, origin: &str, now: SystemTime) -> Result<Recovered, Error> {
        let failed = |source| Error::File { dir: self.dir.clone(), source };
        file::remove_temporaries(&self.dir);
        let mended = self.ledger().mend().map_err(failed)?;
        let Found { mut records, torn } = self.read_all()?;
        let booked = self.look_up(&records, &torn).map_err(failed)?;
        self.end_bookings(&mut records, &booked, now);
        let mut found = Recovered { damage: mended.into_iter().collect(), ..Recovered::default() };
        for torn in torn {
            self.set_aside(torn, &booked, now, &mut found);
        }
        records.append(&mut found.records);
        found.records = self.drop_old(records, now);
        found.records.retain(|(_, record)| record.origin == origin);
        found.losses.retain(|loss| loss.record.origin == origin);
        Ok(found)
    }

    fn read_all(&self) -> Result<Found, Error> {
        let jobs = self.dir.join("jobs");
        let failed = |source| Error::File { dir: self.dir.clone(), source };
        let listing = |error| failed(FileError::new("list", &jobs, error));
        let mut found = Found::default();
        for entry in fs::read_dir(&jobs).map_err(listing)? {
            let name = entry.map_err(listing)?.file_name();
            let Some(key) = name.to_str().and_then(Key::from_folder) else { continue };
            file::remove_temporaries(&self.job_dir(&key));
            let path = self.record_path(&key);
            match record::read(&path) {
                Ok(record) => found.records.push((key, record)),
                // Only the folder was made: the job was never taken.
                Err(ReadError::Absent) => self.forget(&key),
                Err(ReadError::Newer { format }) => return Err(Error::Newer { path, format }),
                Err(why @ (ReadError::Io(_) | ReadError::Damaged(_))) => {
                    let first = record::read(&self.id_path(&key)).ok();
                    found.torn.push(Torn { key, why, first });
                }
            }
        }
        Ok(found)
    }

    /// What the ledger knows of the jobs whose records do not say that they are over.
    fn look_up(&self, records: &[(Key, Record)], torn: &[Torn]) -> Result<Booked, FileError> {
        let open = records.iter().filter(|(_, record)| !record.phase.is_over());
        let open = open.map(|(key, _)| key).chain(torn.iter().map(|torn| &torn.key));
        self.ledger().booked(&open.cloned().collect::<BTreeSet<Key>>())
    }

    /// A delivery whose line was written, but whose record was not, is over all the same.
    fn end_bookings(&self, records: &mut [(Key, Record)], booked: &Booked, now: SystemTime) {
        for (key, record) in records {
            if let Phase::Finished { outcome, .. } = &record.phase
                && ledger::has_line(booked, key, record, outcome)
            {
                record.phase = Phase::Delivered { outcome: outcome.clone(), at: now };
                // The ledger is witness enough until the disk has room again.
                self.write_or_warn(key, record);
            }
            if record.phase.is_over() {
                self.remove_work(key);
            }
        }
    }

    /// Drops what is too much, and shrinks what is old. Nothing but the number of an old attempt is
    /// still needed, so that the next one has its own.
    fn drop_old(&self, records: Vec<(Key, Record)>, now: SystemTime) -> Vec<(Key, Record)> {
        let (mut over, mut kept): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|(_, record)| record.phase.is_over());
        over.sort_by_key(|(_, record)| record.over_since());
        let surplus = over.len().saturating_sub(REMEMBERED_MAX);
        for (key, _) in over.drain(..surplus) {
            self.forget(&key);
        }
        kept.extend(over.into_iter().map(|(key, record)| self.shrink(key, record, now)));
        kept
    }

    fn shrink(&self, key: Key, record: Record, now: SystemTime) -> (Key, Record) {
        let Phase::Delivered { at, .. } = record.phase else { return (key, record) };
        if now.duration_since(at).is_ok_and(|age| age > KEEP_DELIVERED) {
            let tombstone = Record { offer: None, phase: Phase::Tombstone { at }, ..record };
            self.write_or_warn(&key, &tombstone);
            return (key, tombstone);
        }
        (key, record)
    }

    /// Keeps a record that does not read back aside, and puts what is known in its place. Says so.
    fn set_aside(&self, torn: Torn, booked: &Booked, now: SystemTime, found: &mut Recovered) {
        let Torn { key, why, first } = torn;
        let kept = self.keep_aside(&key, &why);
        let Some(first) = first else {
            found.damage.push(format!("{kept}; whose record it was is not known"));
            // The disk's trouble may pass.
            if matches!(why, ReadError::Damaged(_)) {
                self.forget(&key);
            }
            return;
        };
        let id = first.attempt.id.clone();
        if booked.contains_key(&(key.clone(), first.attempt.number)) {
            found.damage.push(format!("{kept}; job={id} was delivered before"));
            let record = Record { phase: Phase::Tombstone { at: now }, ..first };
            self.write_or_warn(&key, &record);
            found.records.push((key, record));
            return;
        }
        found.damage.push(format!("{kept}; job={id} counts as lost"));
        let loss = Loss { key, record: first, why: "its record was damaged" };
        match self.lose(&loss, now) {
            Ok(record) => found.records.push((loss.key, record)),
            Err(error) => {
                found.damage.push(error.to_string());
                found.losses.push(loss);
            }
        }
    }

    /// Keeps the file, if the disk takes another name, and says what is wrong with it.
    fn keep_aside(&self, key: &Key, why: &ReadError) -> String {
        let path = self.record_path(key);
        let name = format!("{}.json", key.as_str());
        let kept = quarantine::keep_file(&self.dir.join("quarantine"), &name, &path);
        let what = match why {
            ReadError::Damaged(why) => format!("{} is damaged ({why})", path.display()),
            other => format!("{} cannot be read ({other})", path.display()),
        };
        match kept {
            Ok(kept) => format!("{what} and was moved to {}", kept.display()),
            Err(error) => format!("{what} and was not kept aside: {error}"),
        }
    }

    /// Writes what can be found out again at the next start.
    fn write_or_warn(&self, key: &Key, record: &Record) {
        if let Err(error) = self.write(key, record) {
            log::warn!("{error}");
        }
    }
}
