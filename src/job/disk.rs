//! The disk that jobs write to: how much each has of it, and how much is left for all.
//!
//! What a program has is counted in its folder, and in the files that it has open and that are in none.
//! It can be hidden from that, in a file that is mapped and no longer open, or on its way through a socket.
//! So the file system has the last word: before less is left than is to stay free, the program that has
//! the most has to go.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::statvfs;

use crate::beneath::{Amount, Folder};
use crate::clock;
use crate::process::wait_for_order;
use crate::runner::Running;
use crate::text;
use crate::work::Blame;

/// So many files and folders are too many, however little is in them.
pub(super) const ENTRIES_MAX: u64 = 200_000;

/// And so many folders in one another: each one on the way costs the agent a descriptor while it counts.
pub(super) const DEPTH_MAX: usize = 128;

/// How often it is looked at how much is left.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// And how often at what a program has; but at most such a part of a processor is spent on that, since a
/// folder of many files is not to keep the agent busy.
const COUNT_EVERY: Duration = Duration::from_secs(1);
const REST: u32 = 20;

/// So long it may take until what a program had is free again; meanwhile no other has to go that did not
/// take more than this.
const PATIENCE: Duration = Duration::from_secs(5);
const GROWN: u64 = 1 << 20;

/// So long it may take until the kernel has given up the files of a program that has ended.
const CLEARED_WITHIN: Duration = Duration::from_secs(1);

/// Whoever has no more than this has not filled a disk.
const LITTLE: u64 = 1 << 20;

/// What a program may take of the disk.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    /// Where it writes.
    pub(crate) folder: PathBuf,
    /// In bytes, if it is not bounded by itself.
    pub(crate) most: Option<u64>,
    /// So much was free when it began, and so much is to stay free.
    pub(crate) free: u64,
    pub(crate) least: u64,
    pub(crate) room: Arc<Room>,
}

/// How it took too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// More than it may.
    ItsLimit,
    /// It has the most where too little is left.
    TheRoom,
}

/// Looks now and then at what a program takes.
pub(super) struct Meter {
    disk: Disk,
    /// At the last look.
    free: u64,
    look_at: Duration,
    count_at: Duration,
}

/// All who write to the disk now.
#[derive(Debug, Default)]
pub(crate) struct Room(Mutex<Writers>);

#[derive(Debug, Default)]
struct Writers {
    /// By their folders.
    all: BTreeMap<PathBuf, Writer>,
    /// Until then it is waited for what the last one had that had to go.
    wait_until: Duration,
}

#[derive(Debug, Default)]
struct Writer {
    /// What it has in files that are in no folder, as far as it is known.
    unlinked: u64,
    /// What it had when all were last compared.
    had: u64,
    must_go: bool,
}

/// What came of it that too little was left.
#[derive(Debug)]
pub(super) struct Shortage {
    pub(super) blame: Blame,
    pub(super) error: String,
}

impl Disk {
    /// Whose fault it is that no room is left: the job's, if it had a good part of what went since it began.
    pub(crate) fn blame(&self, had: u64, free: u64) -> Blame {
        let lost = self.free.saturating_sub(free).max(LITTLE);
        let writers = self.room.writers().all.len().max(1) as u64;
        if had.saturating_mul(2 * writers) >= lost { Blame::Job } else { Blame::Worker }
    }
}

impl Meter {
    pub(super) fn new(disk: Disk, now: Duration) -> Self {
        disk.room.writers().all.insert(disk.folder.clone(), Writer::default());
        // There is nothing yet when a program begins.
        Self { free: disk.free, disk, look_at: now, count_at: now + COUNT_EVERY }
    }

    pub(super) fn look_at(&self) -> Duration {
        self.look_at
    }

    /// Whether it takes too much, if it is time to look.
    pub(super) fn look(&mut self, child: &Running, now: Duration) -> Option<Excess> {
        if now < self.look_at {
            return None;
        }
        self.look_at = now + LOOK_EVERY;
        let Disk { folder, least, room, .. } = &self.disk;
        let free = free(folder).unwrap_or(self.free);
        let lost = self.free.saturating_sub(free);
        self.free = free;
        let is_short = runs_short(free, lost, *least);
        if is_short && room.must_go(folder, unlinked(folder, child), lost > GROWN, now) {
            return Some(Excess::TheRoom);
        }
        (now >= self.count_at && self.is_over(child, now)).then_some(Excess::ItsLimit)
    }

    fn is_over(&mut self, child: &Running, now: Duration) -> bool {
        let Some(most) = self.disk.most else { return false };
        let (before, folder) = (clock::of_thread(), &self.disk.folder);
        let most = most.saturating_sub(unlinked(folder, child));
        let is_over = |amount: &Amount| is_too_much(amount, most);
        let is_over = amount(folder, is_over).is_some_and(|amount| is_over(&amount));
        let worked = clock::of_thread().saturating_sub(before);
        self.count_at = now + COUNT_EVERY.max(worked * REST);
        is_over
    }

    /// What is to be said of the program, which has gone for want of room.
    pub(super) fn shortage(&self) -> Shortage {
        let Disk { folder, least, room, .. } = &self.disk;
        let found = room.writers().all.get(folder).map_or(0, |writer| writer.had);
        let until = Instant::now() + CLEARED_WITHIN;
        loop {
            // What it had hidden comes free soon after its end.
            let hidden = free(folder).unwrap_or(0).saturating_sub(self.free);
            let had = found.max(hidden);
            let blame = self.disk.blame(had, self.free);
            if blame == Blame::Job || Instant::now() >= until {
                let [free, least, had] = [self.free, *least, had].map(text::size);
                let error = format!(
                    "killed: the worker's disk ran low: {free} free, {least} are to stay so, and this job had {had}"
                );
                return Shortage { blame, error };
            }
            wait_for_order(None, LOOK_EVERY / 10).ok();
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.disk.room.writers().all.remove(&self.disk.folder);
    }
}

impl Room {
    fn writers(&self) -> MutexGuard<'_, Writers> {
        // They are whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is this one that has to go, now that too little is left. All are compared by the first one
    /// who sees that, so that it is one that goes.
    fn must_go(&self, folder: &Path, unlinked: u64, is_falling: bool, now: Duration) -> bool {
        let mut writers = self.writers();
        let Writers { all, wait_until } = &mut *writers;
        if let Some(this) = all.get_mut(folder) {
            this.unlinked = unlinked;
        }
        // Once that one has gone, what goes on taking room is another, whose files may not be seen.
        let is_going = all.values().any(|writer| writer.must_go);
        if now < *wait_until && (is_going || !is_falling) {
            let Some(this) = all.get_mut(folder) else { return false };
            this.must_go |= this.has(folder) > this.had.saturating_add(GROWN);
            return this.must_go;
        }
        for (folder, writer) in &mut *all {
            writer.had = writer.has(folder);
        }
        let stay = all.values_mut().filter(|writer| !writer.must_go);
        if let Some(most) = stay.max_by_key(|writer| writer.had) {
            most.must_go = true;
        }
        *wait_until = now + PATIENCE;
        all.get(folder).is_some_and(|this| this.must_go)
    }
}

impl Writer {
    fn has(&self, folder: &Path) -> u64 {
        held(folder).saturating_add(self.unlinked)
    }
}

fn is_too_much(amount: &Amount, most: u64) -> bool {
    amount.bytes > most || amount.entries > ENTRIES_MAX || amount.depth > DEPTH_MAX
}

/// Whether too little will be left, at this pace, at the look after the next: by then a program has gone
/// that is told to at the next.
fn runs_short(free: u64, lost: u64, least: u64) -> bool {
    free.saturating_sub(2 * lost) < least
}

/// What is in a job's folder.
pub(crate) fn held(folder: &Path) -> u64 {
    amount(folder, |amount| amount.entries > ENTRIES_MAX).map_or(0, |amount| amount.bytes)
}

/// One that is not there any more has nothing.
fn amount(folder: &Path, is_enough: impl Fn(&Amount) -> bool) -> Option<Amount> {
    let is_enough = |amount: &Amount| amount.depth > DEPTH_MAX || is_enough(amount);
    Folder::open(folder).and_then(|folder| folder.amount(is_enough)).ok()
}

fn unlinked(folder: &Path, child: &Running) -> u64 {
    fs::metadata(folder).map_or(0, |folder| child.unlinked(folder.dev()))
}

/// Where a file system does not tell, all is left to the count.
fn free(folder: &Path) -> Option<u64> {
    let told = statvfs(folder).ok().filter(|told| told.f_blocks > 0)?;
    Some(told.f_bavail.saturating_mul(told.f_frsize))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test plays the program, which writes as it likes")]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    /// Programs that write to one disk, by what they have in their folders, in KiB.
    struct Writing {
        dir: tempfile::TempDir,
        room: Arc<Room>,
    }

    fn writing(amounts: &[usize]) -> Writing {
        let writing = Writing { dir: tempfile::tempdir().unwrap(), room: Arc::default() };
        for (name, kib) in amounts.iter().enumerate() {
            let folder = writing.folder(name);
            fs::create_dir(&folder).unwrap();
            writing.room.writers().all.insert(folder, Writer::default());
            writing.write(name, *kib);
        }
        writing
    }

    impl Writing {
        fn folder(&self, name: usize) -> PathBuf {
            self.dir.path().join(name.to_string())
        }

        fn write(&self, name: usize, kib: usize) {
            fs::write(self.folder(name).join("file"), vec![1; kib << 10]).unwrap();
        }

        fn must_go(&self, name: usize, seconds: u64) -> bool {
            self.room.must_go(&self.folder(name), 0, false, NOW + Duration::from_secs(seconds))
        }

        fn blame(&self, had: u64, lost: u64) -> Blame {
            let (folder, room, free) = (self.folder(0), Arc::clone(&self.room), 100 << 20);
            let disk = Disk { folder, most: None, free, least: 0, room };
            disk.blame(had << 20, free - (lost << 20))
        }
    }

    #[test]
    fn the_one_with_the_most_goes_whoever_looks_first() {
        let writing = writing(&[4, 64, 16]);
        assert_eq!([0, 1, 2].map(|name| writing.must_go(name, 0)), [false, true, false]);
        assert_eq!([2, 1, 0].map(|name| writing.must_go(name, 1)), [false, true, false]);
    }

    #[test]
    fn neither_bytes_nor_names_nor_depth_are_without_a_bound() {
        for (bytes, entries, depth, is_over) in [
            (10, 200_000, 128, false),
            (11, 1, 1, true),
            (0, 200_001, 1, true),
            (0, 129, 129, true),
        ] {
            let amount = Amount { bytes, entries, depth };
            assert_eq!(is_too_much(&amount, 10), is_over, "{amount:?}");
        }
    }

    #[test]
    fn room_runs_short_before_it_is_too_late() {
        for (free, lost, least, is_short) in [
            (100, 0, 100, false),
            (99, 0, 100, true),
            (120, 10, 100, false),
            (119, 10, 100, true),
            (1, 1000, 0, false),
        ] {
            assert_eq!(runs_short(free, lost, least), is_short, "{free} after {lost} of {least}");
        }
    }

    #[test]
    fn what_is_in_no_folder_is_had_too() {
        let writing = writing(&[4, 64]);
        assert!(writing.room.must_go(&writing.folder(0), 1 << 20, false, NOW));
        assert!(!writing.must_go(1, 0));
    }

    #[test]
    fn while_it_goes_another_one_has_to_go_too_if_it_takes_more_and_later_if_that_was_not_enough() {
        let writing = writing(&[4, 64, 16]);
        assert!(!writing.must_go(0, 0));
        writing.write(0, 512);
        assert!(!writing.must_go(0, 1), "that is little");
        writing.write(0, 2048);
        assert!(writing.must_go(0, 2));
        assert!(!writing.must_go(2, 4));
        assert!(writing.must_go(2, 6));
    }

    #[test]
    fn too_little_room_is_the_fault_of_whoever_took_a_good_part_of_it() {
        // In MiB: what it had, and what the disk lost since it began.
        for (others, had, lost, blame) in [
            (0, 50, 50, Blame::Job),
            (0, 25, 50, Blame::Job),
            (0, 24, 50, Blame::Worker),
            (0, 0, 0, Blame::Worker),
            (0, 50, 0, Blame::Job),
            (1, 13, 50, Blame::Job),
            (1, 12, 50, Blame::Worker),
        ] {
            let writing = writing(&vec![0; others + 1]);
            assert_eq!(writing.blame(had, lost), blame, "{had} of {lost} with {others} others");
        }
    }

    #[test]
    fn folders_too_deep_in_one_another_are_more_than_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let deep = |levels: usize| dir.path().join(vec!["d"; levels].join("/"));
        let depth = || amount(dir.path(), |_| false).unwrap().depth;
        fs::create_dir_all(deep(DEPTH_MAX)).unwrap();
        assert_eq!(depth(), DEPTH_MAX);
        fs::create_dir_all(deep(DEPTH_MAX + 10)).unwrap();
        assert_eq!(depth(), DEPTH_MAX + 1);
    }
}
