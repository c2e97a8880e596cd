//! Child processes: their own group, held until they are recorded, ended as a whole, output bounded.
//! What gets away from the process group is found by `family`, and by the control group (`group`) where
//! there is one.
//!
//! A child is started blocked on its stdin. One byte lets it go; end of file, which the death of the
//! agent is too, makes it exit. So no kill of the agent can leave a program running that no record
//! knows. This room is mechanism: when to stop a job, and what its end means, is `job`'s business.

mod bounds;
mod counters;
mod family;
mod group;
mod lines;
mod pace;
mod proc;
mod sandbox;
mod seccomp;

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::work::ProcessHandle;
pub(crate) use bounds::{Bound, Bounds};
pub(crate) use counters::Counters;
use family::Family;
pub(crate) use group::{Group, Groups};
use lines::Lines;
use pace::Pace;
pub(crate) use proc::{TICKS, Usage, boot_id, descends_from, kills_for_memory};
pub(crate) use sandbox::{FILTER, STATUS, Sandbox, View, find as find_program};
pub(crate) use seccomp::filter;

/// How often a child is looked at where the kernel has no pidfd to wait on (before Linux 5.3).
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is left in the pipes when a child ends is read for this long at most: a process that got
/// away from its group may hold them open for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long the end of what is left of a program is waited for.
const ENDED_WITHIN: Duration = Duration::from_secs(2);

/// A program to start. Its environment is exactly what stands here, and its mark.
#[derive(Debug)]
pub(crate) struct Program {
    /// Tells its processes from those of every other program.
    pub(crate) mark: OsString,
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(&'static str, OsString)>,
    pub(crate) dir: PathBuf,
    /// Its leader only holds another program, which ends with it: signals are not for the leader, and
    /// what it exits with is what the other one ended with, as a shell tells it.
    pub(crate) is_wrapped: bool,
}

/// Which pipe a line came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Why a wait came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The program has exited; [`Child::finish`] is next.
    Exited,
    /// An order came, or whoever gives them is gone (`None`).
    Order(Option<u8>),
    /// Output was read, or the time is over.
    Timeout,
}

/// A running child process, leader of its own group. Dropping it kills the group.
#[derive(Debug)]
pub(crate) struct Child {
    child: std::process::Child,
    pid: Pid,
    pidfd: Option<OwnedFd>,
    /// Another process, whose end wakes a wait as well.
    other: Option<OwnedFd>,
    stdin: Option<ChildStdin>,
    pipes: [Option<Pipe>; 2],
    pace: Pace,
    family: Family,
    /// Removed after the leader is reaped.
    group: Option<Group>,
    is_wrapped: bool,
    reaped: bool,
}

#[derive(Debug)]
struct Pipe {
    stream: Stream,
    fd: OwnedFd,
    lines: Lines,
}

impl Child {
    /// Starts the program, held until [`Child::release`], in a control group if there is one.
    pub(crate) fn start(program: &Program, group: Option<Group>) -> io::Result<Self> {
        let mut command = Command::new(&program.path);
        command
            .args(&program.args)
            .env_clear()
            .envs(program.env.iter().map(|(name, value)| (name, value)))
            .env(family::MARK, &program.mark)
            .current_dir(&program.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let (mut child, family) = Family::found(&program.mark, || command.spawn())?;
        let pid = Pid::from_child(&child);
        let group = group.filter(|group| match group.admit(child.id()) {
            Ok(()) => true,
            Err(error) => {
                log::warn!("a program runs without its control group: {error}");
                false
            }
        });
        let pipe = |stream, fd: OwnedFd| -> io::Result<Pipe> {
            rustix::io::ioctl_fionbio(&fd, true)?;
            Ok(Pipe { stream, fd, lines: Lines::default() })
        };
        let stdout = child.stdout.take().map(|pipe| (Stream::Stdout, OwnedFd::from(pipe)));
        let stderr = child.stderr.take().map(|pipe| (Stream::Stderr, OwnedFd::from(pipe)));
        let stdin = child.stdin.take();
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
        let (pipes, is_wrapped) = ([None, None], program.is_wrapped);
        let (other, reaped, pace) = (None, false, Pace::new(Instant::now()));
        let mut started = Self {
            child,
            pid,
            pidfd,
            other,
            stdin,
            pipes,
            pace,
            family,
            group,
            is_wrapped,
            reaped,
        };
        for (slot, piped) in started.pipes.iter_mut().zip([stdout, stderr]) {
            *slot = piped.map(|(stream, fd)| pipe(stream, fd)).transpose()?;
        }
        Ok(started)
    }

    /// What tells this process from any other that ever had its pid.
    pub(crate) fn handle(&self) -> io::Result<ProcessHandle> {
        Ok(ProcessHandle {
            pid: self.pid.as_raw_nonzero().get(),
            start_time: proc::stat(self.pid)?.start_time,
            boot_id: boot_id()?,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Why the kernel does not hold it to that much memory, if it does not.
    pub(crate) fn not_held_to(&self, memory: u64) -> Option<String> {
        match &self.group {
            Some(group) => group.objection(self.id(), memory),
            None => Some("it has no control group".to_owned()),
        }
    }

    /// Lets the program go. It keeps its stdin: end of file there is the end of the agent.
    pub(crate) fn release(&mut self) -> io::Result<()> {
        match &mut self.stdin {
            Some(stdin) => stdin.write_all(b"\n"),
            None => Ok(()),
        }
    }

    /// Lets the end of another process wake the next wait too.
    pub(crate) fn wake_with(&mut self, other: OwnedFd) {
        self.other = Some(other);
    }

    /// Waits for output, an order or the program's end, at most `at_most`; hands whole lines on.
    pub(crate) fn wait(
        &mut self,
        at_most: Duration,
        orders: Option<&PipeReader>,
        sink: &mut dyn FnMut(Stream, &str),
    ) -> io::Result<Woken> {
        let at_most = if self.pidfd.is_some() { at_most } else { at_most.min(LOOK_EVERY) };
        let may_read = self.pace.allows(Instant::now());
        let at_most = if may_read { at_most } else { at_most.min(pace::REST) };
        let ordered = self.poll(at_most, orders, may_read)?;
        if self.other.as_ref().is_some_and(has_ended) {
            // It would wake us over and over.
            self.other = None;
        }
        if may_read {
            self.read_pipes(sink);
        }
        if let Some(orders) = orders.filter(|_| ordered) {
            return read_order(orders).map(Woken::Order);
        }
        Ok(if self.has_exited()? { Woken::Exited } else { Woken::Timeout })
    }

    fn poll(
        &self,
        at_most: Duration,
        orders: Option<&PipeReader>,
        with_output: bool,
    ) -> io::Result<bool> {
        let pipes = self.pipes.iter().flatten().filter(|_| with_output);
        let fds: Vec<BorrowedFd<'_>> = orders
            .iter()
            .map(|orders| orders.as_fd())
            .chain(self.pidfd.iter().chain(&self.other).map(AsFd::as_fd))
            .chain(pipes.map(|pipe| pipe.fd.as_fd()))
            .collect();
        let mut polled: Vec<PollFd<'_>> =
            fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let timeout = Timespec::try_from(at_most).map_err(io::Error::other)?;
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(orders.is_some() && polled.first().is_some_and(|fd| !fd.revents().is_empty()))
    }

    /// Reads what is there, a bounded amount at a time so that orders are not starved by output.
    fn read_pipes(&mut self, sink: &mut dyn FnMut(Stream, &str)) {
        for slot in &mut self.pipes {
            let Some(pipe) = slot else { continue };
            let mut buffer = [0; 16 << 10];
            match rustix::io::read(&pipe.fd, &mut buffer) {
                Ok(0) => {
                    pipe.lines.end(&mut |line| sink(pipe.stream, line));
                    *slot = None;
                }
                Ok(n) => {
                    self.pace.spend(&buffer[..n]);
                    pipe.lines.push(&buffer[..n], &mut |line| sink(pipe.stream, line));
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => *slot = None,
            }
        }
    }

    /// Whether the leader is over. It is left unreaped, so that its pid stays ours.
    fn has_exited(&self) -> io::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(rustix::process::waitid(WaitId::Pid(self.pid), options)?.is_some())
    }

    /// Asks the program to do what the signal says: its whole group, or all that it is wrapped into.
    pub(crate) fn ask(&self, signal: Signal) {
        if self.is_wrapped { self.family.signal(signal) } else { self.signal(signal) }
    }

    /// Sends a signal to the whole group.
    fn signal(&self, signal: Signal) {
        // The one error there is, that nobody is left to be signalled, is what we want.
        rustix::process::kill_process_group(self.pid, signal).ok();
    }

    /// Kills all of it that has not got away.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    /// CPU time and memory so far; of a program that has exited, all but the memory. What it has left
    /// to us as zombies is reaped.
    pub(crate) fn usage(&self) -> Usage {
        let Some(group) = &self.group else {
            let memory = self.family.pids().into_iter().map(proc::memory).sum();
            return Usage { memory, ..proc::usage(self.pid) };
        };
        family::reap_children();
        let usage = group.counters.usage();
        Usage { cpu: usage.cpu.or_else(|| proc::usage(self.pid).cpu), ..usage }
    }

    /// Whether all its processes have more memory than that, what they share counted once. In a
    /// control group the kernel sees to it.
    pub(crate) fn has_more_than(&self, bytes: u64) -> bool {
        let all = || self.family.pids().into_iter().map(proc::share_of_memory).sum::<u64>();
        self.group.is_none() && all() > bytes
    }

    /// Bytes of the files on a disk that it has open and that are in no folder any more.
    pub(crate) fn unlinked(&self, device: u64) -> u64 {
        match &self.group {
            Some(group) => group.counters.unlinked(device),
            None => proc::unlinked(self.family.pids(), device),
        }
    }

    /// Whether the kernel has killed some of it, or all, at its control group's limit.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.counters.ran_out_of_memory())
    }

    /// Kills what is left of the program, reads the last output and reaps the leader, which has
    /// exited.
    pub(crate) fn finish(mut self, sink: &mut dyn FnMut(Stream, &str)) -> io::Result<ExitStatus> {
        // Also after a normal exit: a grandchild may hold our end of the pipes open for ever. The
        // leader is not reaped yet, so the group's number cannot belong to anybody else.
        self.signal(Signal::KILL);
        match &self.group {
            // Nothing of it is anywhere else, which saves a look at every process there is.
            Some(group) => {
                group.end(ENDED_WITHIN);
                family::reap_children();
            }
            None => self.family.end(ENDED_WITHIN),
        }
        let until = Instant::now() + LAST_WORDS;
        while self.pipes.iter().any(Option::is_some) && Instant::now() < until {
            // Without the pidfds, which report their exits over and over.
            (self.pidfd, self.other) = (None, None);
            self.poll(LAST_WORDS / 4, None, true)?;
            self.read_pipes(sink);
        }
        for pipe in self.pipes.iter_mut().flatten() {
            pipe.lines.end(&mut |line| sink(pipe.stream, line));
        }
        self.reaped = true;
        let status = self.child.wait()?;
        Ok(if self.is_wrapped { unwrapped(status) } else { status })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.kill();
        self.family.end(LAST_WORDS);
        // Not waited for any longer: a process stuck in the kernel must not hold the agent up.
        self.pipes = [None, None];
        self.poll(LAST_WORDS, None, false).ok();
        if let Err(error) = self.child.try_wait() {
            log::debug!("cannot reap pid={}: {error}", self.child.id());
        }
    }
}

/// By what the end of a process can be waited for that is none of our children.
pub(crate) fn pidfd_of(pid: u32) -> Option<OwnedFd> {
    rustix::process::pidfd_open(proc::to_pid(pid)?, PidfdFlags::empty()).ok()
}

pub(crate) fn has_ended(process: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(process, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// Waits for an order where there is nothing else to wait for.
pub(crate) fn wait_for_order(
    orders: Option<&PipeReader>,
    at_most: Duration,
) -> io::Result<Option<Option<u8>>> {
    let fds = orders.iter().map(|orders| PollFd::new(*orders, PollFlags::IN));
    let mut polled: Vec<_> = fds.collect();
    let timeout = Timespec::try_from(at_most).map_err(io::Error::other)?;
    match (poll(&mut polled, Some(&timeout)), orders) {
        (Ok(ready), Some(orders)) if ready > 0 => read_order(orders).map(Some),
        (Ok(_) | Err(rustix::io::Errno::INTR), _) => Ok(None),
        (Err(error), _) => Err(error.into()),
    }
}

/// A signal is told as a shell tells it.
pub(crate) fn unwrapped(status: ExitStatus) -> ExitStatus {
    match status.code() {
        Some(code @ 129..160) => ExitStatus::from_raw(code - 128),
        _ => status,
    }
}

fn read_order(mut orders: &PipeReader) -> io::Result<Option<u8>> {
    let mut byte = [0];
    Ok((orders.read(&mut byte)? == 1).then_some(byte[0]))
}

/// Kills the group of a child that an earlier run of the agent left behind, as far as it lives.
pub(crate) fn kill_orphan(handle: &ProcessHandle) {
    if let Some(pid) = living(handle) {
        rustix::process::kill_process_group(pid, Signal::KILL).ok();
    }
}

/// Whether the program still runs, and no other that has its number by now.
pub(crate) fn is_running(handle: &ProcessHandle) -> bool {
    living(handle).is_some()
}

fn living(handle: &ProcessHandle) -> Option<Pid> {
    let pid = Pid::from_raw(handle.pid)?;
    let is_this_boot = boot_id().is_ok_and(|id| id == handle.boot_id);
    let is_it = || proc::stat(pid).is_ok_and(|stat| stat.start_time == handle.start_time);
    (is_this_boot && is_it()).then_some(pid)
}

/// Kills all whose mark begins so, wherever they went.
pub(crate) fn kill_marked(beginning: &OsStr) {
    family::kill_marked(beginning, ENDED_WITHIN);
}

#[cfg(test)]
mod tests;
