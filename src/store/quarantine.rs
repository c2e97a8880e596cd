//! `quarantine/`: what did not read back, kept aside for people to look at. Bounded.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::file::{self, FileError};

/// So much is kept, the newest of it.
const KEEP_FILES: usize = 100;
const KEEP_BYTES: u64 = 64 << 20;

/// Keeps a copy, synced, and drops what is too old for it. Returns its path.
pub(super) fn keep(dir: &Path, name: &str, content: &[u8]) -> Result<PathBuf, FileError> {
    super::make_dir(dir)?;
    let path = dir.join(name);
    file::replace(&path, content)?;
    thin_out(dir, KEEP_FILES, KEEP_BYTES);
    Ok(path)
}

/// Keeps a file as it is under a second name, synced: that takes no room, and nothing is read. Returns
/// its path.
pub(super) fn keep_file(dir: &Path, name: &str, file: &Path) -> Result<PathBuf, FileError> {
    super::make_dir(dir)?;
    let path = dir.join(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(FileError::new("remove", &path, error));
        }
        Ok(()) | Err(_) => {}
    }
    fs::hard_link(file, &path)
        .and_then(|()| file::sync_dir(dir))
        .map_err(|error| FileError::new("make", &path, error))?;
    thin_out(dir, KEEP_FILES, KEEP_BYTES);
    Ok(path)
}

/// Drops the oldest files of what is more than that.
pub(super) fn thin_out(dir: &Path, keep_files: usize, keep_bytes: u64) {
    let mut files: Vec<(SystemTime, PathBuf, u64)> = vec![];
    // What cannot be looked at now is counted the next time.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if let Ok(data) = entry.metadata()
            && data.is_file()
        {
            files.push((changed(&data), entry.path(), data.len()));
        }
    }
    files.sort();
    let (mut count, mut bytes) = (0, 0_u64);
    for (_, path, size) in files.into_iter().rev() {
        count += 1;
        bytes = bytes.saturating_add(size);
        if (count > keep_files || bytes > keep_bytes)
            && let Err(error) = fs::remove_file(&path)
        {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

fn changed(data: &Metadata) -> SystemTime {
    data.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::*;

    fn age(path: &Path, seconds: u64) {
        let file = File::options().append(true).open(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_hundred_files_are_kept_and_the_oldest_goes() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("quarantine");
        for n in 0..100 {
            age(&keep(&dir, &format!("{n:03}"), b"x").unwrap(), 1000 - n);
        }
        keep(&dir, "new", b"x").unwrap();
        let mut expected: Vec<_> = (0..99).map(|n| format!("{n:03}")).collect();
        expected.push("new".into());
        assert_eq!(names(&dir), expected);
    }

    #[test]
    fn big_files_go_sooner() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("quarantine");
        for name in ["a", "b"] {
            let path = keep(&dir, name, b"").unwrap();
            File::options().append(true).open(&path).unwrap().set_len(KEEP_BYTES / 2).unwrap();
            age(&path, if name == "a" { 1 } else { 2 });
        }
        keep(&dir, "new", b"x").unwrap();
        assert_eq!(names(&dir), ["b", "new"]);
    }
}
