//! Files that are replaced as a whole or not at all: temporary, write, sync, rename, sync the folder.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

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

    pub(super) fn is_for_want_of_room(&self) -> bool {
        matches!(self.cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Replaces `path` by `content`. After an error the old file stands, or the new one, but
/// never a part of either.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let write = || -> io::Result<()> {
        // Made with mode 0600, and removed again unless it gets to its place.
        let mut temporary = tempfile::NamedTempFile::new_in(dir)?;
        temporary.write_all(content)?;
        temporary.as_file().sync_all()?;
        temporary.persist(path)?;
        sync_dir(dir)
    };
    write().map_err(|error| FileError::new("write", path, error))
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
