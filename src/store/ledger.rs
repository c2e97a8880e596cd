//! `ledger.jsonl`: one line for each attempt that came to its end at the backend.
//!
//! A line is synced before the attempt's record says `delivered`. If the agent ends between the two,
//! the next start finds the line by origin, job, attempt and the time that the outcome was recorded at,
//! and does not write it again. The time is part of it because numbers begin anew for a job whose
//! record was dropped.
//!
//! A full ledger becomes `ledger.1.jsonl`, in place of the one before it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{FileError, Record, file, named_artefacts, quarantine};
use crate::work::{Booking, Ending, JobId, Key, Object, Outcome};
use crate::{clock, crash, text};

/// A ledger is not longer than this, and there are two of them.
const MAX_BYTES: u64 = 16 << 20;

/// What is longer is none.
const READ_MAX: u64 = 2 * MAX_BYTES;

/// The status of an attempt that is paid for.
pub(super) const COMPLETED: &str = "completed";

/// When the outcome of each of some attempts was recorded, of those that the ledger knows.
pub(super) type Booked = BTreeMap<(Key, u32), String>;

/// The ledger of a state directory.
pub(super) struct Ledger<'a> {
    pub(super) dir: &'a Path,
}

impl Ledger<'_> {
    /// Appends a line and syncs it.
    pub(super) fn append(&self, line: &str) -> Result<(), FileError> {
        let path = self.path();
        let line = format!("{line}\n");
        self.make_room(line.len() as u64)?;
        append(&path, line.as_bytes())
            .and_then(|()| file::sync_dir(self.dir))
            .map_err(|error| FileError::new("append to", &path, error))
    }

    /// Cuts off what is no whole line at the end, as a crash may leave it, and keeps it aside; on a full
    /// disk it stays. Says so.
    pub(super) fn mend(&self) -> Result<Option<String>, FileError> {
        let path = self.path();
        let text = read(&path)?;
        let whole = whole_lines(&text);
        if whole == text.len() {
            return Ok(None);
        }
        let torn = &text[whole..];
        let name = format!("ledger-{}.jsonl", &text::hex(&Sha256::digest(torn))[..16]);
        let kept = quarantine::keep(&self.dir.join("quarantine"), &name, torn).and_then(|kept| {
            cut(&path, whole as u64).map_err(|error| FileError::new("cut", &path, error))?;
            Ok(kept)
        });
        let what = match kept {
            Ok(kept) => format!("were moved to {}", kept.display()),
            // The next line begins after them.
            Err(error) => format!("stay there: {error}"),
        };
        let (path, bytes) = (path.display(), torn.len());
        Ok(Some(format!("{path} was damaged: its last {bytes} bytes {what}")))
    }

    /// Looks up the attempts at these jobs.
    pub(super) fn booked(&self, jobs: &BTreeSet<Key>) -> Result<Booked, FileError> {
        let mut booked = Booked::new();
        if jobs.is_empty() {
            return Ok(booked);
        }
        self.each(|line: Line| {
            let Some(id) = JobId::parse(&line.id) else { return };
            let key = Key::of(&line.origin, &id);
            if jobs.contains(&key) {
                booked.insert((key, line.attempt), line.ended);
            }
        })?;
        Ok(booked)
    }

    /// Looks at every line that reads back, the oldest first: one that was damaged since is no witness.
    pub(super) fn each<T: DeserializeOwned>(
        &self,
        mut see: impl FnMut(T),
    ) -> Result<(), FileError> {
        for path in [self.older(), self.path()] {
            each_line(&path, |line| serde_json::from_slice(line).into_iter().for_each(&mut see))?;
        }
        Ok(())
    }

    fn make_room(&self, bytes: u64) -> Result<(), FileError> {
        let path = self.path();
        match fs::symlink_metadata(&path) {
            Ok(data) if data.len() + bytes > MAX_BYTES => file::rename(&path, &self.older()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(FileError::new("look at", &path, error)),
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.join("ledger.jsonl")
    }

    fn older(&self) -> PathBuf {
        self.dir.join("ledger.1.jsonl")
    }
}

/// What is looked for in a line.
#[derive(Deserialize)]
struct Line {
    origin: String,
    id: String,
    attempt: u32,
    ended: String,
}

/// The line about an attempt. `price` is what an hour costs now, for a record that does not tell what it
/// cost when the job was taken. What [`super::earnings()`] reads of the line is there a struct.
pub(super) fn line(
    record: &Record,
    outcome: &Outcome,
    booking: &Booking,
    price: f64,
    now: SystemTime,
) -> String {
    let status = status(outcome, booking);
    let price = record.price.unwrap_or(price);
    let seconds = outcome.metrics.get("processingTimeSeconds");
    let cids = match &outcome.ending {
        Ending::Completed(result) => named_artefacts(result),
        Ending::Failed(_) | Ending::Declined(_) | Ending::Cancelled => vec![],
    };
    let line = json!({
        "id": record.attempt.id.as_str(),
        "attempt": record.attempt.number,
        "kind": record.kind,
        "status": status,
        "reason": reason(outcome, booking),
        "seconds": seconds,
        "kwh": outcome.metrics.get("energyKwh"),
        "price": price,
        "amount": amount(status, seconds.and_then(Value::as_f64), price),
        "gpus": outcome.gpus,
        "cids": cids.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "origin": record.origin,
        "ended": ended(outcome),
        "booked": clock::rfc3339(now),
    });
    line.to_string()
}

/// Whether the outcome of this attempt is among those that the ledger knows.
pub(super) fn has_line(known: &Booked, key: &Key, record: &Record, outcome: &Outcome) -> bool {
    known.get(&(key.clone(), record.attempt.number)) == Some(&ended(outcome))
}

/// The outcome's time as a line has it.
fn ended(outcome: &Outcome) -> String {
    clock::rfc3339(outcome.at)
}

/// What an attempt earns: the time of one that was delivered as completed, to the millionth.
pub(super) fn amount(status: &str, seconds: Option<f64>, price: f64) -> f64 {
    if status != COMPLETED {
        return 0.0;
    }
    (price * seconds.unwrap_or(0.0) / 3600.0 * 1e6).round() / 1e6
}

/// Why it came to no result.
fn reason<'a>(outcome: &'a Outcome, booking: &'a Booking) -> Option<&'a str> {
    match (booking, &outcome.ending) {
        (Booking::Rejected(reason), _) => Some(reason),
        (_, Ending::Failed(failure)) => Some(&failure.error),
        (_, Ending::Declined(decline)) => Some(&decline.reason),
        (_, Ending::Completed(_) | Ending::Cancelled) => None,
    }
}

fn status(outcome: &Outcome, booking: &Booking) -> &'static str {
    match (booking, &outcome.ending) {
        (Booking::Rejected(_), _) => "rejected",
        (Booking::Undelivered, _) => "undelivered",
        (Booking::Cancelled, _) | (Booking::Delivered, Ending::Cancelled) => "cancelled",
        (Booking::Delivered, Ending::Completed(_)) => COMPLETED,
        (Booking::Delivered, Ending::Failed(_)) => "failed",
        (Booking::Delivered, Ending::Declined(_)) => "declined",
    }
}

fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    let mut file = file::open_to_write(path)?;
    let before = file.seek(SeekFrom::End(0))?;
    let feed: &[u8] = if ends_whole(&file, before)? { b"" } else { b"\n" };
    let written = file.write_all(&[feed, line].concat()).and_then(|()| {
        crash::point("line-written");
        file.sync_data()
    });
    if written.is_err() {
        // Half a line would spoil the next one too. If this fails as well, the next start mends it.
        file.set_len(before).ok();
    }
    written
}

/// Half a line stays where it is when the disk has no room to keep it aside.
fn ends_whole(file: &File, length: u64) -> io::Result<bool> {
    let Some(last) = length.checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte == *b"\n")
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    match file::read_up_to(path, READ_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        read => read.map_err(|error| FileError::new("read", path, error)),
    }
}

/// One after the other, so that no more than one of them is in memory.
fn each_line(path: &Path, mut see: impl FnMut(&[u8])) -> Result<(), FileError> {
    let failed = |error| FileError::new("read", path, error);
    let file = match file::open_to_look(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(failed)?,
    };
    file::is_at_most(&file, READ_MAX).map_err(failed)?;
    for line in BufReader::new(file).split(b'\n') {
        see(&line.map_err(failed)?);
    }
    Ok(())
}

fn cut(path: &Path, length: u64) -> io::Result<()> {
    let file = file::open_to_write(path)?;
    file.set_len(length)?;
    file.sync_all()
}

/// Where the last whole line ends.
fn whole_lines(text: &[u8]) -> usize {
    let mut end = line_start(text);
    while end > 0 {
        let start = line_start(&text[..end - 1]);
        if serde_json::from_slice::<Object>(&text[start..end]).is_ok() {
            break;
        }
        end = start;
    }
    end
}

/// Where the last line begins, which is the end if that follows a line feed.
fn line_start(text: &[u8]) -> usize {
    text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}
