//! Removes what a stranger has left, which may be folders deeper than any path is long, or locked.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, chmod, fchmod, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::{FOLDER, Folder};

/// So many levels are gone down, with two files open for each; what is deeper is brought up first.
const LEVELS: usize = 16;

impl Folder {
    /// Removes what has this name, with all that is in it. Nothing is followed. What cannot be removed stays, and all
    /// else goes.
    pub(crate) fn remove(&self, name: &Path) -> io::Result<()> {
        if is_gone(&self.0, name)? {
            return Ok(());
        }
        let top = unlocked(&self.0, name)?;
        while empty(&top, &top, LEVELS)? {}
        Ok(unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }
}

/// Empties a folder. Returns whether something was brought up to the top, which is to be looked through again.
fn empty(top: &OwnedFd, folder: &OwnedFd, levels: usize) -> io::Result<bool> {
    let (mut brought_up, mut failed) = (false, Ok(()));
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        match remove_entry(top, folder, Path::new(OsStr::from_bytes(name)), levels) {
            Ok(is_up) => brought_up |= is_up,
            Err(error) => failed = failed.and(Err(error)),
        }
    }
    failed.map(|()| brought_up)
}

fn remove_entry(top: &OwnedFd, folder: &OwnedFd, name: &Path, levels: usize) -> io::Result<bool> {
    if is_gone(folder, name)? {
        return Ok(false);
    }
    let inner = unlocked(folder, name)?;
    let Some(levels) = levels.checked_sub(1) else {
        renameat(folder, name, top, format!("{:016x}", fastrand::u64(..)))?;
        return Ok(true);
    };
    let brought_up = empty(top, &inner, levels)?;
    unlinkat(folder, name, AtFlags::REMOVEDIR)?;
    Ok(brought_up)
}

/// Whether nothing of that name is there any more; a folder still is.
fn is_gone(folder: &OwnedFd, name: &Path) -> io::Result<bool> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens a folder, in which its owner may do everything from then on.
fn unlocked(folder: &OwnedFd, name: &Path) -> io::Result<OwnedFd> {
    let opened = match openat(folder, name, FOLDER, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let found = openat(folder, name, FOLDER | OFlags::PATH, Mode::empty())?;
            // By the number of what was opened: the name may lead elsewhere by now.
            chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), Mode::RWXU)?;
            openat(&found, ".", FOLDER, Mode::empty())?
        }
        opened => opened?,
    };
    // Else removing something from it fails, and says why.
    fchmod(&opened, Mode::RWXU).ok();
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{FileType, mkdirat, mknodat};

    use super::*;

    fn remove(dir: &Path, name: &str) {
        Folder::open(dir).unwrap().remove(Path::new(name)).unwrap();
        assert!(!fs::exists(dir.join(name)).unwrap(), "{name}");
    }

    #[test]
    fn a_tree_deeper_than_a_path_may_be_long_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("work/beside/it")).unwrap();
        let mut at = Folder::open(&dir.path().join("work")).unwrap().0;
        for _ in 0..5_000 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
            let odd = if fastrand::bool() { FileType::Fifo } else { FileType::RegularFile };
            mknodat(&at, "odd", odd, Mode::empty(), 0).unwrap();
        }
        remove(dir.path(), "work");
    }

    #[test]
    fn a_locked_folder_is_removed_and_what_a_link_leads_to_stays() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(other.path().join("kept")).unwrap();
        fs::create_dir_all(dir.path().join("work/a/b")).unwrap();
        symlink(other.path(), dir.path().join("work/a/b/link")).unwrap();
        for locked in ["work/a/b", "work/a", "work"] {
            chmod(dir.path().join(locked), Mode::empty()).unwrap();
        }
        remove(dir.path(), "work");
        symlink(other.path(), dir.path().join("link")).unwrap();
        remove(dir.path(), "link");
        remove(dir.path(), "absent");
        assert!(other.path().join("kept").exists());
    }
}
