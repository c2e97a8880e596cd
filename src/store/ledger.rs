//! `ledger.jsonl`: one line for each attempt that came to its end at the backend.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::SystemTime;

use serde_json::json;

use super::{FileError, Record};
use crate::clock;
use crate::work::{Booking, Ending, Outcome};

/// Appends the line and syncs it.
pub(super) fn append(
    path: &Path,
    record: &Record,
    outcome: &Outcome,
    booking: &Booking,
    now: SystemTime,
) -> Result<(), FileError> {
    let line = json!({
        "id": record.attempt.id.as_str(),
        "attempt": record.attempt.number,
        "kind": record.kind,
        "status": status(outcome, booking),
        "reason": match booking { Booking::Rejected(reason) => Some(reason), _ => None },
        "seconds": outcome.metrics.get("processingTimeSeconds"),
        "origin": record.origin,
        "ended": clock::rfc3339(outcome.at),
        "booked": clock::rfc3339(now),
    });
    let write = || {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        file.write_all(format!("{line}\n").as_bytes())?;
        file.sync_data()
    };
    write().map_err(|error| FileError::new("append to", path, error))
}

fn status(outcome: &Outcome, booking: &Booking) -> &'static str {
    match (booking, &outcome.ending) {
        (Booking::Rejected(_), _) => "rejected",
        (Booking::Undelivered, _) => "undelivered",
        (Booking::Cancelled, _) | (Booking::Delivered, Ending::Cancelled) => "cancelled",
        (Booking::Delivered, Ending::Completed(_)) => "completed",
        (Booking::Delivered, Ending::Failed(_)) => "failed",
        (Booking::Delivered, Ending::Declined(_)) => "declined",
    }
}
