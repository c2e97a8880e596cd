//! One agent a state directory: a lock on a file that is held for life.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{Error, FileError};

/// Released by the kernel when the file is closed, however the agent ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

pub(super) fn take(dir: &Path) -> Result<Lock, Error> {
    let path = dir.join("lock");
    let failed =
        |error| Error::File { dir: dir.to_owned(), source: FileError::new("open", &path, error) };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
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
