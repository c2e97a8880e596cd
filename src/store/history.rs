//! What a look from outside finds in a state directory, without its lock: the agent may be at work in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::record::{self, Phase, Record};
use super::{FileError, is_held};
use crate::work::Key;

/// The records of the jobs that are not over: taken, running, or with an outcome that waits.
pub(crate) fn open_jobs(state_dir: &Path) -> Result<Vec<(Key, Record)>, FileError> {
    let jobs = state_dir.join("jobs");
    let failed = |error| FileError::new("list", &jobs, error);
    let entries = match fs::read_dir(&jobs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.map_err(failed)?,
    };
    let mut found = vec![];
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let Some(key) = entry.file_name().to_str().and_then(Key::from_folder) else { continue };
        // One that is gone by now, or does not read back, is the agent's to see to.
        if let Ok(record) = record::read(&entry.path().join("record.json"))
            && !record.phase.is_over()
        {
            found.push((key, record));
        }
    }
    Ok(found)
}

/// Where a job's log is, if it is still kept.
pub(crate) fn log_file(state_dir: &Path, key: &Key) -> PathBuf {
    state_dir.join("logs").join(format!("{}.log", key.as_str()))
}

/// Whether more may still come to a job's log: an agent is at work on it.
pub(crate) fn is_log_open(state_dir: &Path, key: &Key) -> bool {
    let record = record::read(&state_dir.join("jobs").join(key.as_str()).join("record.json"));
    log_file(state_dir, key).with_extension("tail").exists()
        && record.is_ok_and(|record| matches!(record.phase, Phase::Taken | Phase::Running(_)))
        && is_held(state_dir).unwrap_or(false)
}
