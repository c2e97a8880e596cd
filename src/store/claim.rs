//! Whether the state directory is ours alone: who else may enter it could put links in it, and so have us write, as
//! root perhaps, where they like.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, lstat, open, openat, statat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{Error, FileError};

/// The folders in it, without the trash: what is in that may be anybody's.
const FOLDERS: [&str; 5] = ["jobs", "logs", "artefacts", "quarantine", "reuse"];

/// Closes the directory to everybody else. It is refused if it is another user's, or if it or its folders hold what
/// is another user's, or a link.
pub(super) fn claim(dir: &Path) -> Result<(), Error> {
    let failed = |error: Errno| Error::File {
        dir: dir.to_owned(),
        source: FileError::new("open", dir, error.into()),
    };
    let refused = |problem| Error::Unsafe { dir: dir.to_owned(), problem };
    // One's own link is a way to keep the state on another disk.
    if let Some(owner) = stranger(&lstat(dir).map_err(failed)?) {
        return Err(refused(format!(
            "it belongs to the user {owner}: run the worker as that user, or give another --state-dir"
        )));
    }
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let opened = open(dir, flags, Mode::empty()).map_err(failed)?;
    let stat = fstat(&opened).map_err(failed)?;
    if stat.st_uid != geteuid().as_raw() {
        return Err(refused(format!(
            "it belongs to the user {}: run the worker as that user, or give another --state-dir",
            stat.st_uid
        )));
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    if mode.intersects(Mode::RWXG | Mode::RWXO) {
        fchmod(&opened, Mode::RWXU).map_err(failed)?;
        log::warn!(
            "state directory {} could be entered by others (mode {:04o}); it is closed to them now",
            dir.display(),
            mode.as_raw_mode()
        );
    }
    // Only from now on can nobody add to it.
    let found = strange(&opened).map_err(failed)?;
    if let Some(problem) = found {
        return Err(refused(problem));
    }
    Ok(())
}

/// What is in it that is not ours, and what to do about it.
fn strange(dir: &OwnedFd) -> Result<Option<String>, Errno> {
    if let Some(problem) = strange_in(dir, "")? {
        return Ok(Some(problem));
    }
    for name in FOLDERS {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        match openat(dir, name, flags, Mode::empty()) {
            Ok(folder) => {
                if let Some(problem) = strange_in(&folder, &format!("{name}/"))? {
                    return Ok(Some(problem));
                }
            }
            // What stands in its place, or locks it, is met by whoever needs it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn strange_in(folder: &OwnedFd, above: &str) -> Result<Option<String>, Errno> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let stat = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        let what = if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            "is a link".to_owned()
        } else if let Some(owner) = stranger(&stat) {
            format!("belongs to the user {owner}")
        } else {
            continue;
        };
        return Ok(Some(format!("{above}{} in it {what}: remove that", name.display())));
    }
    Ok(None)
}

/// Whose it is, if neither ours nor root's.
fn stranger(stat: &Stat) -> Option<u32> {
    (stat.st_uid != geteuid().as_raw() && stat.st_uid != 0).then_some(stat.st_uid)
}
