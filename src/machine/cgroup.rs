//! The limits of the control groups that this process is in: a container's, a pod's, a unit's.
//!
//! The groups above ours bind too: the tightest limit on the way up holds.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::read_number;
use crate::cgroup::{Chain, Hierarchies, V2, line_of};

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
    let cpu = tightest(&found, [(V2, quota_v2), ("cpu", quota_v1)]);
    let cpu = cpu.filter(|(quota, _)| *quota < cores as f64);
    let most = tightest(&found, [(V2, memory_v2), ("memory", memory_v1)]);
    let most = most.filter(|(bytes, _)| *bytes < memory);
    Limits {
        cpu: cpu.map(|(cores, group)| CpuLimit { cores, group: counts_for(&found, group) }),
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

fn tightest<T: PartialOrd>(found: &Hierarchies, looks: [Look<T>; 2]) -> Option<(T, PathBuf)> {
    let chains = looks.map(|(name, limit)| (found.chain(name), limit));
    let limits = chains.iter().flat_map(|(chain, limit)| {
        let groups = chain.iter().flat_map(Chain::groups);
        groups.filter_map(|group| Some((limit(group)?, group.to_owned())))
    });
    // Of equal limits the upper one is reached first: more counts against it.
    limits.reduce(|tight, upper| if upper.0 <= tight.0 { upper } else { tight })
}

/// Version 1 may count the CPU in another hierarchy than it limits it in: there it is the group
/// of the same name, if we are in that one too.
fn counts_for(found: &Hierarchies, group: PathBuf) -> PathBuf {
    let twin = || {
        let inside = group.strip_prefix(found.chain("cpu")?.top).ok()?.to_owned();
        let counting = found.chain("cpuacct")?;
        let twin = counting.top.join(inside);
        counting.groups().any(|group| group == twin).then_some(twin)
    };
    twin().unwrap_or(group)
}

#[cfg(test)]
mod tests;
