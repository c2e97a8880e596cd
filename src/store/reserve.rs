//! `reserve`: room for outcomes on a disk that is full. A job that fills the disk fails, and that has
//! to be written down too.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::FileError;

const SIZE: u64 = 1 << 20;

const NAME: &str = "reserve";

/// Keeps the room, if it is not kept already. Without it a full disk is only harder to bear, and on one
/// that is nearly full the last room is for those who write meanwhile.
pub(super) fn keep(dir: &Path, free: u64) {
    let path = dir.join(NAME);
    let is_kept = |found: &fs::Metadata| found.is_file() && found.len() == SIZE;
    if free < 2 * SIZE || fs::symlink_metadata(&path).is_ok_and(|found| is_kept(&found)) {
        return;
    }
    // A part of it, or what somebody else has put there.
    fs::remove_file(&path).ok();
    if let Err(error) = fill(&path) {
        log::debug!("cannot keep {}: {error}", path.display());
        // A part of it would only be in the way.
        fs::remove_file(&path).ok();
    }
}

fn fill(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    // Noise: zeros take no room on a file system that compresses.
    let mut noise = [0; 4096];
    let mut rng = fastrand::Rng::new();
    for _ in 0..SIZE / 4096 {
        rng.fill(&mut noise);
        file.write_all(&noise)?;
    }
    file.sync_all()
}

/// Writes an outcome; where that fails for want of room, gives the reserve up and tries once more.
pub(super) fn spend_on(
    dir: &Path,
    write: impl Fn() -> Result<(), FileError>,
) -> Result<(), FileError> {
    match write() {
        Err(error) if error.is_for_want_of_room() && fs::remove_file(dir.join(NAME)).is_ok() => {
            log::warn!("{error}; what was kept back of the disk is used for it");
            write()
        }
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: io::ErrorKind) -> Result<(), FileError> {
        Err(FileError::new("write", Path::new("record.json"), kind.into()))
    }

    fn told(result: Result<(), FileError>) -> Option<String> {
        result.err().map(|error| error.to_string())
    }

    fn size(dir: &Path) -> Option<u64> {
        fs::metadata(dir.join(NAME)).ok().map(|found| found.len())
    }

    #[test]
    fn an_outcome_that_finds_no_room_gets_the_reserve() {
        let dir = tempfile::tempdir().unwrap();
        keep(dir.path(), 2 * SIZE);
        assert_eq!(size(dir.path()), Some(SIZE));
        let full = io::ErrorKind::StorageFull;
        let write = || if size(dir.path()).is_some() { failed(full) } else { Ok(()) };
        assert_eq!(told(spend_on(dir.path(), write)), None);
        assert_eq!(size(dir.path()), None);
        keep(dir.path(), 2 * SIZE - 1);
        assert_eq!(size(dir.path()), None, "not of the last room");
        keep(dir.path(), 2 * SIZE);
        assert_eq!(size(dir.path()), Some(SIZE), "made again");
    }

    #[test]
    fn what_fails_for_another_reason_or_without_a_reserve_fails_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let tried = |kind| told(spend_on(dir.path(), || failed(kind)));
        let full = Some("cannot write record.json: quota exceeded".to_owned());
        assert_eq!(tried(io::ErrorKind::QuotaExceeded), full);
        keep(dir.path(), 2 * SIZE);
        let denied = Some("cannot write record.json: permission denied".to_owned());
        assert_eq!(tried(io::ErrorKind::PermissionDenied), denied);
        assert_eq!(size(dir.path()), Some(SIZE));
        assert_eq!(tried(io::ErrorKind::QuotaExceeded), full);
        assert_eq!(size(dir.path()), None, "it was tried");
    }
}
