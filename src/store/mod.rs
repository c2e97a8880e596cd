//! What survives a crash: the lock, the worker's id, the job records, the ledger and
//! the measured speed.
//!
//! The rule of the house is "record, then effect": a transition is on disk, synced, before anything
//! outside can see it. Each record has one writer at a time (the job's thread until its outcome is
//! recorded, then the loop), so there are no locks here but the one on the whole directory.

mod file;
mod ledger;
mod lock;
mod record;
mod speed;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub(crate) use file::{FileError, replace};
pub(crate) use record::{Phase, ReadError, Record};
pub(crate) use speed::{read_speed, write_speed};

use crate::work::{Booking, JobId, Key, Outcome};

/// How long a delivered record is kept, in case its job is offered again.
const KEEP_DELIVERED: Duration = Duration::from_secs(30 * 86_400);

/// How many delivered records are kept at most, oldest dropped first: a backend may offer junk at
/// every beat.
const KEEP_RECORDS: usize = 10_000;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "state directory {dir} is in use by another agent{by}: stop that one, or give this one its own --state-dir"
    )]
    InUse { dir: PathBuf, by: String },
    #[error(
        "{path} was written by a newer version of this program (format {format}): update, or give another --state-dir"
    )]
    Newer { path: PathBuf, format: u64 },
    #[error("state directory {dir} cannot be used")]
    File {
        dir: PathBuf,
        #[source]
        source: FileError,
    },
}

/// The state directory, held for life.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    _lock: lock::Lock,
}

/// What a look through the records found.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) records: Vec<(Key, Record)>,
    /// What had to be moved aside, a line each.
    pub(crate) quarantined: Vec<String>,
}

impl Store {
    /// Opens the directory, making it where it is missing, and takes its lock.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File { dir: dir.to_owned(), source };
        make_dir(dir).map_err(failed)?;
        make_dir(&dir.join("jobs")).map_err(failed)?;
        let lock = lock::take(dir)?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// The worker's id, made by `make` the first time and kept from then on.
    pub(crate) fn worker_id(&self, make: impl FnOnce() -> String) -> Result<String, Error> {
        let path = self.dir.join("worker-id");
        let failed = |source| Error::File { dir: self.dir.clone(), source };
        if let Some(id) = read_worker_id(&self.dir).map_err(failed)? {
            return Ok(id);
        }
        let id = make();
        replace(&path, id.as_bytes()).map_err(failed)?;
        Ok(id)
    }

    /// Reads every record of jobs from `origin`; another backend's are left alone.
    pub(crate) fn recover(&self, origin: &str, now: SystemTime) -> Result<Recovered, Error> {
        let jobs = self.dir.join("jobs");
        let failed = |source| Error::File { dir: self.dir.clone(), source };
        let mut found = Recovered::default();
        let mut delivered = BTreeMap::new();
        for entry in
            fs::read_dir(&jobs).map_err(|error| failed(FileError::new("list", &jobs, error)))?
        {
            let entry = entry.map_err(|error| failed(FileError::new("list", &jobs, error)))?;
            let Some(key) = entry.file_name().to_str().and_then(Key::from_folder) else { continue };
            match record::read(&self.record_path(&key)) {
                Ok(record) if record.phase.is_delivered() => {
                    delivered
                        .insert((record.delivered_at(), key.as_str().to_owned()), (key, record));
                }
                Ok(record) => found.records.push((key, record)),
                // Only the folder was made: the job was never taken.
                Err(ReadError::Absent) => self.forget(&key),
                Err(ReadError::Newer { format }) => {
                    return Err(Error::Newer { path: self.record_path(&key), format });
                }
                Err(ReadError::Io(error)) => {
                    return Err(failed(FileError::new("read", &self.record_path(&key), error)));
                }
                Err(ReadError::Damaged(why)) => found.quarantined.push(self.quarantine(&key, &why)),
            }
        }
        let surplus = delivered.len().saturating_sub(KEEP_RECORDS);
        for (index, ((at, _), (key, record))) in delivered.into_iter().enumerate() {
            let aged = now.duration_since(at).is_ok_and(|age| age > KEEP_DELIVERED);
            if aged || index < surplus {
                self.forget(&key);
            } else {
                found.records.push((key, record));
            }
        }
        found.records.retain(|(_, record)| record.origin == origin);
        Ok(found)
    }

    /// Puts a job's record in place of the one before it, synced.
    pub(crate) fn write(&self, key: &Key, record: &Record) -> Result<(), FileError> {
        make_dir(&self.job_dir(key))?;
        record::write(&self.record_path(key), record)
    }

    pub(crate) fn read(&self, key: &Key) -> Result<Record, ReadError> {
        record::read(&self.record_path(key))
    }

    /// The outcome that waits for delivery, or was delivered.
    pub(crate) fn outcome(&self, key: &Key) -> Result<(Record, Outcome), ReadError> {
        let record = self.read(key)?;
        match &record.phase {
            Phase::Finished { outcome, .. } | Phase::Delivered { outcome, .. } => {
                let outcome = outcome.clone();
                Ok((record, outcome))
            }
            Phase::Taken | Phase::Running(_) => {
                Err(ReadError::Damaged("the job has no outcome yet".into()))
            }
        }
    }

    /// Says which file could not be read.
    pub(crate) fn unreadable(&self, key: &Key, error: &ReadError) -> String {
        format!("cannot read {}: {error}", self.record_path(key).display())
    }

    /// Keeps count of how long an outcome has been waiting, across restarts.
    pub(crate) fn note_wait(&self, key: &Key, waited: Duration) -> Result<(), String> {
        let (mut record, outcome) =
            self.outcome(key).map_err(|error| self.unreadable(key, &error))?;
        record.phase = Phase::Finished { outcome, waited };
        self.write(key, &record).map_err(|error| error.to_string())
    }

    /// Books how a delivery ended: the ledger line, then the record, then the work folder goes.
    pub(crate) fn book(&self, key: &Key, booking: &Booking, now: SystemTime) -> Result<(), String> {
        let (mut record, outcome) =
            self.outcome(key).map_err(|error| self.unreadable(key, &error))?;
        let resent = matches!(record.phase, Phase::Delivered { .. });
        if !resent {
            ledger::append(&self.dir.join("ledger.jsonl"), &record, &outcome, booking, now)
                .map_err(|error| error.to_string())?;
        }
        record.phase = Phase::Delivered { outcome, at: now };
        self.write(key, &record).map_err(|error| error.to_string())?;
        self.remove_work(key);
        Ok(())
    }

    /// Where the job works: `in`, `out` below it.
    pub(crate) fn work_dir(&self, key: &Key) -> PathBuf {
        self.job_dir(key).join("work")
    }

    /// Makes the job's folders anew, empty.
    pub(crate) fn make_work(&self, key: &Key) -> Result<PathBuf, FileError> {
        self.remove_work(key);
        let work = self.work_dir(key);
        for dir in [work.clone(), work.join("in"), work.join("out")] {
            make_dir(&dir)?;
        }
        Ok(work)
    }

    /// Drops a job's record and folder, as if it had never been.
    pub(crate) fn forget(&self, key: &Key) {
        remove_tree(&self.job_dir(key));
    }

    fn remove_work(&self, key: &Key) {
        remove_tree(&self.work_dir(key));
    }

    fn quarantine(&self, key: &Key, why: &str) -> String {
        let (from, to) = (self.record_path(key), self.dir.join("quarantine"));
        let moved = make_dir(&to)
            .and_then(|()| file::rename(&from, &to.join(format!("{}.json", key.as_str()))));
        match moved {
            Ok(()) => {
                format!("{} is damaged ({why}) and was moved to {}", from.display(), to.display())
            }
            Err(error) => format!("{} is damaged ({why}): {error}", from.display()),
        }
    }

    fn job_dir(&self, key: &Key) -> PathBuf {
        self.dir.join("jobs").join(key.as_str())
    }

    fn record_path(&self, key: &Key) -> PathBuf {
        self.job_dir(key).join("record.json")
    }
}

/// The id kept in a state directory, if one was. Needs no lock.
pub(crate) fn read_worker_id(dir: &Path) -> Result<Option<String>, FileError> {
    let path = dir.join("worker-id");
    match fs::read_to_string(&path) {
        Ok(id) => match JobId::parse(id.trim()) {
            Some(id) => Ok(Some(id.as_str().to_owned())),
            None => {
                let problem = io::Error::new(io::ErrorKind::InvalidData, "it holds no worker id");
                Err(FileError::new("use", &path, problem))
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::new("read", &path, error)),
    }
}

fn make_dir(dir: &Path) -> Result<(), FileError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| FileError::new("make the folder", dir, error))
}

fn remove_tree(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => log::warn!("cannot remove {}: {error}", dir.display()),
    }
}

#[cfg(test)]
mod tests;
