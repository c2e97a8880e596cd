//! Files below a folder whose content is a stranger's: nothing outside of it is ever opened, made or
//! moved, whatever links stand in it.
//!
//! Every name of a path is opened by itself, from the folder before it, and no link is followed. That
//! needs no kernel newer than ours may be, as `openat2` would.

mod amount;
mod give;
mod remove;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode, linkat, mkdirat, openat, statat, symlinkat,
    unlinkat,
};
use rustix::io::Errno;

pub(crate) use amount::Amount;

/// For folders: everybody in the sandbox may read, whoever the program runs as there; outside of it the
/// job's own folder keeps them out.
const FOLDER_MODE: RawMode = 0o755;

/// How deep folders may stand in one another, and how long a path may be: a kernel takes one of 4096 bytes,
/// with what leads to our folder.
const DEPTH_MAX: usize = 64;
const PATH_MAX: usize = 3072;

const FOLDER: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::RDONLY).union(OFlags::CLOEXEC);

/// A folder held open.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

/// What stands below a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// Of a file; anything else says what it is.
    pub(crate) bytes: Result<u64, &'static str>,
}

impl Folder {
    /// What leads to the folder is ours; it itself may have been replaced by a link.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, path, FOLDER, Mode::empty())?))
    }

    /// The folder of that path, if there is one.
    pub(crate) fn folder(&self, path: &Path) -> io::Result<Self> {
        self.walk_down(path, |_, _| Ok(()))
    }

    /// The folder of that path, made where there is none.
    pub(crate) fn make_folder(&self, path: &Path) -> io::Result<Self> {
        self.walk_down(path, |parent, name| {
            match mkdirat(parent, name, Mode::from_raw_mode(FOLDER_MODE)) {
                Ok(()) => {
                    let made = openat(parent, name, FOLDER, Mode::empty())?;
                    // Whatever mask the agent was started with.
                    Ok(rustix::fs::fchmod(&made, Mode::from_raw_mode(FOLDER_MODE))?)
                }
                Err(Errno::EXIST) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn walk_down(
        &self,
        path: &Path,
        before: impl Fn(BorrowedFd<'_>, &Path) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut here = self.0.try_clone()?;
        for name in names(path)? {
            before(here.as_fd(), name)?;
            here = openat(&here, name, FOLDER, Mode::empty()).map_err(said)?;
        }
        Ok(Self(here))
    }

    /// The folder above the last name, and that name.
    fn above<'a>(&self, path: &'a Path, make: bool) -> io::Result<(Self, &'a Path)> {
        let name = names(path)?.pop().ok_or_else(|| io::Error::other("it has no name"))?;
        let parent = path.parent().unwrap_or_else(|| Path::new(""));
        let folder = if make { self.make_folder(parent)? } else { self.folder(parent)? };
        Ok((folder, name))
    }

    /// A new file, in place of any that was there.
    pub(crate) fn create(&self, path: &Path, mode: RawMode) -> io::Result<File> {
        let (folder, name) = self.room_for(path)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&folder.0, name, flags, Mode::from_raw_mode(0o600)).map_err(said)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        Ok(file.into())
    }

    /// The folder for a new entry of that name, of which none is there any more.
    fn room_for<'a>(&self, path: &'a Path) -> io::Result<(Self, &'a Path)> {
        let (folder, name) = self.above(path, true)?;
        match unlinkat(&folder.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok((folder, name)),
            Err(error) => Err(said(error)),
        }
    }

    /// A link that leads nowhere but to something below this folder.
    pub(crate) fn link(&self, path: &Path, target: &Path) -> io::Result<()> {
        let depth = names(path)?.len().saturating_sub(1);
        if !stays_below(target, depth) {
            return Err(io::Error::other("it is a link that may lead out of its folder"));
        }
        let (folder, name) = self.room_for(path)?;
        symlinkat(target, &folder.0, name).map_err(said)
    }

    /// Another name for a file that is there already.
    pub(crate) fn hard_link(&self, path: &Path, of: &Path) -> io::Result<()> {
        let (from, old) = self.above(of, false)?;
        // A link under another name could lead elsewhere.
        if kind(&from, old)? != FileType::RegularFile {
            return Err(io::Error::other("it is a link to what is no file"));
        }
        let (folder, name) = self.room_for(path)?;
        linkat(&from.0, old, &folder.0, name, AtFlags::empty()).map_err(said)
    }

    /// A file, to be read. Nothing else will do: a pipe would wait for ever.
    pub(crate) fn read(&self, path: &Path) -> io::Result<File> {
        let (folder, name) = self.above(path, false)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&folder.0, name, flags, Mode::empty()).map_err(said)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no file")) }
    }

    /// Whether nothing stands in it but what bears that name, if anything.
    pub(crate) fn holds_at_most(&self, name: &str) -> io::Result<bool> {
        for entry in Dir::read_from(&self.0)? {
            let found = entry?;
            let found = found.file_name().to_bytes();
            if ![b".".as_slice(), b"..", name.as_bytes()].contains(&found) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All below it, sorted, and whether that is all: no more than `most` are looked at.
    pub(crate) fn list(&self, most: usize) -> io::Result<(Vec<Found>, bool)> {
        let (mut found, mut folders) = (vec![], vec![PathBuf::new()]);
        while let Some(path) = folders.pop() {
            let opened = self.folder(&path).and_then(|folder| {
                let entries = Dir::read_from(&folder.0)?;
                Ok((folder, entries))
            });
            let (folder, entries) = match opened {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    found.push(Found { path, bytes: Err("locked by its permissions") });
                    continue;
                }
                opened => opened?,
            };
            for entry in entries {
                let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
                if name == "." || name == ".." {
                    continue;
                }
                if found.len() + folders.len() >= most {
                    return Ok((found, false));
                }
                let path = path.join(&name);
                let stat = statat(&folder.0, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                let bytes = match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory if path.components().count() < DEPTH_MAX => {
                        folders.push(path);
                        continue;
                    }
                    FileType::RegularFile => Ok(u64::try_from(stat.st_size).unwrap_or_default()),
                    other => Err(called(other)),
                };
                found.push(Found { path, bytes });
            }
        }
        found.sort();
        Ok((found, true))
    }
}

fn kind(folder: &Folder, name: &Path) -> io::Result<FileType> {
    let stat = statat(&folder.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// What is no file, for people.
fn called(kind: FileType) -> &'static str {
    match kind {
        FileType::Symlink => "a symbolic link",
        FileType::Directory => "a folder too deep down",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::RegularFile | FileType::Unknown => "no file",
    }
}

/// The names of a path that goes down and nowhere else.
fn names(path: &Path) -> io::Result<Vec<&Path>> {
    if path.as_os_str().len() > PATH_MAX {
        return Err(too_long());
    }
    let name = |component| match component {
        Component::Normal(name) => Some(Ok(Path::new(name))),
        Component::CurDir => None,
        Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
            Some(Err(io::Error::other("its path may lead out of its folder")))
        }
    };
    let names: Vec<_> = path.components().filter_map(name).collect::<io::Result<_>>()?;
    // One entry of an archive could make millions of folders.
    if names.len() > DEPTH_MAX { Err(too_long()) } else { Ok(names) }
}

fn too_long() -> io::Error {
    let most = format!("{DEPTH_MAX} folders and {PATH_MAX} bytes");
    io::Error::other(format!("its path is too long: the most is {most}"))
}

/// Whether a link that stands so many folders down leads to below the top: it goes up no further than
/// that, and only before it goes down, or a link on its way could make that less deep than it looks.
fn stays_below(target: &Path, depth: usize) -> bool {
    let is_up = |component: &Component<'_>| *component == Component::ParentDir;
    let ups = target.components().take_while(is_up).count();
    let is_down = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    ups <= depth && target.components().skip(ups).all(is_down)
}

/// Whether an error at one of a job's files is the job's own doing: by the names, the links, the sizes and
/// the permissions that it gave them. A disk that is full, read-only or broken is this machine's, and so
/// is all else.
pub(crate) fn is_of_the_job(error: &io::Error) -> bool {
    let Some(errno) = error.raw_os_error().map(Errno::from_raw_os_error) else {
        // Said by us, of a path that is not to be used.
        return error.kind() == io::ErrorKind::Other;
    };
    matches!(
        errno,
        Errno::ACCESS
            | Errno::EXIST
            | Errno::FBIG
            | Errno::ILSEQ
            | Errno::INVAL
            | Errno::ISDIR
            | Errno::LOOP
            | Errno::MLINK
            | Errno::NAMETOOLONG
            | Errno::NOENT
            | Errno::NOTDIR
            | Errno::NOTEMPTY
            | Errno::NXIO
            | Errno::OVERFLOW
            | Errno::PERM
            | Errno::TXTBSY
    )
}

/// What the kernel says of links, in words that fit what was asked.
fn said(error: Errno) -> io::Error {
    match error {
        Errno::LOOP | Errno::NOTDIR => io::Error::other("its path leads through a link or a file"),
        Errno::ISDIR => io::Error::other("a folder is in its place"),
        other => other.into(),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test plays the stranger")]
mod tests {
    use std::fs;
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    struct Room {
        dir: tempfile::TempDir,
        folder: Folder,
    }

    fn room() -> Room {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        fs::write(dir.path().join("secret"), b"ours").unwrap();
        let folder = Folder::open(&dir.path().join("in")).unwrap();
        Room { dir, folder }
    }

    #[test]
    fn a_file_is_made_with_the_folders_above_it() {
        let Room { dir, folder } = room();
        let path = Path::new("a/./b/c");
        folder.create(path, 0o644).unwrap().write_all(b"x").unwrap();
        folder.create(path, 0o755).unwrap().write_all(b"yz").unwrap();
        let made = dir.path().join("in/a/b/c");
        assert_eq!(fs::read(&made).unwrap(), b"yz");
        assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o7777, 0o755);
        let mut text = String::new();
        folder.read(path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "yz");
    }

    #[test]
    fn no_path_leads_out() {
        let Room { dir, folder } = room();
        symlink(dir.path(), dir.path().join("in/out")).unwrap();
        symlink("../secret", dir.path().join("in/link")).unwrap();
        for path in ["../secret", "/etc/passwd", "a/../../secret", "out/secret", "link", "out", ""]
        {
            let path = Path::new(path);
            assert!(folder.read(path).is_err(), "{} was read", path.display());
        }
        for path in ["../new", "out/new", "/new", "link/new"] {
            assert!(folder.create(Path::new(path), 0o644).is_err(), "{path} was made");
        }
        // A link in the place of a new file goes, and not what it leads to.
        folder.create(Path::new("link"), 0o644).unwrap().write_all(b"theirs").unwrap();
        assert_eq!(fs::read(dir.path().join("secret")).unwrap(), b"ours");
        let linked =
            |of| folder.hard_link(Path::new("hard"), Path::new(of)).unwrap_err().to_string();
        assert_eq!(linked("out"), "it is a link to what is no file");
        assert_eq!(linked("../secret"), "its path may lead out of its folder");
        let opened = Folder::open(&dir.path().join("in/out")).unwrap_err();
        assert_eq!(opened.kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn folders_are_not_made_without_end() {
        let Room { dir: _dir, folder } = room();
        for path in ["d/".repeat(65), format!("{}/", "n".repeat(200)).repeat(16)] {
            assert!(folder.make_folder(Path::new(&path)).is_err(), "{} bytes", path.len());
        }
        folder.make_folder(Path::new(&"d/".repeat(64))).unwrap();
        let told = folder.link(Path::new(""), Path::new("../..")).unwrap_err().to_string();
        assert_eq!(told, "it is a link that may lead out of its folder");
    }

    #[test]
    fn an_error_is_the_jobs_if_its_own_files_cause_it_and_else_this_machines() {
        for (errno, is_of_job) in [
            (Errno::NAMETOOLONG, true),
            (Errno::MLINK, true),
            (Errno::LOOP, true),
            (Errno::NOTDIR, true),
            (Errno::INVAL, true),
            (Errno::ILSEQ, true),
            (Errno::FBIG, true),
            (Errno::ACCESS, true),
            (Errno::NOSPC, false),
            (Errno::DQUOT, false),
            (Errno::ROFS, false),
            (Errno::IO, false),
            (Errno::NOMEM, false),
            (Errno::MFILE, false),
            (Errno::NFILE, false),
            (Errno::STALE, false),
        ] {
            assert_eq!(is_of_the_job(&errno.into()), is_of_job, "{errno:?}");
        }
        assert!(is_of_the_job(&names(Path::new("../x")).unwrap_err()));
        assert!(!is_of_the_job(&io::ErrorKind::StorageFull.into()), "as a wrapped error has it");
    }

    #[test]
    fn a_link_may_lead_to_below_the_folder_only() {
        for (target, depth, stays) in [
            ("a", 0, true),
            ("../a", 1, true),
            ("../../a/b", 2, true),
            ("../a", 0, false),
            ("../..", 1, false),
            ("/a", 3, false),
            ("a/../b", 3, false),
            ("./a", 0, true),
        ] {
            assert_eq!(stays_below(Path::new(target), depth), stays, "{target} at {depth}");
        }
    }

    #[test]
    fn all_that_stands_below_is_listed_and_nothing_followed() {
        let Room { dir, folder } = room();
        folder.create(Path::new("b/file"), 0o644).unwrap().write_all(b"four").unwrap();
        symlink("/", dir.path().join("in/a")).unwrap();
        rustix::fs::mknodat(CWD, dir.path().join("in/c"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let (found, all) = folder.list(10).unwrap();
        let told: Vec<_> =
            found.iter().map(|found| (found.path.to_str().unwrap(), found.bytes)).collect();
        let wanted = [("a", Err("a symbolic link")), ("b/file", Ok(4)), ("c", Err("a pipe"))];
        assert_eq!((told.as_slice(), all), (wanted.as_slice(), true));
        assert!(!folder.list(2).unwrap().1);
    }
}
