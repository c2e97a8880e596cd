//! All the processes of a program: its leader's group, their descendants, and those that got away.
//!
//! A process whose parent is gone (a double fork) is adopted by the nearest ancestor that asked for
//! that, and the agent does. So whatever a program starts stays below the agent: below the program's
//! leader, or, once adopted, right below the agent itself, where it is told by its group or by the
//! mark in its environment. Only adopted ones are reaped here; leaders are reaped by their `Child`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::iter;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    PidfdFlags, Signal, WaitOptions, getpgrp, kill_process, pidfd_open, pidfd_send_signal,
    set_child_subreaper, waitpid,
};

use super::LOOK_EVERY;
use super::proc::{self, Stat, to_pid};

/// The variable that bears a program's mark.
pub(super) const MARK: &str = "WORKER_MARK";

/// The leaders of all children. Locked while one is started, since before it runs its program it
/// bears no mark, and while processes are judged, since it would be taken for an adopted one.
static LEADERS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn leaders() -> MutexGuard<'static, BTreeSet<u32>> {
    // The set is whole between any two statements.
    LEADERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The processes of one child.
#[derive(Debug)]
pub(super) struct Family {
    leader: u32,
    mark: OsString,
    since: u64,
}

/// Whose a process says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Ours,
    Other,
    /// It hides what it was started with, or has ended.
    Nothing,
}

impl Family {
    /// Starts the leader, which will bear the mark.
    pub(super) fn found(
        mark: &OsStr,
        start: impl FnOnce() -> io::Result<process::Child>,
    ) -> io::Result<(process::Child, Self)> {
        let mut leaders = leaders();
        // Refused by no kernel we run on; without it, what escapes goes to the machine's init.
        set_child_subreaper(to_pid(process::id())).ok();
        let child = start()?;
        leaders.insert(child.id());
        let since = to_pid(child.id()).and_then(|pid| proc::stat(pid).ok());
        let since = since.map_or(0, |stat| stat.start_time);
        let family = Self { leader: child.id(), mark: mark.to_owned(), since };
        Ok((child, family))
    }

    /// Kills and reaps all but the leader, within a bound.
    pub(super) fn end(&self, within: Duration) {
        end_all(within, || self.strays());
    }

    /// Sends a signal to all but the leader.
    pub(super) fn signal(&self, signal: Signal) {
        for (pid, stat) in self.strays() {
            send(pid, &stat, signal);
        }
    }

    /// The leader and all others, as they are now.
    pub(super) fn pids(&self) -> Vec<u32> {
        let all = proc::all();
        // Another program's start may hang, on a disk that does not answer; the next look sees more.
        let strays = LEADERS.try_lock().map(|leaders| self.judge(&all, &leaders));
        let strays = strays.unwrap_or_default();
        strays.into_iter().map(|(pid, _)| pid).chain([self.leader]).collect()
    }

    /// All but the leader; what has ended and was adopted is reaped on the way.
    fn strays(&self) -> Vec<(u32, Stat)> {
        // Looked at before the lock is taken, since that takes long on a machine with many: whose
        // leader was started meanwhile is known by then.
        let all = proc::all();
        self.judge(&all, &leaders())
    }

    fn judge(&self, all: &BTreeMap<u32, Stat>, leaders: &BTreeSet<u32>) -> Vec<(u32, Stat)> {
        reap_adopted(all, leaders);
        self.members(all, leaders)
    }

    fn members(&self, all: &BTreeMap<u32, Stat>, leaders: &BTreeSet<u32>) -> Vec<(u32, Stat)> {
        let says = |pid| match proc::environment(pid) {
            // Whoever is adopted by us may also come from elsewhere, as everything does that a
            // container's first process adopts: what shows an environment without our mark is not ours.
            Some(shown) if proc::variable(&shown, MARK) == Some(self.mark.as_bytes()) => Says::Ours,
            Some(shown) if !shown.is_empty() => Says::Other,
            Some(_) | None => Says::Nothing,
        };
        let tree = Tree { all, leaders, agent: process::id(), agent_group: own_group() };
        tree.members(self, says)
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        leaders().remove(&self.leader);
    }
}

/// All processes, as they are to be judged.
struct Tree<'a> {
    all: &'a BTreeMap<u32, Stat>,
    leaders: &'a BTreeSet<u32>,
    agent: u32,
    agent_group: u32,
}

impl Tree<'_> {
    /// The processes of a family, without its leader and what only has to be reaped. One that has
    /// ended under another parent is among them: it is adopted when that one ends.
    fn members(&self, family: &Family, says: impl Fn(u32) -> Says) -> Vec<(u32, Stat)> {
        let adopted = self.all.iter().filter(|(pid, stat)| self.is_adopted(**pid, stat));
        let mut tops: BTreeSet<u32> = adopted
            .filter(|(pid, stat)| self.claims(family, stat, says(**pid)))
            .map(|(pid, _)| *pid)
            .collect();
        tops.insert(family.leader);
        let belongs = |pid: u32, stat: &Stat| {
            let is_reaped = stat.is_zombie && stat.parent == self.agent;
            pid != family.leader
                && !is_reaped
                && self.top(pid).is_some_and(|top| tops.contains(&top))
        };
        let all = self.all.iter().map(|(pid, stat)| (*pid, *stat));
        all.filter(|(pid, stat)| belongs(*pid, stat)).collect()
    }

    /// What shares the agent's own group is a helper that a library started: the GPU driver's does.
    fn is_adopted(&self, pid: u32, stat: &Stat) -> bool {
        stat.parent == self.agent && !self.leaders.contains(&pid) && stat.group != self.agent_group
    }

    /// One that hides its mark goes with the last child there is, if it is not older than that.
    fn claims(&self, family: &Family, stat: &Stat, says: Says) -> bool {
        let is_last = self.leaders.iter().all(|leader| *leader == family.leader);
        stat.group == family.leader
            || says == Says::Ours
            || says == Says::Nothing && is_last && stat.start_time >= family.since
    }

    /// The ancestor right below the agent, or the process itself.
    fn top(&self, pid: u32) -> Option<u32> {
        let parent = |pid: &u32| self.all.get(pid).map(|stat| stat.parent);
        // Bounded, as the list was not made at one moment and may hold a circle.
        let mut line = iter::successors(Some(pid), parent).take(self.all.len() + 1);
        line.find(|pid| self.all.get(pid).is_some_and(|stat| stat.parent == self.agent))
    }
}

fn own_group() -> u32 {
    getpgrp().as_raw_nonzero().get().unsigned_abs()
}

/// The same without a look at every process there is. Where the kernel does not list our children,
/// they stay until their program ends.
pub(super) fn reap_children() {
    let stat = |pid| Some((pid, proc::stat(to_pid(pid)?).ok()?));
    let children = proc::children().into_iter().filter_map(stat).collect();
    // As above: not to be waited for.
    if let Ok(leaders) = LEADERS.try_lock() {
        reap_adopted(&children, &leaders);
    }
}

/// Takes the ended orphans from the process table, whoever's they were.
fn reap_adopted(all: &BTreeMap<u32, Stat>, leaders: &BTreeSet<u32>) {
    let tree = Tree { all, leaders, agent: process::id(), agent_group: own_group() };
    for (pid, _) in all.iter().filter(|(pid, stat)| stat.is_zombie && tree.is_adopted(**pid, stat))
    {
        // By its pid, so that nobody else's status is taken.
        waitpid(to_pid(*pid), WaitOptions::NOHANG).ok();
    }
}

/// Kills every process whose mark begins so, whoever's child it is now.
pub(super) fn kill_marked(beginning: &OsStr, within: Duration) {
    let is_marked = |(pid, stat): &(u32, Stat)| {
        let shown = proc::environment(*pid).unwrap_or_default();
        let mark = proc::variable(&shown, MARK);
        !stat.is_zombie && mark.is_some_and(|mark| mark.starts_with(beginning.as_bytes()))
    };
    end_all(within, || proc::all().into_iter().filter(is_marked).collect());
}

/// Kills what `find` finds until it finds nothing: what is killed may just have started another.
pub(super) fn end_all(within: Duration, mut find: impl FnMut() -> Vec<(u32, Stat)>) {
    let until = Instant::now() + within;
    loop {
        let found = find();
        if found.is_empty() {
            return;
        }
        let ending: Vec<OwnedFd> =
            found.iter().filter_map(|(pid, stat)| kill(*pid, stat)).collect();
        if Instant::now() >= until {
            log::warn!("{} processes of a program could not be killed", found.len());
            return;
        }
        wait_for(&ending, until);
    }
}

/// Kills a process, and returns by what its end can be waited for.
pub(super) fn kill(pid: u32, seen: &Stat) -> Option<OwnedFd> {
    send(pid, seen, Signal::KILL)
}

/// The same with another signal.
fn send(pid: u32, seen: &Stat, signal: Signal) -> Option<OwnedFd> {
    let pid = to_pid(pid)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty());
    // Looked at once more behind the descriptor, since the pid may be another's by now.
    if proc::stat(pid).ok()?.start_time != seen.start_time {
        return None;
    }
    match pidfd {
        Ok(pidfd) => pidfd_send_signal(&pidfd, signal).ok().map(|()| pidfd),
        // Ended meanwhile.
        Err(Errno::SRCH) => None,
        // An old kernel, or no descriptors left.
        Err(_) => kill_process(pid, signal).ok().and(None),
    }
}

fn wait_for(ending: &[OwnedFd], until: Instant) {
    if ending.is_empty() {
        return wait(&mut [], LOOK_EVERY);
    }
    for pidfd in ending {
        let left = until.saturating_duration_since(Instant::now());
        wait(&mut [PollFd::new(pidfd, PollFlags::IN)], left);
    }
}

pub(super) fn wait(fds: &mut [PollFd<'_>], at_most: Duration) {
    let Ok(timeout) = Timespec::try_from(at_most) else { return };
    // Whichever way it comes back, what is left is looked for again.
    poll(fds, Some(&timeout)).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: u32 = 10;
    const OURS: u32 = 20;
    const THEIRS: u32 = 30;

    /// `(pid, parent, group, start)`
    fn members(processes: &[(u32, u32, u32, u64)], leaders: &[u32], says: Says) -> Vec<u32> {
        let stat = |(pid, parent, group, start): &(u32, u32, u32, u64)| {
            let text =
                format!("{pid} (x) S {parent} {group} 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start}");
            (*pid, proc::parse(&text).unwrap())
        };
        let all = processes.iter().map(stat).collect();
        let leaders = leaders.iter().copied().collect();
        let tree = Tree { all: &all, leaders: &leaders, agent: AGENT, agent_group: AGENT };
        let family = Family { leader: OURS, mark: "m".into(), since: 100 };
        tree.members(&family, |_| says).into_iter().map(|(pid, _)| pid).collect()
    }

    #[test]
    fn descendants_belong_to_their_leader_and_adopted_ones_to_whom_they_say() {
        let all = [
            (1, 0, 1, 0),
            (AGENT, 1, AGENT, 1),
            (OURS, AGENT, OURS, 100),
            (21, OURS, 21, 101),
            (22, 21, OURS, 102),
            (THEIRS, AGENT, THEIRS, 100),
            (31, THEIRS, 31, 101),
            (40, AGENT, 40, 103),
            (41, 40, 41, 104),
            (50, 1, 50, 103),
        ];
        let both = [OURS, THEIRS];
        assert_eq!(members(&all, &both, Says::Ours), [21, 22, 40, 41]);
        assert_eq!(members(&all, &both, Says::Other), [21, 22]);
        assert_eq!(members(&all, &both, Says::Nothing), [21, 22]);
    }

    #[test]
    fn one_that_hides_its_mark_goes_with_the_last_child() {
        let all = [(AGENT, 1, AGENT, 1), (OURS, AGENT, OURS, 100), (40, AGENT, 40, 103)];
        assert_eq!(members(&all, &[OURS], Says::Nothing), [40]);
        let older = [(AGENT, 1, AGENT, 1), (OURS, AGENT, OURS, 100), (40, AGENT, 40, 99)];
        assert_eq!(members(&older, &[OURS], Says::Nothing), [0; 0]);
    }

    #[test]
    fn the_group_tells_too_and_the_agents_own_helpers_are_let_be() {
        let all = [(OURS, AGENT, OURS, 100), (40, AGENT, OURS, 103), (41, AGENT, AGENT, 103)];
        assert_eq!(members(&all, &[OURS, THEIRS], Says::Nothing), [40]);
        assert_eq!(members(&all, &[OURS], Says::Ours), [40]);
    }

    #[test]
    fn a_circle_in_the_list_does_not_hold_us() {
        let all = [(OURS, AGENT, OURS, 100), (40, 41, 40, 103), (41, 40, 41, 103)];
        assert_eq!(members(&all, &[OURS], Says::Ours), [0; 0]);
    }
}
