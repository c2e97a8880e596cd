//! What the kernel counts of a control group, ours or an engine's. Whatever differs between the two versions
//! has names of its own: a file that is not there belongs to the other version.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::proc::{self, Usage};
use crate::cgroup::{Hierarchies, V2, line_of};

/// Where the counters of a container are, and what limits it.
const CONTROLLERS: [&str; 5] = ["memory", "pids", "cpu", "cpuacct", V2];

/// A control group as it can be read.
#[derive(Debug)]
pub(crate) struct Counters {
    /// One of version 2, or one for each controller of version 1, that of the memory first.
    pub(super) dirs: Vec<PathBuf>,
}

impl Counters {
    /// Those of the group that a process is in.
    pub(crate) fn of_process(pid: u32) -> Self {
        let found = Hierarchies::of_process(Path::new("/"), pid);
        let dirs = CONTROLLERS.iter().filter_map(|name| found.chain(name)).map(|chain| chain.group);
        Self { dirs: dirs.collect() }
    }

    pub(super) fn text(&self, file: &str) -> Option<String> {
        self.dirs.iter().find_map(|dir| fs::read_to_string(dir.join(file)).ok())
    }

    /// The number in the first of these files that there is; none that says `max`.
    pub(crate) fn limit(&self, files: [&str; 2]) -> Option<u64> {
        files.into_iter().find_map(|file| self.number(file))
    }

    fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.trim().parse().ok()
    }

    /// What all that ever was in it has used; memory with the files that are cached for it.
    pub(crate) fn usage(&self) -> Usage {
        let micros = self.text("cpu.stat").and_then(|stat| line_of(&stat, "usage_usec"));
        let nanos = || self.number("cpuacct.usage").map(Duration::from_nanos);
        let peak = self.number("memory.peak").or_else(|| self.number("memory.max_usage_in_bytes"));
        let now = || self.number("memory.usage_in_bytes");
        Usage {
            cpu: micros.map(Duration::from_micros).or_else(nanos),
            peak_memory_mb: peak.map(|bytes| bytes as f64 / f64::from(1 << 20)),
            memory: self.number("memory.current").or_else(now).unwrap_or(0),
        }
    }

    /// The processes in it.
    pub(super) fn processes(&self) -> BTreeSet<u32> {
        let text = self.text("cgroup.procs").unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Bytes of the files on a disk that they have open and that are in no folder any more.
    pub(crate) fn unlinked(&self, device: u64) -> u64 {
        proc::unlinked(self.processes(), device)
    }

    /// Whether the kernel has killed in it because of its own limit, and not for lack of memory
    /// elsewhere.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let count = |file, name| self.text(file).and_then(|text| line_of(&text, name)).unwrap_or(0);
        let killed = count("memory.events", "oom_kill") + count("memory.oom_control", "oom_kill");
        killed > 0 && (count("memory.events", "oom") > 0 || self.was_full())
    }

    /// Version 1 does not count how often there was no room.
    fn was_full(&self) -> bool {
        let limit = self.number("memory.limit_in_bytes").unwrap_or(u64::MAX);
        let peaks = ["memory.max_usage_in_bytes", "memory.memsw.max_usage_in_bytes"];
        // A page that does not fit is not counted.
        peaks
            .into_iter()
            .filter_map(|peak| self.number(peak))
            .any(|peak| peak.saturating_add(1 << 20) >= limit)
    }
}
