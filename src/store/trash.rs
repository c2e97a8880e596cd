//! `trash/`: folders that nobody needs any more. A job may have left so much that it takes minutes to
//! remove, for which neither the loop nor a start waits: what is to go is renamed to here, at once, and
//! removed by a thread that has nothing else to do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::make_dir;
use crate::beneath::Folder;

/// The folder in the state directory.
#[derive(Debug)]
pub(crate) struct Trash {
    dir: PathBuf,
}

impl Trash {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("trash") }
    }

    /// Takes a folder from where it is, if there is one.
    #[expect(
        clippy::disallowed_methods,
        reason = "a crash may leave either name: both are removed"
    )]
    pub(super) fn take(&self, folder: &Path) {
        let moved = match make_dir(&self.dir) {
            // No name that was there before, since what has it may be in the middle of its removal.
            Ok(()) => fs::rename(folder, self.dir.join(format!("{:016x}", fastrand::u64(..)))),
            Err(error) => Err(io::Error::other(error)),
        };
        match moved {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Slow is better than not at all.
            Err(_) => remove(folder),
        }
    }

    /// Removes all that is there, however long that takes.
    pub(crate) fn empty(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            remove(&entry.path());
        }
    }
}

fn remove(folder: &Path) {
    let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else { return };
    if let Err(error) = Folder::open(parent).and_then(|parent| parent.remove(Path::new(name))) {
        log::warn!("cannot remove {}: {error}", folder.display());
    }
}
