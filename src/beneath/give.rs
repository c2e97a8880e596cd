//! Gives files to another user. Only root can, and whoever they are for may do all to mislead it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, openat};
use rustix::process::geteuid;

use super::{DEPTH_MAX, FOLDER, Folder};

/// What goes to whom.
struct Gift {
    /// Only what is ours, and on this disk.
    ours: u32,
    device: u64,
    user: Uid,
    group: Gid,
}

impl Folder {
    /// Gives what has this name, a file or a folder with all that is in it, to a user.
    ///
    /// What changes its owner is what was opened and looked at: no name is looked up a second time, and no link
    /// followed. A folder goes after its content, so that its new owner cannot replace anything before. A file that
    /// has a second name stays ours, as that name may be anywhere.
    pub(crate) fn give(&self, name: &Path, user: Uid, group: Gid) -> io::Result<()> {
        let device = fstat(&self.0)?.st_dev;
        let gift = Gift { ours: geteuid().as_raw(), device, user, group };
        gift.give(self.0.as_fd(), name, DEPTH_MAX + 1)
    }
}

impl Gift {
    fn give(&self, parent: BorrowedFd<'_>, name: &Path, depth: usize) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = openat(parent, name, flags, Mode::empty())?;
        let stat = fstat(&found)?;
        if stat.st_uid != self.ours || stat.st_dev != self.device {
            return Ok(());
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let below = depth.checked_sub(1);
                let below = below.ok_or_else(|| io::Error::other("its folders are too deep"))?;
                let folder = openat(&found, ".", FOLDER, Mode::empty())?;
                for entry in Dir::read_from(&folder)? {
                    let entry = entry?;
                    let name = entry.file_name().to_bytes();
                    if name != b"." && name != b".." {
                        self.give(folder.as_fd(), Path::new(OsStr::from_bytes(name)), below)?;
                    }
                }
            }
            FileType::RegularFile if stat.st_nlink == 1 => {}
            _ => return Ok(()),
        }
        Ok(chownat(&found, "", Some(self.user), Some(self.group), AtFlags::EMPTY_PATH)?)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test plays the stranger")]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// Root gives to nobody; anybody else can give to nobody but itself.
    fn nobody() -> u32 {
        if geteuid().is_root() { 65534 } else { geteuid().as_raw() }
    }

    fn give(dir: &Path, name: &str) -> io::Result<()> {
        let (user, group) = (Uid::from_raw(nobody()), Gid::from_raw(nobody()));
        let group = if geteuid().is_root() { group } else { rustix::process::getegid() };
        Folder::open(dir)?.give(Path::new(name), user, group)
    }

    fn owner(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().uid()
    }

    #[test]
    fn a_folder_goes_with_all_in_it_but_not_what_is_elsewhere_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("in/a/b")).unwrap();
        for file in ["in/a/b/file", "secret", "beside"] {
            fs::write(path(file), "x").unwrap();
        }
        fs::hard_link(path("secret"), path("in/a/hard")).unwrap();
        symlink(path("secret"), path("in/a/link")).unwrap();
        symlink(dir.path(), path("in/up")).unwrap();
        give(dir.path(), "in").unwrap();
        for (name, is_given) in [
            ("in", true),
            ("in/a", true),
            ("in/a/b", true),
            ("in/a/b/file", true),
            ("in/a/hard", false),
            ("in/a/link", false),
            ("in/up", false),
            ("secret", false),
            ("beside", false),
        ] {
            let expected = if is_given { nobody() } else { geteuid().as_raw() };
            assert_eq!(owner(&path(name)), expected, "{name}");
        }
    }

    #[test]
    fn folders_without_end_are_too_deep() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("d/".repeat(DEPTH_MAX + 1))).unwrap();
        give(dir.path(), "d").unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("d/".repeat(DEPTH_MAX + 2))).unwrap();
        assert_eq!(give(dir.path(), "d").unwrap_err().to_string(), "its folders are too deep");
    }

    /// Swaps two names for one another, as fast as it can.
    const SWAP: &str = "
import ctypes, os, sys
os.chdir(sys.argv[1])
swap = ctypes.CDLL(None).renameat2
while True:
    swap(-100, b'a', -100, b'b', 2)
";

    /// For another round.
    fn take_back(dir: &Path) {
        let ours = Some(geteuid());
        for name in ["in/a", "in/b"] {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
            // The link, at this moment.
            let Ok(folder) = rustix::fs::open(dir.join(name), flags, Mode::empty()) else {
                continue;
            };
            chownat(&folder, "file", ours, None, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            rustix::fs::fchown(&folder, ours, None).unwrap();
        }
        lchown(dir.join("in"), Some(geteuid().as_raw()), None).unwrap();
    }

    #[test]
    fn nothing_that_is_swapped_in_meanwhile_changes_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let open = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
        fs::create_dir_all(path("in/a")).unwrap();
        fs::create_dir(path("secrets")).unwrap();
        for file in ["in/a/file", "secrets/file"] {
            fs::write(path(file), "x").unwrap();
        }
        symlink(path("secrets"), path("in/b")).unwrap();
        open(dir.path());
        open(&path("in"));
        let mut stranger = Command::new("python3")
            .args(["-c", SWAP, path("in").to_str().unwrap()])
            .stdin(Stdio::null())
            .uid(nobody())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        for swapped in [true, false, true] {
            while path("in/a").is_symlink() != swapped {
                assert!(Instant::now() < until, "the stranger does nothing");
            }
        }
        let ours = geteuid().as_raw();
        for _ in 0..5_000 {
            // Which of them it meets, and whether that has a file in it, is chance.
            give(dir.path(), "in").ok();
            assert_eq!([owner(&path("secrets")), owner(&path("secrets/file"))], [ours, ours]);
            take_back(dir.path());
        }
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
