//! `logs/`: what a job's program printed, the beginning and the end of it. It stays when the job is
//! over, for people to look at.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::file::{FileError, open_to_look};
use super::{make_dir, quarantine};
use crate::text;

/// So much of the beginning is kept, and as much of the end.
const PART: u64 = 4 << 20;

/// Of all jobs, the newest; none is older than [`KEEP_FOR`].
const KEEP_FILES: usize = 1000;
const KEEP_BYTES: u64 = 1 << 30;
const KEEP_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The log of a running job. What cannot be written is left out: no job fails for its log.
pub(crate) struct JobLog {
    path: PathBuf,
    /// Nothing once it cannot be written any more.
    parts: Option<Parts>,
}

/// The beginning grows to its size; then the end is written round and round, in a file beside.
struct Parts {
    head: BufWriter<File>,
    tail: BufWriter<File>,
    tail_path: PathBuf,
    part: u64,
    written: u64,
}

impl JobLog {
    /// Begins a job's log anew, and drops what is too old or too much of the others'.
    pub(super) fn open(dir: &Path, name: &str, now: SystemTime) -> Self {
        let path = dir.join(format!("{name}.log"));
        let parts = make_dir(dir).and_then(|()| {
            drop_old(dir, now);
            // One more comes.
            quarantine::thin_out(dir, KEEP_FILES - 1, KEEP_BYTES - 2 * PART);
            Parts::open(&path, PART).map_err(|error| FileError::new("open", &path, error))
        });
        let parts = parts.map_err(|error| log::warn!("{error}; the job's log is not kept"));
        Self { path, parts: parts.ok() }
    }

    pub(crate) fn line(&mut self, line: &str) {
        self.attempt(|parts| [line.as_bytes(), b"\n"].into_iter().try_for_each(|b| parts.put(b)));
    }

    /// Lets readers see all of it that there is.
    pub(crate) fn flush(&mut self) {
        self.attempt(|parts| parts.head.flush().and_then(|()| parts.tail.flush()));
    }

    /// Makes one file of it.
    pub(crate) fn close(mut self) {
        self.attempt(Parts::join);
    }

    fn attempt(&mut self, write: impl FnOnce(&mut Parts) -> io::Result<()>) {
        if let Some(parts) = &mut self.parts
            && let Err(error) = write(parts)
        {
            log::warn!("cannot write {}: {error}; the rest is left out", self.path.display());
            self.parts = None;
        }
    }
}

impl Parts {
    fn open(path: &Path, part: u64) -> io::Result<Self> {
        let tail_path = path.with_extension("tail");
        let open = |path: &Path| {
            // Whatever has its name by now: a new one is made.
            fs::remove_file(path).ok();
            let mut options = File::options();
            let file = options.read(true).write(true).create_new(true).mode(0o600);
            file.open(path).map(BufWriter::new)
        };
        Ok(Self { head: open(path)?, tail: open(&tail_path)?, tail_path, part, written: 0 })
    }

    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let at = self.written % self.part;
            let room = usize::try_from(self.part - at).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if self.written < self.part {
                self.head.write_all(now)?;
            } else {
                if at == 0 {
                    self.tail.seek(SeekFrom::Start(0))?;
                }
                self.tail.write_all(now)?;
            }
            self.written += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// The end goes behind the beginning, with a word about what is missing between them.
    fn join(&mut self) -> io::Result<()> {
        self.head.flush()?;
        self.tail.flush()?;
        let cut = self.written.saturating_sub(2 * self.part);
        let (mut head, mut tail) = (self.head.get_ref(), self.tail.get_ref());
        let mut append = |from: u64, size: u64| {
            tail.seek(SeekFrom::Start(from))?;
            // By the kernel, from file to file.
            io::copy(&mut tail.take(size), &mut head)
        };
        if cut > 0 {
            writeln!(self.head.get_ref(), "\n[{cut} bytes are left out here]")?;
            let oldest = self.written % self.part;
            append(oldest, self.part - oldest)?;
            append(0, oldest)?;
        } else {
            append(0, self.part)?;
        }
        fs::remove_file(&self.tail_path)
    }
}

/// The last lines of a job's log, of which no more than so many bytes are read.
pub(super) fn last_lines(dir: &Path, name: &str, bytes: u64) -> Vec<String> {
    let path = dir.join(format!("{name}.log"));
    let tail_path = path.with_extension("tail");
    let path = match fs::metadata(&tail_path) {
        // Written round and round: where its end is, only the writer knows.
        Ok(tail) if tail.len() >= PART => {
            return vec!["[the end is known when the job is over]".into()];
        }
        Ok(tail) if tail.len() > 0 => tail_path,
        Ok(_) | Err(_) => path,
    };
    let end = read_end(&path, bytes).unwrap_or_default();
    let (text, is_whole) = (String::from_utf8_lossy(&end), (end.len() as u64) < bytes);
    // The first line is most likely not a whole one.
    text.lines().skip(usize::from(!is_whole)).map(text::clean).collect()
}

fn read_end(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = open_to_look(path)?;
    let from = file.metadata()?.len().saturating_sub(bytes);
    file.seek(SeekFrom::Start(from))?;
    let mut end = vec![];
    file.take(bytes).read_to_end(&mut end)?;
    Ok(end)
}

fn drop_old(dir: &Path, now: SystemTime) {
    let is_old = |data: fs::Metadata| {
        let age = data.modified().ok().and_then(|changed| now.duration_since(changed).ok());
        age.is_some_and(|age| age > KEEP_FOR)
    };
    // What cannot be looked at or removed now is met the next time.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.metadata().is_ok_and(is_old) {
            fs::remove_file(entry.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn joined(part: u64, pieces: &[&str]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job.log");
        let mut parts = Parts::open(&path, part).unwrap();
        pieces.iter().for_each(|piece| parts.put(piece.as_bytes()).unwrap());
        parts.join().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn what_fits_is_kept_whole() {
        assert_eq!(joined(4, &["a", "b"]), "ab");
        assert_eq!(joined(4, &["abc", "defg"]), "abcdefg");
        assert_eq!(joined(4, &["abcdefgh"]), "abcdefgh");
        assert_eq!(joined(4, &[]), "");
    }

    #[test]
    fn of_what_does_not_fit_the_middle_is_left_out() {
        let cut = |n: u64| format!("abcd\n[{n} bytes are left out here]\n");
        assert_eq!(joined(4, &["abcdefghi"]), cut(1) + "fghi");
        assert_eq!(joined(4, &["abcdef", "ghi", "jkl"]), cut(4) + "ijkl");
        assert_eq!(joined(4, &["abcdefghijklmn"]), cut(6) + "klmn");
    }

    #[test]
    fn a_log_is_its_owners_and_begins_anew_with_each_attempt() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        for line in ["first", "second"] {
            let mut log = JobLog::open(&logs, "job", NOW);
            log.line(line);
            log.close();
        }
        let path = logs.join("job.log");
        assert_eq!(fs::read_to_string(&path).unwrap(), "second\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_end_of_a_log_is_read_while_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = JobLog::open(dir.path(), "job", NOW);
        assert_eq!(last_lines(dir.path(), "job", 100), [""; 0]);
        log.line("first");
        log.line("sec\u{1b}ond");
        log.flush();
        assert_eq!(last_lines(dir.path(), "job", 100), ["first", "second"]);
        assert_eq!(last_lines(dir.path(), "job", 11), ["second"]);
        assert_eq!(last_lines(dir.path(), "none", 11), [""; 0]);
        log.close();
    }

    #[test]
    fn logs_go_after_a_week() {
        let dir = tempfile::tempdir().unwrap();
        let old = File::create(dir.path().join("old.log")).unwrap();
        old.set_modified(NOW).unwrap();
        JobLog::open(dir.path(), "job", NOW + KEEP_FOR).close();
        assert!(dir.path().join("old.log").exists());
        JobLog::open(dir.path(), "job", NOW + KEEP_FOR + Duration::from_secs(1)).close();
        assert!(!dir.path().join("old.log").exists());
    }

    #[test]
    fn a_log_that_cannot_be_kept_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("logs")).unwrap();
        let mut log = JobLog::open(&dir.path().join("logs"), "job", NOW);
        log.line("lost");
        log.close();
    }

    #[test]
    fn a_log_that_finds_no_room_is_left_out_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = JobLog::open(dir.path(), "job", NOW);
        let full = File::options().write(true).open("/dev/full").unwrap();
        log.parts.as_mut().unwrap().head = BufWriter::new(full);
        log.line(&"x".repeat(4096).repeat(4));
        assert!(log.parts.is_none(), "and that is said once");
        log.line("more");
        log.close();
    }
}
