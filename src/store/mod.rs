//! What survives a crash: the lock, the worker's id, the job records, the ledger, the jobs' logs, the
//! artefacts and the measured speed.
//!
//! The rule of the house is "record, then effect": a transition is on disk, synced, before anything
//! outside can see it. Each record has one writer at a time (the job's thread until its outcome is
//! recorded, then the loop), so there are no locks here but the one on the whole directory.

mod artefacts;
mod claim;
mod earnings;
mod file;
mod history;
mod job_log;
mod ledger;
mod lock;
mod pause;
mod quarantine;
mod record;
mod recover;
mod reserve;
mod reuse;
mod speed;
mod status;
mod trash;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub(crate) use artefacts::named_artefacts;
pub(crate) use earnings::{By, Entry, Sum, each_entry, earnings, ledger_stamp, read_ledger};
pub(crate) use file::{FileError, open_to_look, read_small, replace};
pub(crate) use history::{is_log_open, log_file, open_jobs};
pub(crate) use job_log::JobLog;
pub(crate) use lock::is_held;
pub(crate) use pause::{OwnersPause, PAUSE, read_pause, remove_pause, write_pause};
pub(crate) use record::{Phase, ReadError, Record};
pub(crate) use recover::Loss;
pub(crate) use reuse::Reusable;
pub(crate) use speed::{read_speed, write_speed};
pub(crate) use status::{STATUS, read_status, write_status};
pub(crate) use trash::Trash;

use crate::crash;
use crate::work::{Booking, Ending, Failure, JobId, Key, Outcome, Reason, Stage};
use ledger::Ledger;

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
    #[error("state directory {dir} is not safe to use: {problem}")]
    Unsafe { dir: PathBuf, problem: String },
    #[error("state directory {dir} cannot be used")]
    File {
        dir: PathBuf,
        #[source]
        source: FileError,
    },
}

/// So much of a log's end is read for those who look on.
const LOG_END: u64 = 8 << 10;

/// The state directory, held for life.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    _lock: lock::Lock,
}

impl Store {
    /// Opens the directory, making it where it is missing, and takes its lock.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File { dir: dir.to_owned(), source };
        make_dir(dir).map_err(failed)?;
        claim::claim(dir)?;
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

    /// Puts a job's record in place of the one before it, synced. What it is known by comes first, once
    /// an attempt: whatever becomes of the record, that file is not touched meanwhile.
    pub(crate) fn write(&self, key: &Key, record: &Record) -> Result<(), FileError> {
        make_dir(&self.job_dir(key))?;
        let (first, id_path) = (record.first(), self.id_path(key));
        let write = || {
            if !record::read(&id_path).is_ok_and(|known| known == first) {
                record::write(&id_path, &first)?;
                crash::point("id-written");
            }
            record::write(&self.record_path(key), record)
        };
        match record.phase {
            Phase::Taken | Phase::Running(_) => write(),
            Phase::Finished { .. } | Phase::Delivered { .. } | Phase::Tombstone { .. } => {
                reserve::spend_on(&self.dir, write)
            }
        }
    }

    /// So much is free on the disk: some of it is kept back for outcomes.
    pub(crate) fn keep_reserve(&self, free: u64) {
        reserve::keep(&self.dir, free);
    }

    /// Counts a job as lost by our own fault, which is its outcome from now on.
    pub(crate) fn lose(&self, loss: &Loss, now: SystemTime) -> Result<Record, FileError> {
        let Loss { key, record, why } = loss;
        let failure = Failure::of_worker(Reason::Lost, Stage::Run, format!("lost: {why}"));
        let outcome = Outcome::without_run(Ending::Failed(failure), now);
        let phase = Phase::Finished { outcome, waited: Duration::ZERO };
        let record = Record { offer: None, phase, ..record.clone() };
        self.write(key, &record)?;
        crash::point("loss-recorded");
        Ok(record)
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
            Phase::Taken | Phase::Running(_) | Phase::Tombstone { .. } => {
                Err(ReadError::Damaged("there is no outcome in it".into()))
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

    /// Notes that the backend had heard of the job's progress.
    pub(crate) fn note_progress(&self, key: &Key) -> Result<(), String> {
        let record = self.read(key).map_err(|error| self.unreadable(key, &error))?;
        let record = Record { progressed: true, ..record };
        self.write(key, &record).map_err(|error| error.to_string())
    }

    /// Books how a delivery ended: the ledger line, then the record, then the work folder goes. The
    /// line tells `price` where the record has none.
    pub(crate) fn book(
        &self,
        key: &Key,
        booking: &Booking,
        price: f64,
        now: SystemTime,
    ) -> Result<(), String> {
        let (record, outcome) = self.outcome(key).map_err(|error| self.unreadable(key, &error))?;
        if !record.phase.is_over() {
            let line = ledger::line(&record, &outcome, booking, price, now);
            let append = || self.ledger().append(&line);
            reserve::spend_on(&self.dir, append).map_err(|error| error.to_string())?;
            crash::point("line-synced");
        }
        self.end_booking(key, record, outcome, now)
    }

    /// Books what could not be booked before, of which the lines may be there already. What the disk
    /// still does not take stays in the list.
    pub(crate) fn book_again(
        &self,
        unbooked: &mut BTreeMap<Key, Booking>,
        price: f64,
        now: SystemTime,
    ) {
        // Once for all of them: it takes a while to read a full ledger, and the loop waits.
        let Ok(known) = self.ledger().booked(&unbooked.keys().cloned().collect()) else { return };
        let book = |key: &Key, booking: &Booking| match self.outcome(key) {
            Ok((record, outcome)) if ledger::has_line(&known, key, &record, &outcome) => {
                self.end_booking(key, record, outcome, now)
            }
            Ok(_) | Err(_) => self.book(key, booking, price, now),
        };
        unbooked.retain(|key, booking| book(key, booking).is_err());
    }

    fn end_booking(
        &self,
        key: &Key,
        record: Record,
        outcome: Outcome,
        now: SystemTime,
    ) -> Result<(), String> {
        let phase = Phase::Delivered { outcome, at: now };
        self.write(key, &Record { phase, ..record }).map_err(|error| error.to_string())?;
        crash::point("delivery-recorded");
        self.remove_work(key);
        crash::point("work-removed");
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

    /// Begins the log of a job's program.
    pub(crate) fn job_log(&self, key: &Key, now: SystemTime) -> JobLog {
        JobLog::open(&self.dir.join("logs"), key.as_str(), now)
    }

    /// The last lines that a job's program printed, as far as they have been written.
    pub(crate) fn log_end(&self, key: &str) -> Vec<String> {
        job_log::last_lines(&self.dir.join("logs"), key, LOG_END)
    }

    /// Drops a job's record and folder, as if it had never been.
    pub(crate) fn forget(&self, key: &Key) {
        self.trash().take(&self.job_dir(key));
    }

    fn remove_work(&self, key: &Key) {
        self.trash().take(&self.work_dir(key));
    }

    /// What jobs have left, on its way out.
    pub(crate) fn trash(&self) -> Trash {
        Trash::new(&self.dir)
    }

    fn ledger(&self) -> Ledger<'_> {
        Ledger { dir: &self.dir }
    }

    fn job_dir(&self, key: &Key) -> PathBuf {
        self.dir.join("jobs").join(key.as_str())
    }

    fn id_path(&self, key: &Key) -> PathBuf {
        self.job_dir(key).join("id.json")
    }

    fn record_path(&self, key: &Key) -> PathBuf {
        self.job_dir(key).join("record.json")
    }
}

/// The id kept in a state directory, if one was. Needs no lock.
pub(crate) fn read_worker_id(dir: &Path) -> Result<Option<String>, FileError> {
    let path = dir.join("worker-id");
    match read_small(&path) {
        Ok(id) => match JobId::parse(String::from_utf8_lossy(&id).trim()) {
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

#[cfg(test)]
mod tests;
