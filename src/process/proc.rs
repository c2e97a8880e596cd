//! What `/proc` tells of a process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::iter;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use rustix::process::Pid;

/// The kernel's clock ticks a second in `/proc`, the same on every Linux there is.
pub(crate) const TICKS: u32 = 100;

/// So many generations are looked at.
const GENERATIONS: usize = 64;

/// So many open files of a program are looked at, each of which takes a call.
const OPEN_MAX: usize = 100_000;

/// What a program has used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    /// By the program and the children it waited for.
    pub(crate) cpu: Option<Duration>,
    /// The most memory the program's first process ever had, in MiB.
    pub(crate) peak_memory_mb: Option<f64>,
    /// What all its processes have now, in bytes; shared memory counts with each that shares it.
    pub(crate) memory: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stat {
    pub(super) is_zombie: bool,
    pub(super) parent: u32,
    pub(super) group: u32,
    /// In clock ticks since boot.
    pub(super) start_time: u64,
    cpu_ticks: u64,
}

pub(super) fn stat(pid: Pid) -> io::Result<Stat> {
    let text = read(pid, "stat")?;
    parse(&text).ok_or_else(|| io::Error::other("/proc/PID/stat has another form"))
}

/// The text of a file of a process, whose name may hold any bytes.
fn read(pid: Pid, file: &str) -> io::Result<String> {
    let bytes = fs::read(format!("/proc/{}/{file}", pid.as_raw_nonzero()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) fn parse(text: &str) -> Option<Stat> {
    // The second field is the program's name in parentheses and may hold anything, these included.
    let (_, rest) = text.rsplit_once(')')?;
    let field = |number: usize| rest.split_whitespace().nth(number - 3)?.parse::<u64>().ok();
    let cpu_ticks = field(14)? + field(15)? + field(16)? + field(17)?;
    let id = |number| u32::try_from(field(number)?).ok();
    let is_zombie = matches!(rest.split_whitespace().next()?, "Z" | "X");
    Some(Stat { is_zombie, parent: id(4)?, group: id(5)?, start_time: field(22)?, cpu_ticks })
}

/// Every process there is, by its pid.
pub(super) fn all() -> BTreeMap<u32, Stat> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // One that has ended since is not there any more.
    pids.filter_map(|pid| Some((pid, stat(to_pid(pid)?).ok()?))).collect()
}

/// Bytes of the files on a disk that these processes have open and that are in no folder any more.
pub(super) fn unlinked(pids: impl IntoIterator<Item = u32>, device: u64) -> u64 {
    let open = |pid| fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    // Of the file and not of the link to it.
    let open = pids.into_iter().flat_map(open).take(OPEN_MAX);
    let files = open.filter_map(|entry| fs::metadata(entry.path()).ok());
    let unlinked = files.filter(|file| file.is_file() && file.nlink() == 0 && file.dev() == device);
    // One that many have open is there once.
    let sizes: BTreeMap<u64, u64> =
        unlinked.map(|file| (file.ino(), file.blocks() * 512)).collect();
    sizes.values().sum()
}

/// How many threads the processes of a user have.
pub(super) fn threads_of(user: u32) -> u64 {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_process =
        |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit();
    let theirs = names
        .filter(is_process)
        .filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.uid() == user));
    // Two links are the folder's own.
    let threads = |entry: fs::DirEntry| fs::metadata(entry.path().join("task")).ok();
    theirs.filter_map(threads).map(|tasks| tasks.nlink().saturating_sub(2)).sum()
}

/// Our own children, of whichever thread.
pub(super) fn children() -> Vec<u32> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let list = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).ok();
    // Each ends with a space.
    let lists: String = threads.filter_map(list).collect();
    lists.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

pub(super) fn to_pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// The environment that a process was started with, if it may be read; empty if it has cleared it.
pub(super) fn environment(pid: u32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/environ")).ok()
}

pub(super) fn variable<'a>(environment: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut variables = environment.split(|byte| *byte == 0);
    variables.find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// Whether a process is the ancestor of another, or the same.
pub(crate) fn descends_from(pid: u32, ancestor: u32) -> bool {
    let parent = |pid: &u32| stat(to_pid(*pid)?).ok().map(|stat| stat.parent);
    // Bounded: the ids that a driver tells may be of another namespace, and make a circle.
    iter::successors(Some(pid), parent).take(GENERATIONS).any(|pid| pid == ancestor)
}

pub(super) fn usage(pid: Pid) -> Usage {
    let cpu =
        stat(pid).ok().map(|stat| Duration::from_millis(stat.cpu_ticks * 1000 / u64::from(TICKS)));
    let peak = read(pid, "status").ok().and_then(|status| kib(&status, "VmHWM:"));
    Usage { cpu, peak_memory_mb: peak.map(|kib| kib as f64 / 1024.0), memory: 0 }
}

/// The memory that a process alone keeps in use, in bytes: files can be dropped from memory and read
/// again. Nothing of one that has ended.
pub(super) fn memory(pid: u32) -> u64 {
    let status = to_pid(pid).and_then(|pid| read(pid, "status").ok()).unwrap_or_default();
    sum_bytes(&status, ["RssAnon:", "RssShmem:", "VmSwap:"])
}

/// The same, with its share of what it shares only. Dear, as the kernel walks all of its pages.
pub(super) fn share_of_memory(pid: u32) -> u64 {
    match fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
        Ok(rollup) => sum_bytes(&rollup, ["Pss_Anon:", "Pss_Shmem:", "SwapPss:"]),
        // One that may not be looked into.
        Err(_) => memory(pid),
    }
}

fn sum_bytes(text: &str, names: [&str; 3]) -> u64 {
    names.iter().filter_map(|name| kib(text, name)).sum::<u64>() << 10
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// How often the kernel has killed for lack of memory since boot, the machine's or a control group's.
pub(crate) fn kills_for_memory() -> Option<u64> {
    parse_kills(&fs::read_to_string("/proc/vmstat").ok()?)
}

fn parse_kills(vmstat: &str) -> Option<u64> {
    vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "))?.parse().ok()
}

/// Tells this boot of the machine from every other.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_hostile_name_is_read_right() {
        let text = "7 (a) R 1) x) S 1 7 7 0 -1 4194560 100 0 0 0 3 4 5 6 20 0 1 0 777 9 9";
        let stat = parse(text).unwrap();
        assert_eq!((stat.parent, stat.group, stat.start_time, stat.cpu_ticks), (1, 7, 777, 18));
        assert!(!stat.is_zombie && parse(&text.replace(" S ", " Z ")).unwrap().is_zombie);
    }

    #[test]
    fn descent_is_told_over_generations() {
        let (ours, parent) = (std::process::id(), std::os::unix::process::parent_id());
        assert!(descends_from(ours, ours) && descends_from(ours, parent));
        assert!(!descends_from(parent, ours) && !descends_from(u32::MAX, ours));
    }

    #[test]
    fn memory_is_read_by_its_name_and_summed() {
        let status = "VmPeak:\t 9 kB\nVmHWM:\t    2048 kB\nVmSwap:\t   1 kB\n";
        assert_eq!((kib(status, "VmHWM:"), kib(status, "RssAnon:")), (Some(2048), None));
        assert_eq!(sum_bytes(status, ["VmHWM:", "RssAnon:", "VmSwap:"]), 2049 << 10);
    }

    #[test]
    fn the_kernels_kills_are_counted_where_it_tells_them() {
        assert_eq!(parse_kills("oom_kill_x 1\noom_kill 3\nballoon_inflate 0\n"), Some(3));
        assert_eq!(parse_kills("nr_free_pages 9\n"), None);
    }

    #[test]
    fn a_share_is_no_more_than_all() {
        let all = memory(std::process::id());
        let share = share_of_memory(std::process::id());
        assert!(share > 0 && share < 2 * all, "{share} of {all}");
    }
}
