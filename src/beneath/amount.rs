//! How much stands below a folder, whoever tries to hide it: behind paths that are longer than a kernel
//! takes, under links, in folders that are locked.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, chmod, fchmod, openat, statat};
use rustix::process::geteuid;

use super::{FOLDER, Folder};

/// What its owner needs to look into a folder.
const OPEN: Mode = Mode::RUSR.union(Mode::XUSR);

/// What was found below a folder so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    /// On the disk.
    pub(crate) bytes: u64,
    /// Files, folders and all else that has a name.
    pub(crate) entries: u64,
    /// Folders in one another, where they are the deepest.
    pub(crate) depth: usize,
}

/// A folder that is being read.
struct Reading {
    entries: Dir,
    /// It was locked, and will be again.
    locked: Option<Mode>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let (Some(mode), Ok(folder)) = (self.locked, self.entries.fd()) {
            fchmod(folder, mode).ok();
        }
    }
}

impl Folder {
    /// How much is below it, or so much of it as is enough. A file with several names counts once.
    ///
    /// One descriptor is held for each folder on the way down.
    pub(crate) fn amount(&self, is_enough: impl Fn(&Amount) -> bool) -> io::Result<Amount> {
        let mut amount = Amount::default();
        let mut way = vec![Reading { entries: Dir::read_from(&self.0)?, locked: None }];
        while let (depth, Some(here)) = (way.len(), way.last_mut()) {
            let Some(Ok(entry)) = here.entries.read() else {
                way.pop();
                continue;
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let parent = here.entries.fd()?;
            // What goes away meanwhile is not there.
            let Ok(stat) = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            amount.entries += 1;
            amount.bytes += bytes(&stat);
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            amount.depth = amount.depth.max(depth - usize::from(!is_folder));
            if is_enough(&amount) {
                break;
            }
            let below = is_folder.then(|| open(parent, name, &stat)).flatten();
            way.extend(below);
        }
        Ok(amount)
    }
}

/// Of each of its names its part, so that all of them come to what the file has.
fn bytes(stat: &Stat) -> u64 {
    let names = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => 1,
        _ => i64::try_from(stat.st_nlink).unwrap_or(1).max(1),
    };
    u64::try_from(stat.st_blocks * 512 / names).unwrap_or_default()
}

/// Opens a folder to read it, unlocked meanwhile if need be: that takes no more than to be its owner, as we
/// are where a program runs as ourselves. Nothing if that fails.
fn open(parent: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Option<Reading> {
    let mode = Mode::from_raw_mode(stat.st_mode);
    let locked = Some(mode).filter(|_| !mode.contains(OPEN) && stat.st_uid == geteuid().as_raw());
    let folder = match locked {
        None => openat(parent, name, FOLDER, Mode::empty()).ok()?,
        Some(mode) => unlock(parent, name, mode).ok()?,
    };
    Some(Reading { entries: Dir::new(folder).ok()?, locked })
}

fn unlock(parent: BorrowedFd<'_>, name: &CStr, mode: Mode) -> io::Result<OwnedFd> {
    let held = openat(parent, name, FOLDER | OFlags::PATH, Mode::empty())?;
    // That very folder, whatever stands under its name by now.
    let itself = format!("/proc/self/fd/{}", held.as_raw_fd());
    chmod(&itself, mode | OPEN)?;
    Ok(openat(held.as_fd(), c".", FOLDER, Mode::empty())?)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test plays the program, which writes as it likes")]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use rustix::fs::mkdirat;

    use super::*;

    fn amount(path: &Path) -> Amount {
        Folder::open(path).unwrap().amount(|_| false).unwrap()
    }

    /// Folders in one another, deeper than a path can tell, and a file in the last.
    fn dig(path: &Path, levels: usize, bytes: usize) {
        let mut here: OwnedFd = File::open(path).unwrap().into();
        for _ in 0..levels {
            mkdirat(&here, "d".repeat(200), Mode::RWXU).unwrap();
            here = openat(&here, "d".repeat(200), FOLDER, Mode::empty()).unwrap();
        }
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let file = openat(&here, "file", flags, Mode::RUSR).unwrap();
        rustix::io::write(&file, &vec![1; bytes]).unwrap();
    }

    #[test]
    fn all_that_is_below_counts_and_nothing_that_it_points_to() {
        let dir = tempfile::tempdir().unwrap();
        let big = tempfile::tempdir().unwrap();
        fs::write(big.path().join("file"), vec![1; 1 << 20]).unwrap();
        symlink(big.path(), dir.path().join("link")).unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/c"), vec![1; 100 << 10]).unwrap();
        let Amount { bytes, entries, depth } = amount(dir.path());
        assert!((100 << 10..200 << 10).contains(&bytes), "{bytes}");
        assert_eq!((entries, depth), (4, 2));
    }

    #[test]
    fn a_hole_is_no_bytes_and_a_second_name_none_either() {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("hole")).unwrap().set_len(1 << 40).unwrap();
        fs::write(dir.path().join("file"), vec![1; 1 << 20]).unwrap();
        for name in 0..7 {
            fs::hard_link(dir.path().join("file"), dir.path().join(name.to_string())).unwrap();
        }
        let Amount { bytes, entries, .. } = amount(dir.path());
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
        assert_eq!(entries, 9);
    }

    #[test]
    fn what_is_below_no_path_counts() {
        let dir = tempfile::tempdir().unwrap();
        dig(dir.path(), 40, 1 << 20);
        let Amount { bytes, entries, depth } = amount(dir.path());
        assert!(bytes >= 1 << 20, "{bytes}");
        assert_eq!((entries, depth), (41, 40));
    }

    #[test]
    fn what_is_in_a_locked_folder_counts_and_the_folder_stays_locked() {
        let dir = tempfile::tempdir().unwrap();
        let modes = [0, 0o100, 0o400, 0o600];
        let path = |mode: u32| dir.path().join(mode.to_string());
        for mode in modes {
            fs::create_dir_all(path(mode).join("in")).unwrap();
            fs::write(path(mode).join("in/file"), vec![1; 1 << 20]).unwrap();
            fs::set_permissions(path(mode).join("in"), Permissions::from_mode(0o000)).unwrap();
            fs::set_permissions(path(mode), Permissions::from_mode(mode)).unwrap();
        }
        let found = amount(dir.path());
        assert!(found.bytes >= 4 << 20 && found.entries == 12, "{found:?}");
        for mode in modes {
            let now = fs::metadata(path(mode)).unwrap().permissions().mode();
            assert_eq!(now & 0o7777, mode);
            // For the folder's own end.
            fs::set_permissions(path(mode), Permissions::from_mode(0o700)).unwrap();
            fs::set_permissions(path(mode).join("in"), Permissions::from_mode(0o700)).unwrap();
        }
    }

    #[test]
    fn no_more_is_looked_at_than_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        for name in 0..9 {
            fs::write(dir.path().join(name.to_string()), b"").unwrap();
        }
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!(folder.amount(|found| found.entries == 3).unwrap().entries, 3);
    }
}
