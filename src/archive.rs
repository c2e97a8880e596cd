//! Archives from strangers, unpacked into a folder and nowhere else, and no further than their own size
//! gives reason to expect.

use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use tar::EntryType;
use zip::ZipArchive;

use crate::beneath::{Folder, is_of_the_job};
use crate::text;
use crate::work::Archive;

/// What an archive may become whatever its size, and how often its size beyond that. Text comes to ten
/// times as much, zeros to a thousand times.
const SMALL: u64 = if cfg!(test) { 1 << 20 } else { 256 << 20 };
const RATIO: u64 = 200;

/// The longest path that a link leads to.
const TARGET_MAX: u64 = 4096;
const CHUNK: usize = 64 << 10;

/// Files that everybody in the sandbox may read; nobody outside of it gets to their folder.
const PLAIN: u32 = 0o644;
const PROGRAM: u32 = 0o755;

/// What may still be laid out, of all archives of a job.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

/// Why an archive is not unpacked, in one line for a person.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// It is none, or one that does harm.
    Theirs(String),
    /// This machine cannot keep it.
    Ours(String),
}

/// Lays out what is in the archive; `report` is called with the bytes so far.
pub(crate) fn unpack(
    archive: File,
    kind: Archive,
    into: &Folder,
    room: &mut Room,
    report: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let packed = archive.metadata().map_err(|error| Error::Ours(error.to_string()))?.len();
    let most = room.bytes.min(packed.saturating_mul(RATIO).saturating_add(SMALL));
    let mut unpacked = Unpacked { into, room, most, bytes: 0, report };
    let file = BufReader::with_capacity(CHUNK, archive);
    match kind {
        Archive::Zip => unpacked.zip(file),
        Archive::Tar => unpacked.tar(file),
        Archive::TarGz => {
            // Bounded before it is looked at: the names in a tar are read whole.
            unpacked.tar(MultiGzDecoder::new(file).take(most.saturating_add(SMALL)))
        }
    }
}

struct Unpacked<'a> {
    into: &'a Folder,
    room: &'a mut Room,
    most: u64,
    bytes: u64,
    report: &'a mut dyn FnMut(u64),
}

/// What an entry of an archive is to become.
enum Entry {
    Folder,
    File {
        mode: u32,
    },
    Link {
        to: PathBuf,
    },
    /// One more name of what came before.
    Again {
        of: PathBuf,
    },
}

impl Unpacked<'_> {
    fn zip(&mut self, file: BufReader<File>) -> Result<(), Error> {
        let mut archive = ZipArchive::new(file).map_err(|error| unreadable(&error))?;
        for n in 0..archive.len() {
            let mut entry = archive.by_index(n).map_err(|error| unreadable(&error))?;
            let path = path_of(entry.name_raw());
            let mode = entry.unix_mode().unwrap_or(PLAIN);
            let kind = if entry.is_dir() {
                Entry::Folder
            } else if entry.is_symlink() {
                let mut target = vec![];
                let read = entry.by_ref().take(TARGET_MAX).read_to_end(&mut target);
                read.map_err(|error| unreadable(&error))?;
                Entry::Link { to: path_of(&target) }
            } else {
                Entry::File { mode }
            };
            self.entry(&path, kind, &mut entry)?;
        }
        Ok(())
    }

    fn tar(&mut self, file: impl Read) -> Result<(), Error> {
        let mut archive = tar::Archive::new(file);
        for entry in archive.entries().map_err(|error| unreadable(&error))? {
            let mut entry = entry.map_err(|error| unreadable(&error))?;
            let path = path_of(&entry.path_bytes());
            let target = || entry.link_name_bytes().map(|to| path_of(&to)).unwrap_or_default();
            let kind = match entry.header().entry_type() {
                EntryType::Directory => Entry::Folder,
                EntryType::Symlink => Entry::Link { to: target() },
                EntryType::Link => Entry::Again { of: target() },
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                    Entry::File { mode: entry.header().mode().unwrap_or(PLAIN) }
                }
                EntryType::XGlobalHeader => continue,
                _ => return Err(bad(&path, "it is a device, or what is no file")),
            };
            self.entry(&path, kind, &mut entry)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, kind: Entry, content: &mut impl Read) -> Result<(), Error> {
        let Some(left) = self.room.entries.checked_sub(1) else {
            return Err(Error::Theirs("it has too many files".into()));
        };
        self.room.entries = left;
        let made = match kind {
            Entry::Folder => self.into.make_folder(path).map(drop),
            Entry::Link { to } => self.into.link(path, &to),
            Entry::Again { of } => self.into.hard_link(path, &of),
            Entry::File { mode } => {
                let mode = if mode & 0o100 == 0 { PLAIN } else { PROGRAM };
                match self.into.create(path, mode) {
                    Ok(file) => return self.fill(path, &file, content),
                    Err(error) => Err(error),
                }
            }
        };
        made.map_err(|error| kept(path, &error))
    }

    fn fill(&mut self, path: &Path, mut file: &File, content: &mut impl Read) -> Result<(), Error> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = match content.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(bad(path, &error.to_string())),
            };
            self.bytes += length as u64;
            let left = self.room.bytes.checked_sub(length as u64);
            let Some(left) = left.filter(|_| self.bytes <= self.most) else {
                let most = text::size(self.most);
                return Err(Error::Theirs(format!("it comes to more than the {most} it may")));
            };
            self.room.bytes = left;
            file.write_all(&chunk[..length]).map_err(|error| kept(path, &error))?;
            (self.report)(self.bytes);
        }
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

/// Of a path, which may have many millions of bytes, the beginning.
fn shown(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    text::one_line(&String::from_utf8_lossy(&bytes[..bytes.len().min(1000)]), 200)
}

fn unreadable(error: &dyn std::error::Error) -> Error {
    Error::Theirs(format!("it cannot be read: {}", text::one_line(&error.to_string(), 200)))
}

fn bad(path: &Path, why: &str) -> Error {
    let shown = shown(path);
    Error::Theirs(format!("{shown} in it is refused: {}", text::one_line(why, 200)))
}

fn kept(path: &Path, error: &io::Error) -> Error {
    if is_of_the_job(error) {
        return bad(path, &error.to_string());
    }
    let shown = shown(path);
    Error::Ours(format!("cannot keep {shown}: {error}"))
}

#[cfg(test)]
mod tests;
