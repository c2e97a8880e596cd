//! `artefacts/<cid>`: what jobs made, by content address, as long as there is room.
//!
//! A file is hashed where it lies and renamed into its place; it costs no memory, whatever its size.
//! Only a [`Cid`] makes a path here, so that nothing a job says can name one. What is taken out is
//! hashed again first.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};
use serde_json::Value;

use super::file::{self, FileError};
use super::record::{Phase, ReadError, Record};
use super::{Store, make_dir};
use crate::cid::{Address, Cid, Version, address};
use crate::work::{Ending, Key, Object};

/// What was put or taken so short ago is not dropped: the outcome that will name it may not be recorded
/// yet, or a job may be about to read it.
const IN_USE: Duration = Duration::from_secs(3600);

impl Store {
    /// Takes the file from where it is. If its like is here already it takes that one's place, which
    /// would mend it.
    pub(crate) fn put_artefact(&self, file: &Path, now: SystemTime) -> Result<Address, FileError> {
        make_dir(&self.artefacts())?;
        let prepare = || {
            let mut opened = open(file)?;
            let address = address(&mut opened, Version::V1)?;
            opened.set_permissions(Permissions::from_mode(0o600))?;
            opened.set_modified(now)?;
            opened.sync_all()?;
            Ok(address)
        };
        let address = prepare().map_err(|error| FileError::new("keep", file, error))?;
        file::rename(file, &self.artefact_path(&address.cid))?;
        Ok(address)
    }

    /// Takes a file that was hashed and synced, and is nobody else's any more.
    pub(crate) fn take_artefact(
        &self,
        file: &Path,
        cid: &Cid,
        now: SystemTime,
    ) -> Result<(), FileError> {
        make_dir(&self.artefacts())?;
        let touched = open(file).and_then(|opened| opened.set_modified(now));
        touched.map_err(|error| FileError::new("keep", file, error))?;
        file::rename(file, &self.artefact_path(cid))
    }

    /// Where the file of this address is, if it is here and still what it was. It counts as new from
    /// now on.
    pub(crate) fn artefact(&self, cid: &Cid, now: SystemTime) -> Option<PathBuf> {
        let path = self.artefact_path(cid);
        let checked = open(&path).and_then(|mut file| {
            let address = address(&mut file, Version::V1)?;
            file.set_modified(now)?;
            Ok(address.cid == *cid)
        });
        match checked {
            Ok(true) => return Some(path),
            Ok(false) => set_aside(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => log::error!("cannot use {}: {error}", path.display()),
        }
        None
    }

    /// Drops what is oldest until the rest takes no more than `space`; but nothing that a result names
    /// which was not delivered yet, and nothing that is in use.
    pub(crate) fn bound_artefacts(&self, space: u64, now: SystemTime) {
        let mut kept = self.list_artefacts();
        let mut bytes: u64 = kept.iter().map(|(_, _, size)| size).sum();
        if bytes <= space {
            return;
        }
        let owed = match self.undelivered_artefacts() {
            Ok(owed) => owed,
            Err(error) => return log::warn!("no artefact is dropped: {error}"),
        };
        kept.sort();
        for (changed, path, size) in kept {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_owed = name.parse().is_ok_and(|cid| owed.contains(&cid));
            // A time that is yet to come tells nothing: the clock was set back.
            let is_in_use = now.duration_since(changed).is_ok_and(|age| age < IN_USE);
            if bytes <= space || is_owed || is_in_use {
                continue;
            }
            match fs::remove_file(&path) {
                Ok(()) => bytes -= size,
                Err(error) => log::warn!("cannot remove {}: {error}", path.display()),
            }
        }
    }

    /// All files in the folder, damaged ones too, with the time by which they go.
    fn list_artefacts(&self) -> Vec<(SystemTime, PathBuf, u64)> {
        let entries = fs::read_dir(self.artefacts()).into_iter().flatten().flatten();
        // What cannot be looked at now is counted the next time.
        let files = entries.filter_map(|entry| {
            let data = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((data.modified().ok()?, entry.path(), data.len()))
        });
        files.collect()
    }

    /// An error means that it is not known: a record that cannot be read may name any.
    fn undelivered_artefacts(&self) -> Result<BTreeSet<Cid>, String> {
        let mut owed = BTreeSet::new();
        let jobs = self.dir.join("jobs");
        let failed = |error| FileError::new("list", &jobs, error).to_string();
        for entry in fs::read_dir(&jobs).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(key) = name.to_str().and_then(Key::from_folder) else { continue };
            match self.read(&key) {
                Ok(record) => owed.extend(undelivered(&record)),
                Err(ReadError::Absent) => {}
                Err(error) => return Err(self.unreadable(&key, &error)),
            }
        }
        Ok(owed)
    }

    pub(crate) fn artefacts(&self) -> PathBuf {
        self.dir.join("artefacts")
    }

    fn artefact_path(&self, cid: &Cid) -> PathBuf {
        self.artefacts().join(cid.to_string())
    }
}

/// The artefacts of a result that waits for its delivery.
fn undelivered(record: &Record) -> Vec<Cid> {
    let Phase::Finished { outcome, .. } = &record.phase else { return vec![] };
    let Ending::Completed(result) = &outcome.ending else { return vec![] };
    named_artefacts(result)
}

/// The files that a result names and that are here, and not somewhere else.
pub(crate) fn named_artefacts(result: &Object) -> Vec<Cid> {
    let artefacts = result.get("artefacts").and_then(Value::as_array).into_iter().flatten();
    let artefacts = artefacts.filter(|artefact| artefact.get("upload").is_none());
    artefacts.filter_map(|artefact| artefact.get("cid")?.as_str()?.parse().ok()).collect()
}

/// A job may have left anything under that name: a link to somebody else's file, a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no file")) }
}

/// Kept for people to look at, until it is the oldest.
fn set_aside(path: &Path) {
    let aside = path.with_extension("damaged");
    match file::rename(path, &aside) {
        Ok(()) => log::error!(
            "{} is damaged and counts as absent; it was moved to {}",
            path.display(),
            aside.display()
        ),
        Err(error) => log::error!("{} is damaged and counts as absent; {error}", path.display()),
    }
}
