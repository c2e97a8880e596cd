//! What a look from outside finds in a state directory, without its lock: the agent may be at work in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::FileError;
use super::record::{self, Record};
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
