//! A job's program, whatever runs it: what the watch does to it.

use std::io::{self, PipeReader};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;

use super::Container;
use crate::process::{Child, Stream, Usage, Woken};
use crate::work::Blame;

/// A job's program, made and held, or running.
#[derive(Debug)]
pub(crate) enum Running {
    Process(Box<Child>),
    Container(Box<Container>),
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// The kernel has killed some of it at its own limit.
    pub(crate) ran_out: bool,
    pub(crate) not_started: Option<NotStarted>,
}

/// Why nothing of a job's has run.
#[derive(Debug)]
pub(crate) struct NotStarted {
    pub(crate) blame: Blame,
    pub(crate) error: String,
}

impl Running {
    /// The process that it and its energy are counted by: a container's are among our descendants.
    pub(crate) fn id(&self) -> u32 {
        match self {
            Self::Process(child) => child.id(),
            Self::Container(_) => std::process::id(),
        }
    }

    /// Lets it go.
    pub(crate) fn release(&mut self) -> io::Result<()> {
        match self {
            Self::Process(child) => child.release(),
            Self::Container(container) => container.release(),
        }
    }

    /// Waits for output, an order or its end, at most `at_most`; hands whole lines on.
    pub(crate) fn wait(
        &mut self,
        at_most: Duration,
        orders: Option<&PipeReader>,
        sink: &mut dyn FnMut(Stream, &str),
    ) -> io::Result<Woken> {
        match self {
            Self::Process(child) => child.wait(at_most, orders, sink),
            Self::Container(container) => container.wait(at_most, orders, sink),
        }
    }

    /// Whether it goes on without the agent.
    pub(crate) fn outlives_us(&self) -> bool {
        matches!(self, Self::Container(_))
    }

    /// Tells all of it.
    pub(crate) fn ask(&self, signal: Signal) {
        match self {
            Self::Process(child) => child.ask(signal),
            Self::Container(container) => container.ask(signal),
        }
    }

    pub(crate) fn kill(&self) {
        match self {
            Self::Process(child) => child.kill(),
            Self::Container(container) => container.kill(),
        }
    }

    /// CPU time and memory so far.
    pub(crate) fn usage(&self) -> Usage {
        match self {
            Self::Process(child) => child.usage(),
            Self::Container(container) => container.usage(),
        }
    }

    /// Whether it has more memory than that, where the kernel does not see to it.
    pub(crate) fn has_more_than(&self, bytes: u64) -> bool {
        match self {
            Self::Process(child) => child.has_more_than(bytes),
            Self::Container(_) => false,
        }
    }

    /// Bytes of the files on a disk that it has open and that are in no folder any more.
    pub(crate) fn unlinked(&self, device: u64) -> u64 {
        match self {
            Self::Process(child) => child.unlinked(device),
            Self::Container(container) => container.unlinked(device),
        }
    }

    /// Whether the kernel has killed some of it, or all, at its own limit.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        match self {
            Self::Process(child) => child.ran_out_of_memory(),
            Self::Container(container) => container.ran_out_of_memory(),
        }
    }

    /// Ends what is left of it, which has exited, and reads its last output.
    pub(crate) fn finish(self, sink: &mut dyn FnMut(Stream, &str)) -> io::Result<Ended> {
        match self {
            Self::Process(child) => {
                let ran_out = child.ran_out_of_memory();
                Ok(Ended { status: child.finish(sink)?, ran_out, not_started: None })
            }
            Self::Container(container) => Ok(container.finish()),
        }
    }

    /// Leaves what could not be killed to itself.
    pub(crate) fn give_up(self) {
        if let Self::Container(container) = self {
            container.give_up();
        }
    }
}
