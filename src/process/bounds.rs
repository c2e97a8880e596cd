//! The limits that a program's process sets on itself, before it is let go: they hold for all it
//! starts, and none of it can lift them again.
//!
//! They travel as one word, such as `nice=10,files=4096`: to the engine, which is this same binary,
//! or to `worker limit WORD PROGRAM ARGS…`, which then becomes any other program.

use std::fmt;
use std::fs::{File, read_to_string};
use std::io::{self, Write as _};
use std::str::FromStr;

use super::proc;
use super::sandbox::NOBODY;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, nice, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// One kind of limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Added to the niceness.
    Nice,
    /// How readily the kernel takes it when memory runs out, of 1000: before the agent.
    OomScore,
    /// Bytes that one process may write to. Not of address space, of which some programs reserve
    /// far more than there is memory.
    Data,
    /// Seconds of the processor for one process.
    Cpu,
    /// Bytes of one file.
    FileSize,
    /// Bytes of what is left behind by a crash.
    Core,
    /// Open files of one process.
    Files,
    /// Processes and threads of this user, besides those that there are now; it does not bind root.
    Processes,
    /// Processors to run on, of those that it may run on now.
    Cpus,
}

impl Bound {
    const ALL: [Self; 9] = [
        Self::Nice,
        Self::OomScore,
        Self::Data,
        Self::Cpu,
        Self::FileSize,
        Self::Core,
        Self::Files,
        Self::Processes,
        Self::Cpus,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Nice => "nice",
            Self::OomScore => "oom-score",
            Self::Data => "data",
            Self::Cpu => "cpu",
            Self::FileSize => "file-size",
            Self::Core => "core",
            Self::Files => "files",
            Self::Processes => "processes",
            Self::Cpus => "cpus",
        }
    }

    fn set(self, value: u64) -> io::Result<()> {
        match self {
            Self::Nice => {
                // Refused only to those who may not even be nicer to others: it runs as it is then.
                nice(i32::try_from(value).unwrap_or(19)).ok();
                Ok(())
            }
            Self::OomScore => {
                // The same.
                raise_oom_score(value).ok();
                Ok(())
            }
            Self::Data => lower(Resource::Data, value),
            Self::Cpu => lower(Resource::Cpu, value),
            Self::FileSize => lower(Resource::Fsize, value),
            Self::Core => lower(Resource::Core, value),
            Self::Files => lower(Resource::Nofile, value),
            Self::Processes => lower(Resource::Nproc, value.saturating_add(threads_now())),
            Self::Cpus => keep_processors(value),
        }
    }
}

/// What a program is limited to; a later one of the same kind holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bounds(pub(crate) Vec<(Bound, u64)>);

impl Bounds {
    /// Sets them on this process.
    pub(crate) fn apply(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|(bound, value)| bound.set(*value))
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (bound, value)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}={value}", bound.name())?;
        }
        Ok(())
    }
}

impl FromStr for Bounds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bound = |word: &str| {
            let (name, value) = word.split_once('=')?;
            let bound = Bound::ALL.into_iter().find(|bound| bound.name() == name)?;
            Some((bound, value.parse().ok()?))
        };
        let told = |word| bound(word).ok_or_else(|| format!("`{word}` is no limit"));
        text.split(',').map(told).collect::<Result<_, _>>().map(Self)
    }
}

/// Of whoever the program will be: root becomes somebody else first.
fn threads_now() -> u64 {
    let us = geteuid();
    proc::threads_of(if us.is_root() { NOBODY } else { us.as_raw() })
}

fn keep_processors(count: u64) -> io::Result<()> {
    let mine = sched_getaffinity(None)?;
    let mut kept = CpuSet::new();
    let count = usize::try_from(count).unwrap_or(usize::MAX).max(1);
    for cpu in (0..CpuSet::MAX_CPU).filter(|cpu| mine.is_set(*cpu)).take(count) {
        kept.set(cpu);
    }
    sched_setaffinity(None, &kept).map_err(io::Error::from)
}

/// Never above what it is already: raising it is a privilege.
fn lower(resource: Resource, value: u64) -> io::Result<()> {
    let now = getrlimit(resource);
    let least = |now: Option<u64>| Some(now.map_or(value, |now| now.min(value)));
    let lower = Rlimit { current: least(now.current), maximum: least(now.maximum) };
    setrlimit(resource, lower).map_err(io::Error::from)
}

fn raise_oom_score(value: u64) -> io::Result<()> {
    let path = "/proc/self/oom_score_adj";
    let now: i64 = read_to_string(path)?.trim().parse().map_err(io::Error::other)?;
    if u64::try_from(now).is_ok_and(|now| now >= value) {
        return Ok(());
    }
    File::options().write(true).open(path)?.write_all(value.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_as_they_are_written() {
        let bounds = Bounds(Bound::ALL.map(|bound| (bound, 7)).to_vec());
        assert_eq!(bounds.to_string().parse(), Ok(bounds));
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        let refused = |text: &str| text.parse::<Bounds>().unwrap_err();
        assert_eq!(refused("nice=1,gpus=3"), "`gpus=3` is no limit");
        assert_eq!(refused(""), "`` is no limit");
        assert_eq!(refused("files=-1"), "`files=-1` is no limit");
    }
}
