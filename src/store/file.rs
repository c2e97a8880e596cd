//! Files that are replaced as a whole or not at all: temporary, write, sync, rename, sync the folder.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::beneath::Folder;
use crate::{crash, text};

/// What the name of a file begins with that is not in its place yet.
pub(super) const TEMPORARY: &str = ".tmp";

/// More than any file that is read as a whole to be looked at.
const SMALL: u64 = 1 << 20;

/// Neither a link is followed nor a pipe waited for.
#[expect(clippy::cast_possible_wrap, reason = "the kernel's own flags")]
const LOOKING: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits() as i32;

/// A file operation that failed: verb, path, cause.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path}: {cause}", path = path.display())]
pub(crate) struct FileError {
    verb: &'static str,
    path: PathBuf,
    cause: io::Error,
}

impl FileError {
    pub(crate) fn new(verb: &'static str, path: &Path, cause: io::Error) -> Self {
        Self { verb, path: path.to_owned(), cause }
    }

    pub(crate) fn is_for_want_of_permission(&self) -> bool {
        self.cause.kind() == io::ErrorKind::PermissionDenied
    }

    pub(super) fn is_for_want_of_room(&self) -> bool {
        matches!(self.cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Opens a file to look at it. Who looks may be root, and the directory a service's, where something
/// hostile may have left a link or a pipe: neither is followed or waited for.
pub(crate) fn open_to_look(path: &Path) -> io::Result<File> {
    regular(File::options().read(true).custom_flags(LOOKING).open(path)?)
}

/// What a file holds that is small, unless somebody else has written it.
pub(crate) fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(path, SMALL)
}

/// What a file holds, which is refused if it is longer: whatever it is, it takes neither long nor much memory.
pub(super) fn read_up_to(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open_to_look(path)?;
    is_at_most(&file, most)?;
    let mut content = vec![];
    file.take(most).read_to_end(&mut content)?;
    Ok(content)
}

/// Refuses a file that is longer than any of ours.
pub(super) fn is_at_most(file: &File, most: u64) -> io::Result<()> {
    if file.metadata()?.len() <= most {
        return Ok(());
    }
    let told = format!("it is longer than {}: move it away", text::size(most));
    Err(io::Error::new(io::ErrorKind::FileTooLarge, told))
}

/// Opens a file to write to it, made where there is none, for its owner alone. Whatever else has its name is not
/// followed, waited for, or written to.
pub(super) fn open_to_write(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    regular(options.custom_flags(LOOKING).open(path)?)
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"))
}

/// Replaces `path` by `content`. After an error the old file stands, or the new one, but
/// never a part of either.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let write = || -> io::Result<()> {
        // Made with mode 0600, and removed again unless it gets to its place.
        let mut temporary = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(dir)?;
        temporary.write_all(content)?;
        crash::point("temporary-written");
        temporary.as_file().sync_all()?;
        crash::point("temporary-synced");
        temporary.persist(path)?;
        crash::point("temporary-in-place");
        sync_dir(dir)
    };
    write().map_err(|error| FileError::new("write", path, error))
}

/// Removes what a kill in the middle of [`replace`] left in a folder.
pub(super) fn remove_temporaries(dir: &Path) {
    let Ok(folder) = Folder::open(dir) else { return };
    // What cannot be listed now is listed at another start.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
            && let Err(error) = folder.remove(Path::new(&name))
        {
            log::warn!("cannot remove {}: {error}", entry.path().display());
        }
    }
}

/// Renames a file and syncs both folders.
#[expect(clippy::disallowed_methods, reason = "this is the place that syncs the folders")]
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    let mut dirs = [from, to].into_iter().filter_map(Path::parent);
    fs::rename(from, to)
        .and_then(|()| dirs.try_for_each(sync_dir))
        .map_err(|error| FileError::new("move", from, error))
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
