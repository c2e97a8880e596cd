//! How much a program has on the disk: in the folder that it may write to, which may hold anything.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::runner::Running;

/// So many files and folders are too many, however little is in them.
pub(super) const ENTRIES_MAX: u64 = 200_000;

/// And so many folders in one another: the path of a deeper one may be longer than the kernel takes.
pub(super) const DEPTH_MAX: usize = 256;

/// Between two looks passes so many times as long as a look takes: a folder of many files is not to keep
/// the agent busy.
const REST: u32 = 20;

/// A folder, and the most that may be in it.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) folder: PathBuf,
    /// In bytes.
    pub(crate) most: u64,
}

/// Looks at a folder now and then.
pub(super) struct Meter {
    disk: Disk,
    not_before: Duration,
}

impl Meter {
    /// Looks first at that time: there is nothing yet when a program begins.
    pub(super) fn new(disk: Disk, not_before: Duration) -> Self {
        Self { disk, not_before }
    }

    /// Whether more is there than may be, if it is time to look.
    pub(super) fn is_over(&mut self, child: &Running, now: Duration) -> bool {
        if now < self.not_before {
            return false;
        }
        let began = Instant::now();
        let Disk { folder, most } = &self.disk;
        let device = fs::metadata(folder).map(|folder| folder.dev());
        let unlinked = device.map_or(0, |device| child.unlinked(device));
        let is_over = is_over(folder, most.saturating_sub(unlinked));
        self.not_before = now + began.elapsed() * REST;
        is_over
    }
}

fn is_over(folder: &Path, most: u64) -> bool {
    let (mut bytes, mut entries) = (0, 0);
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        // What goes away meanwhile is not there.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            // Of the link itself, where it is one.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push((entry.path(), depth + 1));
            }
            bytes += metadata.blocks() * 512;
            entries += 1;
            if bytes > most || entries > ENTRIES_MAX || depth > DEPTH_MAX {
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test plays the program, which writes as it likes")]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_in_a_folder_counts_and_nothing_that_it_points_to() {
        let dir = tempfile::tempdir().unwrap();
        let big = tempfile::tempdir().unwrap();
        fs::write(big.path().join("file"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink(big.path(), dir.path().join("link")).unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/c"), vec![1; 100 << 10]).unwrap();
        assert!(is_over(dir.path(), 100 << 10));
        assert!(!is_over(dir.path(), 200 << 10));
    }

    #[test]
    fn folders_too_deep_in_one_another_are_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let deep = |levels: usize| dir.path().join(vec!["d"; levels].join("/"));
        fs::create_dir_all(deep(DEPTH_MAX)).unwrap();
        assert!(!is_over(dir.path(), 1 << 30));
        fs::create_dir_all(deep(DEPTH_MAX + 2)).unwrap();
        assert!(is_over(dir.path(), 1 << 30));
    }

    #[test]
    fn a_hole_is_no_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("file")).unwrap();
        file.set_len(1 << 40).unwrap();
        assert!(!is_over(dir.path(), 1 << 20));
    }
}
