//! One agent a state directory: a lock on a file that is held for life.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use rustix::event::{Timespec, poll};

use super::file::{open_to_look, open_to_write};
use super::{Error, FileError};

/// So often the lock is tried again.
const LOOKERS_MAX: usize = 5;

/// Released by the kernel when the file is closed, however the agent ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

pub(super) fn take(dir: &Path) -> Result<Lock, Error> {
    let path = dir.join("lock");
    let failed =
        |error| Error::File { dir: dir.to_owned(), source: FileError::new("open", &path, error) };
    let mut file = open_to_write(&path).map_err(failed)?;
    match lock(&file) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::InUse { dir: dir.to_owned(), by: holder(&mut file) });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    if let Err(error) = write_pid(&mut file) {
        // On a full disk, and then all that is missing is who to ask.
        log::debug!("cannot write to {}: {error}", path.display());
    }
    Ok(Lock { _file: file })
}

/// Those who only look hold the lock for a moment.
fn lock(file: &File) -> Result<(), TryLockError> {
    for _ in 0..LOOKERS_MAX {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {}
            locked => return locked,
        }
        // Interrupted, it is tried again a little earlier.
        poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 10_000_000 })).ok();
    }
    file.try_lock()
}

/// Whether an agent works on this directory.
pub(crate) fn is_held(dir: &Path) -> Result<bool, FileError> {
    let path = dir.join("lock");
    let file = match open_to_look(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(FileError::new("open", &path, error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(FileError::new("look at", &path, error)),
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> String {
    let mut pid = String::new();
    // The pid only helps the reader along: without it the message is still right.
    match file.take(20).read_to_string(&mut pid) {
        Ok(1..) => format!(" (pid {})", pid.trim()),
        _ => String::new(),
    }
}
