//! Removes what a job leaves behind, which may be folders deeper than any path is long, or locked.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// A folder with a longer path is brought up before it is removed: whoever removes a tree opens a file
/// for each of its levels, and calls itself as often.
const PATH_MAX: usize = 600;

pub(super) fn remove_tree(dir: &Path) {
    flatten(dir);
    match fs::remove_dir_all(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => log::warn!("cannot remove {}: {error}", dir.display()),
    }
}

/// No level of the tree is deep afterwards, and its owner may remove all of it.
fn flatten(root: &Path) {
    let mut folders = vec![root.to_owned()];
    let mut moved = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            // Not what a link leads to.
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let mut path = entry.path();
            // Else removing it fails, and says why.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).ok();
            if path.as_os_str().len() > PATH_MAX {
                let up = root.join(format!("deep-{moved}"));
                moved += 1;
                if rustix::fs::rename(&path, &up).is_ok() {
                    path = up;
                }
            }
            folders.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags, mkdirat, open, openat};

    use super::*;

    #[test]
    fn a_tree_deeper_than_a_path_may_be_long_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("work");
        fs::create_dir(&root).unwrap();
        let mut at = open(&root, OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..5_000 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        remove_tree(&root);
        assert!(!root.exists());
    }

    #[test]
    fn what_a_link_leads_to_stays() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(other.path().join("kept")).unwrap();
        let root = dir.path().join("work");
        fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink(other.path(), root.join("link")).unwrap();
        remove_tree(&root);
        assert!(!root.exists() && other.path().join("kept").exists());
    }
}
