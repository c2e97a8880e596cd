//! A control group for each job, where we may make one: its limits hold for all of a program's
//! processes together, and nothing gets out of it by itself: only who may write to groups as we do, and
//! does, could.
//!
//! With version 2 that is where the agent's own group was handed to it (systemd's `Delegate=yes`).
//! Processes are only in leaves there, so the agent goes into one of its own first. With version 1
//! it is wherever we may write, a folder in the hierarchy of each controller. Whatever differs between
//! the two has names of its own: a file that is not there belongs to the other version.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::num::NonZero;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Access, access, getxattr};
use rustix::process::geteuid;

use super::counters::Counters;
use super::family;
use super::proc::{self, Stat, to_pid};
use super::{ENDED_WITHIN, LAST_WORDS, LOOK_EVERY};
use crate::cgroup::{Hierarchies, V2};

/// Where the agent itself goes.
const LEAF: &str = "qubix-worker";

/// What is asked of version 1, the first of it for sure.
const CONTROLLERS_V1: [&str; 4] = ["memory", "pids", "cpu", "cpuacct"];

/// And of version 2, where CPU time is counted in any case.
const CONTROLLERS_V2: [&str; 4] = ["memory", "pids", "cpu", "io"];

/// Processes and threads of one job. Far more than any needs, and far fewer than a machine has.
const PROCESSES: u64 = 4096;

/// What a group of version 1 weighs for each processor: as much as a thread at niceness 10, since
/// others there are single threads and not groups.
const SHARES: usize = 110;

/// What a first group is limited to, to see whether it is.
const PROBE: u64 = 64 << 20;

/// Where groups are made.
#[derive(Debug)]
pub(crate) struct Groups {
    /// One of version 2, or one for each controller of version 1, that of the memory first.
    parents: Vec<PathBuf>,
    /// How the names of ours begin, of all that there may be.
    pub(super) prefix: String,
    bound_processes: bool,
}

impl Groups {
    /// Finds where groups can be made, and ends what an earlier agent on the same state directory,
    /// which is held by us now, left in its own. `root` is `/`.
    pub(crate) fn find(root: &Path, state_dir: &Path) -> Result<Self, String> {
        let found = Hierarchies::read(root);
        let delegated =
            delegated(&found).filter(|parent| divide(parent)).map(|parent| vec![parent]);
        let parents = delegated.or_else(|| version_1(&found)).ok_or_else(|| why_none(&found))?;
        let failed = |error: io::Error| format!("control groups do not work here: {error}");
        // Unlike its path it has no length and no odd characters.
        let meta = fs::metadata(state_dir).map_err(failed)?;
        let prefix = format!("qubix-worker-{:x}-{:x}-", meta.dev(), meta.ino());
        let groups = Self { parents, prefix, bound_processes: false };
        groups.sweep();
        // Also in a container that shows them for reading only.
        let probe = groups.make("probe", PROBE, None).map_err(failed)?;
        if let Some(what) = probe.unlimited(PROBE) {
            return Err(format!("control groups do not work here: {what}"));
        }
        let bound_processes = probe.counters.limit(["pids.max"; 2]) == Some(PROCESSES);
        Ok(Self { bound_processes, ..groups })
    }

    /// Whether groups could be made by a process where this one is. Changes nothing.
    pub(crate) fn look(root: &Path) -> Result<(), String> {
        let found = Hierarchies::read(root);
        let can_divide = delegated(&found).is_some_and(|parent| is_ours_alone(&parent));
        if can_divide || version_1(&found).is_some() { Ok(()) } else { Err(why_none(&found)) }
    }

    /// Whether each bounds its processes, besides their memory.
    pub(crate) fn bound_processes(&self) -> bool {
        self.bound_processes
    }

    /// The folder in which they are.
    pub(crate) fn place(&self) -> &Path {
        &self.parents[0]
    }

    /// Makes a group, which goes when it is dropped. The name is nobody else's meanwhile.
    pub(crate) fn make(&self, name: &str, memory: u64, cpus: Option<f64>) -> io::Result<Group> {
        let name = format!("{}{name}", self.prefix);
        let mut group = Group::of(vec![]);
        for parent in &self.parents {
            let dir = parent.join(&name);
            fs::create_dir(&dir)?;
            group.counters.dirs.push(dir);
        }
        group.limit(memory)?;
        if let Some(cpus) = cpus {
            group.limit_processors(cpus)?;
        }
        Ok(group)
    }

    fn sweep(&self) {
        let mut left = BTreeSet::new();
        for entry in self.parents.iter().flat_map(fs::read_dir).flatten().flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(&self.prefix)) {
                left.insert(name);
            }
        }
        for name in left {
            let dirs = self.parents.iter().map(|parent| parent.join(&name));
            drop(Group::of(dirs.filter(|dir| dir.is_dir()).collect()));
        }
    }
}

/// Our group of version 2, or the one above it, if we may divide it.
fn delegated(found: &Hierarchies) -> Option<PathBuf> {
    let own = found.chain(V2).map(|chain| chain.group).filter(|group| holds_us(group))?;
    // There already: systemd can put us into a leaf by itself.
    let parent = if own.ends_with(LEAF) { own.parent()?.to_owned() } else { own };
    let control = parent.join("cgroup.subtree_control");
    let offered = fs::read_to_string(parent.join("cgroup.controllers")).ok()?;
    let offers = |name: &str| offered.split_whitespace().any(|offered| offered == name);
    let may = || access(&control, Access::WRITE_OK).is_ok() && is_handed_over(&parent);
    (offers(CONTROLLERS_V2[0]) && may()).then_some(parent)
}

/// Makes place for groups in it: we go into a leaf.
fn divide(parent: &Path) -> bool {
    if enter(&parent.join(LEAF)).is_err() {
        return false;
    }
    let control = parent.join("cgroup.subtree_control");
    let enable = |name| put(&control, &format!("+{name}"));
    let [memory, others @ ..] = CONTROLLERS_V2;
    if enable(memory).is_err() {
        // Others are in the group besides us.
        put(&parent.join("cgroup.procs"), &process::id().to_string()).ok();
        fs::remove_dir(parent.join(LEAF)).ok();
        return false;
    }
    for name in others {
        if let Err(error) = enable(name) {
            log::debug!("{error}");
        }
    }
    true
}

/// A group with other processes in it is not divided.
fn is_ours_alone(group: &Path) -> bool {
    let us = process::id().to_string();
    let listed = fs::read_to_string(group.join("cgroup.procs"));
    listed.is_ok_and(|listed| listed.lines().all(|pid| pid == us))
}

/// Why there is no place for groups, and how there can be one.
fn why_none(found: &Hierarchies) -> String {
    let is_root = geteuid().is_root();
    let why = match found.chain(CONTROLLERS_V1[0]) {
        Some(_) if is_root => {
            "the control groups of this machine are not shown, or for reading only, as in a container: run the \
             worker outside of it"
        }
        Some(_) => {
            "only root may make control groups of version 1: run the worker as root, or boot with \
             systemd.unified_cgroup_hierarchy=1"
        }
        None if is_root => {
            "no control group was handed to the worker: run it as a service (install.sh), whose unit has \
             Delegate=yes"
        }
        None => {
            "no control group was handed to the worker: run it as a service (install.sh --user), whose unit \
             has Delegate=yes, or in a terminal by systemd-run --user --scope -p Delegate=yes worker run"
        }
    };
    why.to_owned()
}

/// Where a container is shown the machine's groups, or another's, and not its own, what looks like ours
/// is not: a job there would be free of the limits that hold for us.
fn holds_us(group: &Path) -> bool {
    let us = process::id().to_string();
    let listed = fs::read_to_string(group.join("cgroup.procs"));
    listed.is_ok_and(|listed| listed.lines().any(|pid| pid == us))
}

fn enter(leaf: &Path) -> io::Result<()> {
    fs::create_dir(leaf).or_else(|error| if leaf.is_dir() { Ok(()) } else { Err(error) })?;
    put(&leaf.join("cgroup.procs"), &process::id().to_string())
}

/// Root may write everywhere, but the groups of a running systemd are systemd's.
fn is_handed_over(group: &Path) -> bool {
    let says = |name| {
        let mut value = [0; 8];
        getxattr(group, name, &mut value).is_ok_and(|len| value[..len] == *b"1")
    };
    !geteuid().is_root()
        || !Path::new("/run/systemd/system").exists()
        || says("trusted.delegate")
        || says("user.delegate")
}

fn version_1(found: &Hierarchies) -> Option<Vec<PathBuf>> {
    let own = |name| found.chain(name).map(|chain| chain.group);
    let is_ours = |dir: &PathBuf| access(dir, Access::WRITE_OK).is_ok() && holds_us(dir);
    let mut parents = vec![own(CONTROLLERS_V1[0]).filter(is_ours)?];
    for parent in CONTROLLERS_V1[1..].iter().filter_map(|name| own(name)).filter(is_ours) {
        // Some are mounted as one.
        if !parents.contains(&parent) {
            parents.push(parent);
        }
    }
    Some(parents)
}

/// A job's group. Dropping it kills all that is in it, and removes it.
#[derive(Debug)]
pub(crate) struct Group {
    pub(super) counters: Counters,
}

impl Group {
    fn of(dirs: Vec<PathBuf>) -> Self {
        Self { counters: Counters { dirs } }
    }

    fn dirs(&self) -> &[PathBuf] {
        &self.counters.dirs
    }

    fn limit(&self, memory: u64) -> io::Result<()> {
        self.set("pids.max", &PROCESSES.to_string())?;
        if memory < u64::MAX {
            let memory = memory.to_string();
            self.set("memory.max", &memory)?;
            self.set("memory.limit_in_bytes", &memory)?;
            // Not by way of the swap either, where that is counted.
            self.set("memory.swap.max", "0")?;
            self.set("memory.memsw.limit_in_bytes", &memory)?;
        }
        // A job without some of its processes is of no use.
        self.set("memory.oom.group", "1")?;
        let shares = SHARES * thread::available_parallelism().map_or(1, NonZero::get);
        // Of version 2 it stands beside the agent itself.
        let weights = [
            ("cpu.weight", "10"),
            ("cpu.shares", &shares.to_string()),
            ("io.weight", "default 10"),
        ];
        for (file, weight) in weights {
            if let Err(error) = self.set(file, weight) {
                log::debug!("{error}");
            }
        }
        Ok(())
    }

    /// Where processors are not counted in groups, the bounds of each program see to it.
    fn limit_processors(&self, cpus: f64) -> io::Result<()> {
        const PERIOD: f64 = 100_000.0;
        let quota = (cpus * PERIOD).round().max(1000.0);
        self.set("cpu.max", &format!("{quota} {PERIOD}"))?;
        self.set("cpu.cfs_quota_us", &quota.to_string())
    }

    /// What of this limit is not in force, as the kernel shows it.
    pub(super) fn unlimited(&self, memory: u64) -> Option<String> {
        let is_above = |files| self.counters.limit(files).is_none_or(|limit| limit > memory);
        if is_above(["memory.max", "memory.limit_in_bytes"]) {
            return Some("its memory is not limited".to_owned());
        }
        let swap = is_above(["memory.swap.max", "memory.memsw.limit_in_bytes"]);
        (swap && machine_swaps())
            .then(|| "its swap is not limited: boot with swapaccount=1".to_owned())
    }

    /// Writes the file wherever there is one of that name.
    pub(super) fn set(&self, file: &str, value: &str) -> io::Result<()> {
        let files = self.dirs().iter().map(|dir| dir.join(file));
        let mut present = files.filter(|path| path.exists());
        present.try_for_each(|path| put(&path, value))
    }

    /// Why a process is not held to a limit of memory by it, if it is not.
    pub(super) fn objection(&self, pid: u32, memory: u64) -> Option<String> {
        if !self.counters.processes().contains(&pid) {
            return Some("it is not in its control group".to_owned());
        }
        self.unlimited(memory)
    }

    /// Takes a process in, and with it all that it will start; or leaves it where it was.
    pub(super) fn admit(&self, pid: u32) -> io::Result<()> {
        let pid = pid.to_string();
        let admitted = self.dirs().iter().try_for_each(|dir| put(&dir.join("cgroup.procs"), &pid));
        if admitted.is_err() {
            // Of version 1 it may be in some: with the others' end it would be killed.
            for parent in self.dirs().iter().filter_map(|dir| dir.parent()) {
                put(&parent.join("cgroup.procs"), &pid).ok();
            }
        }
        admitted
    }

    /// Kills all that is in it, and does not wait for its end.
    pub(super) fn kill(&self) {
        // At once and for all, since Linux 5.14.
        if self.dirs().iter().any(|dir| put(&dir.join("cgroup.kill"), "1").is_ok()) {
            return;
        }
        // Else one by one; none of them starts another meanwhile.
        self.set("pids.max", "0").ok();
        for (pid, stat) in self.processes() {
            family::kill(pid, &stat);
        }
    }

    /// The same, and waits for it within a bound.
    pub(super) fn end(&self, within: Duration) {
        self.kill();
        family::end_all(within, || self.processes());
    }

    fn processes(&self) -> Vec<(u32, Stat)> {
        let stat = |pid| Some((pid, proc::stat(to_pid(pid)?).ok()?));
        let mut found: Vec<_> = self.counters.processes().into_iter().filter_map(stat).collect();
        // One that ended meanwhile may have left its number to another process.
        let still = self.counters.processes();
        found.retain(|(pid, stat)| still.contains(pid) && !stat.is_zombie);
        found
    }

    /// Removes the folders, as soon as the kernel has done with what was in them.
    fn remove(&mut self) {
        let until = Instant::now() + LAST_WORDS;
        let gone = |dir: &PathBuf| match fs::remove_dir(dir) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        loop {
            self.counters.dirs.retain(|dir| !gone(dir));
            let Some(dir) = self.dirs().first() else { return };
            if Instant::now() >= until {
                return log::warn!("cannot remove {}: the next start tries again", dir.display());
            }
            family::wait(&mut [], LOOK_EVERY);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.counters.processes().is_empty() {
            self.end(ENDED_WITHIN);
        }
        self.remove();
    }
}

fn machine_swaps() -> bool {
    // Below a heading.
    fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1)
}

/// Writes a file of the kernel's, which takes a value at once or refuses it.
fn put(path: &Path, value: &str) -> io::Result<()> {
    let written = File::options()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests;
