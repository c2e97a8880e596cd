//! The owner's pause, which outlives restarts: a small file that people's commands write and the agent
//! reads.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Gid, Uid, fchown};
use serde::{Deserialize, Serialize};

use super::file::{FileError, TEMPORARY, read_small, sync_dir};
use crate::text;

/// The file's name in the state directory.
pub(crate) const PAUSE: &str = "pause.json";

const FORMAT: u32 = 1;

/// The end of the year 9999, in seconds: no later time can be written.
const LAST: u64 = 253_402_300_799;

/// As long as a pause may be explained.
const REASON_MAX: usize = 100;

/// No new jobs, by the owner's wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnersPause {
    since: SystemTime,
    until: Option<SystemTime>,
    reason: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct OnDisk {
    format: u32,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    reason: Option<String>,
}

impl OwnersPause {
    /// One that is too long to be written has no end.
    pub(crate) fn new(since: SystemTime, until: Option<SystemTime>, reason: Option<&str>) -> Self {
        let last = SystemTime::UNIX_EPOCH + Duration::from_secs(LAST);
        let until = until.filter(|until| *until <= last);
        let reason = reason.map(|reason| text::one_line(reason, REASON_MAX));
        Self { since, until, reason: reason.filter(|reason| !reason.is_empty()) }
    }

    /// How much of it is left; nothing if it has no end of its own. A clock that was set back does not
    /// make it longer than it was meant to be, and less than a second is over.
    pub(crate) fn left(&self, now: SystemTime) -> Option<Duration> {
        let until = self.until?;
        let left = until.duration_since(now).unwrap_or_default();
        let meant = until.duration_since(self.since).unwrap_or_default();
        let left = left.min(meant);
        Some(if left < Duration::from_secs(1) { Duration::ZERO } else { left })
    }

    /// As people and the backend are told it.
    pub(crate) fn words(&self) -> String {
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}"));
        let until = self.until.map(|until| {
            let (date, time) = date_and_time(until);
            if date_and_time(self.since).0 == date {
                format!(", until {time} UTC")
            } else {
                format!(", until {date} {time} UTC")
            }
        });
        format!("paused by its owner{}{}", reason.unwrap_or_default(), until.unwrap_or_default())
    }

    fn on_disk(&self) -> OnDisk {
        let text = |time| humantime::format_rfc3339_seconds(time).to_string();
        let (since, until) = (text(self.since), self.until.map(text));
        OnDisk { format: FORMAT, since, until, reason: self.reason.clone() }
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let found: OnDisk = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if found.format > FORMAT {
            return Err(format!("it is of a newer format, {}", found.format));
        }
        let time =
            |text: &String| humantime::parse_rfc3339(text).map_err(|error| error.to_string());
        let until = found.until.as_ref().map(time).transpose()?;
        Ok(Self::new(time(&found.since)?, until, found.reason.as_deref()))
    }
}

/// Such as `2026-01-15` and `21:30`.
fn date_and_time(time: SystemTime) -> (String, String) {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    let (date, time) = text.split_once('T').unwrap_or((&text, ""));
    (date.to_owned(), time.get(..5).unwrap_or(time).to_owned())
}

/// The pause that is wanted, if one is. Needs no lock.
pub(crate) fn read_pause(dir: &Path) -> Result<Option<OwnersPause>, FileError> {
    let path = dir.join(PAUSE);
    match read_small(&path) {
        Ok(text) => OwnersPause::parse(&text).map(Some).map_err(|problem| {
            FileError::new("use", &path, io::Error::new(io::ErrorKind::InvalidData, problem))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::new("read", &path, error)),
    }
}

/// Replaces the pause. Whoever writes it, the agent that owns the directory can read it.
pub(crate) fn write_pause(dir: &Path, pause: &OwnersPause) -> Result<(), FileError> {
    let path = dir.join(PAUSE);
    let write = || -> io::Result<()> {
        let mut temporary = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(dir)?;
        temporary.write_all(&serde_json::to_vec(&pause.on_disk())?)?;
        temporary.as_file().set_permissions(Permissions::from_mode(0o600))?;
        let (ours, owner) = (temporary.as_file().metadata()?, fs::metadata(dir)?);
        if ours.uid() != owner.uid() {
            let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
            fchown(temporary.as_file(), Some(user), Some(group))?;
        }
        temporary.as_file().sync_all()?;
        temporary.persist(&path)?;
        sync_dir(dir)
    };
    write().map_err(|error| FileError::new("write", &path, error))
}

/// Ends the pause. Returns whether there was one.
pub(crate) fn remove_pause(dir: &Path) -> Result<bool, FileError> {
    let path = dir.join(PAUSE);
    match fs::remove_file(&path) {
        // Or it would be back after a power cut.
        Ok(()) => match sync_dir(dir) {
            Ok(()) => Ok(true),
            Err(error) => Err(FileError::new("sync", dir, error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FileError::new("remove", &path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_pause(dir.path()).unwrap(), None);
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for (until, reason) in [(None, None), (Some(since + Duration::from_secs(60)), Some("why"))]
        {
            let pause = OwnersPause::new(since, until, reason);
            write_pause(dir.path(), &pause).unwrap();
            assert_eq!(read_pause(dir.path()).unwrap(), Some(pause));
        }
        assert!(remove_pause(dir.path()).unwrap());
        assert!(!remove_pause(dir.path()).unwrap());
    }

    #[test]
    fn a_pause_beyond_what_can_be_written_has_no_end() {
        let last = SystemTime::UNIX_EPOCH + Duration::from_secs(LAST);
        let ends = |until| OwnersPause::new(SystemTime::UNIX_EPOCH, Some(until), None).words();
        assert_eq!(ends(last), "paused by its owner, until 9999-12-31 23:59 UTC");
        assert_eq!(ends(last + Duration::from_secs(1)), "paused by its owner");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test plays an owner with an editor")]
    fn what_is_no_pause_is_said_and_not_guessed_at() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "",
            "{}",
            "paused",
            r#"{"format":2,"since":"1970-01-01T00:00:00Z"}"#,
            r#"{"format":1,"since":"yesterday"}"#,
        ] {
            fs::write(dir.path().join(PAUSE), text).unwrap();
            let error = read_pause(dir.path()).unwrap_err().to_string();
            assert!(error.starts_with("cannot use ") && error.contains("pause.json"), "{error}");
        }
    }
}
