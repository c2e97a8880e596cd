//! The limits of the control groups that this process is in: a container's, a pod's, a unit's.
//!
//! Both versions are looked at, as a machine may have either or both. A controller is in one of them
//! only, and its files are not there in the other. The groups above ours bind too: the tightest
//! limit on the way up holds.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::read_number;

/// The one hierarchy of version 2, which has no list of controllers.
const V2: &str = "";

/// How a limit is read from a group's folder, and the controller whose hierarchy may have it.
type Look<T> = (&'static str, fn(&Path) -> Option<T>);

/// What is limited to less than the machine has.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Limits {
    pub(super) cpu: Option<CpuLimit>,
    pub(super) memory: Option<MemoryLimit>,
}

#[derive(Debug, PartialEq)]
pub(super) struct CpuLimit {
    /// So many cores' worth of time; 1.5 is possible.
    pub(super) cores: f64,
    /// The group whose use counts against it.
    group: PathBuf,
}

#[derive(Debug, PartialEq)]
pub(super) struct MemoryLimit {
    pub(super) bytes: u64,
    group: PathBuf,
}

impl CpuLimit {
    /// The CPU time that the group has used since it was made.
    pub(super) fn used(&self) -> Option<Duration> {
        // In version 1 there is a cpu.stat too, but without this line.
        let micros = fs::read_to_string(self.group.join("cpu.stat"))
            .ok()
            .and_then(|stat| line_of(&stat, "usage_usec"));
        let nanos = || read_number(&self.group.join("cpuacct.usage"));
        micros.map(Duration::from_micros).or_else(|| nanos().map(Duration::from_nanos))
    }
}

impl MemoryLimit {
    /// What the group has in use, less the files that are cached only until somebody needs room.
    pub(super) fn used(&self) -> Option<u64> {
        let number = |name| read_number::<u64>(&self.group.join(name));
        let all = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
        let stat = fs::read_to_string(self.group.join("memory.stat")).unwrap_or_default();
        // In version 1 the name without `total_` leaves out the groups below.
        let cached =
            line_of(&stat, "total_inactive_file").or_else(|| line_of(&stat, "inactive_file"));
        Some(all.saturating_sub(cached.unwrap_or(0)))
    }
}

/// Returns the limits below `cores` and `memory`, which is what the machine has. `root` is `/`.
pub(super) fn limits(root: &Path, cores: usize, memory: u64) -> Limits {
    let found = Hierarchies::read(root);
    let cpu = found.tightest([(V2, quota_v2), ("cpu", quota_v1)]);
    let cpu = cpu.filter(|(quota, _)| *quota < cores as f64);
    let most = found.tightest([(V2, memory_v2), ("memory", memory_v1)]);
    let most = most.filter(|(bytes, _)| *bytes < memory);
    Limits {
        cpu: cpu.map(|(cores, group)| CpuLimit { cores, group: found.counts_for(group) }),
        memory: most.map(|(bytes, group)| MemoryLimit { bytes, group }),
    }
}

fn quota_v2(group: &Path) -> Option<f64> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    // The quota may be `max`, which is no number.
    let (quota, period) = text.trim().split_once(' ')?;
    cores(quota.parse().ok()?, period.parse().ok()?)
}

fn quota_v1(group: &Path) -> Option<f64> {
    // Without a quota it is -1, which is none of these numbers.
    let quota = read_number(&group.join("cpu.cfs_quota_us"))?;
    cores(quota, read_number(&group.join("cpu.cfs_period_us"))?)
}

fn cores(quota: u64, period: u64) -> Option<f64> {
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

fn memory_v2(group: &Path) -> Option<u64> {
    // `max` is no number. `memory.high` slows a group down, but is no limit.
    read_number(&group.join("memory.max"))
}

fn memory_v1(group: &Path) -> Option<u64> {
    // Without a limit it is huge, and above what any machine has.
    let own: u64 = read_number(&group.join("memory.limit_in_bytes"))?;
    // This one is that of the groups above too, of which a container may not see the folders.
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    Some(line_of(&stat, "hierarchical_memory_limit").map_or(own, |all| all.min(own)))
}

/// The number in the line `name number`.
fn line_of(stat: &str, name: &str) -> Option<u64> {
    let mut words = stat.lines().filter_map(|line| line.split_once(' '));
    words.find(|(word, _)| *word == name)?.1.trim().parse().ok()
}

/// Where the hierarchies are mounted, and which group of each is ours.
struct Hierarchies {
    mounts: Vec<Mount>,
    /// `/proc/self/cgroup`.
    ours: String,
}

struct Mount {
    /// Names of version 1's controllers among other options, or [`V2`].
    controllers: String,
    /// The group that is seen at `point`.
    top: PathBuf,
    point: PathBuf,
}

/// Our group, and the one at which the view upwards ends.
struct Chain {
    group: PathBuf,
    top: PathBuf,
}

impl Hierarchies {
    fn read(root: &Path) -> Self {
        let text = |name| fs::read_to_string(root.join("proc/self").join(name)).unwrap_or_default();
        let mounts = text("mountinfo");
        let mounts = mounts.lines().filter_map(|line| Mount::parse(line, root)).collect();
        Self { mounts, ours: text("cgroup") }
    }

    fn tightest<T: PartialOrd>(&self, looks: [Look<T>; 2]) -> Option<(T, PathBuf)> {
        let chains = looks.map(|(name, limit)| (self.chain(name), limit));
        let limits = chains.iter().flat_map(|(chain, limit)| {
            let groups = chain.iter().flat_map(Chain::groups);
            groups.filter_map(|group| Some((limit(group)?, group.to_owned())))
        });
        // Of equal limits the upper one is reached first: more counts against it.
        limits.reduce(|tight, upper| if upper.0 <= tight.0 { upper } else { tight })
    }

    fn chain(&self, controller: &str) -> Option<Chain> {
        let path = self.ours.lines().find_map(|line| path_in(line, controller))?;
        let fits = |mount: &&Mount| is_listed(&mount.controllers, controller);
        let mut mounts = self.mounts.iter().filter(fits);
        // In a container the path may be the host's, which is not seen here: then ours is all that
        // is mounted.
        let all = |mount: &Mount| Chain { group: mount.point.clone(), top: mount.point.clone() };
        let seen = mounts.clone().find_map(|mount| mount.chain(Path::new(path)));
        seen.or_else(|| mounts.next().map(all))
    }

    /// Version 1 may count the CPU in another hierarchy than it limits it in: there it is the group
    /// of the same name, if we are in that one too.
    fn counts_for(&self, group: PathBuf) -> PathBuf {
        let twin = || {
            let inside = group.strip_prefix(self.chain("cpu")?.top).ok()?.to_owned();
            let counting = self.chain("cpuacct")?;
            let twin = counting.top.join(inside);
            counting.groups().any(|group| group == twin).then_some(twin)
        };
        twin().unwrap_or(group)
    }
}

/// The path in a line such as `4:cpu,cpuacct:/docker/1f`, if it is about that controller.
fn path_in<'a>(line: &'a str, controller: &str) -> Option<&'a str> {
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    is_listed(controllers, controller).then_some(path)
}

fn is_listed(list: &str, name: &str) -> bool {
    list.split(',').any(|listed| listed == name)
}

impl Mount {
    /// From a line of mountinfo: `32 31 0:29 TOP POINT rw shared:9 - cgroup cgroup rw,memory`.
    fn parse(line: &str, root: &Path) -> Option<Self> {
        let (place, system) = line.split_once(" - ")?;
        let mut system = system.split(' ');
        let controllers = match system.next()? {
            "cgroup2" => V2,
            "cgroup" => system.nth(1)?,
            _ => return None,
        };
        let mut place = place.split(' ').skip(3);
        let (top, point) = (unescaped(place.next()?), unescaped(place.next()?));
        let point = root.join(point.trim_start_matches('/'));
        Some(Self { controllers: controllers.to_owned(), top: top.into(), point })
    }

    fn chain(&self, path: &Path) -> Option<Chain> {
        let inside = path.strip_prefix(&self.top).ok()?;
        // From within a namespace, groups outside of it are `/../…`.
        let is_inside = inside.components().all(|part| matches!(part, Component::Normal(_)));
        let group = self.point.join(inside);
        (is_inside && group.is_dir()).then(|| Chain { group, top: self.point.clone() })
    }
}

impl Chain {
    fn groups(&self) -> impl Iterator<Item = &Path> {
        self.group.ancestors().take_while(|group| group.starts_with(&self.top))
    }
}

/// mountinfo writes these four as octal numbers, as it has other uses for them.
fn unescaped(path: &str) -> String {
    let path = path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n");
    path.replace("\\134", "\\")
}

#[cfg(test)]
mod tests;
