//! What the loop hears and what it decides: two closed enums.

use std::time::Duration;

use crate::backend::{Error, JobState, Receipt, RegisterError, Status};
use crate::config::Rules;
use crate::exit::Exit;
use crate::job::Offer;
use crate::work::{Attempt, Booking, Decline, JobId, Key, Order, Report, Verdict};

/// Time since boot, on a clock that runs through suspend.
pub(crate) type Time = Duration;

/// Something happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A deadline of the core's has come.
    Tick,
    Registered(Result<(), RegisterError>),
    /// A heartbeat, sent at this time, was answered or not.
    Beat {
        sent: Time,
        answer: Result<Heard, Error>,
    },
    /// Other facts of this machine than those registered are true now.
    MachineChanged,
    /// So many bytes are free on the disk that holds the state.
    DiskFree(u64),
    /// No speed is stored, or not that of this machine as it is now.
    SpeedUnknown,
    /// The machine's speed, which is stored now, or why it could not be measured.
    Measured(Result<f64, String>),
    /// A running job tells how far it is.
    Progress {
        key: Key,
        report: Box<Report>,
    },
    /// A progress report was sent.
    ProgressSent {
        key: Key,
        acknowledged: bool,
    },
    /// A job has its outcome, and it is on disk.
    Ended {
        key: Key,
        verdict: Verdict,
    },
    /// The loss of a job that an earlier run left behind is on disk at last.
    Lost {
        key: Key,
    },
    /// A job could not be recorded, so nothing was started.
    NotTaken {
        key: Key,
        error: String,
    },
    /// The backend was asked about a job.
    Asked {
        key: Key,
        answer: Result<JobState, Error>,
    },
    /// A completion was sent.
    Sent {
        key: Key,
        answer: Result<Receipt, Error>,
    },
    /// An outcome cannot be read back from disk.
    Unreadable {
        key: Key,
        error: String,
    },
    /// The owner's pause as it stands; none if they want none.
    Pause(Option<Pause>),
    /// The settings were read again, and these rules hold from now on.
    Reloaded(Box<Rules>),
    Stop(StopRequest),
    /// A thread died of a bug.
    Panicked(&'static str),
}

/// No new jobs, by the owner's wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pause {
    /// As people and the backend are told it.
    pub(crate) words: String,
    /// It ends by itself.
    pub(crate) until: Option<Time>,
}

/// What a heartbeat brought.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) offers: Vec<Offer>,
    /// The jobs were polled for, so they may be nobody's yet: never declined.
    pub(crate) polled: bool,
    /// There are more jobs than these.
    pub(crate) partial: bool,
    pub(crate) cancel: Vec<JobId>,
    pub(crate) interval: Option<Duration>,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopRequest {
    /// Finish what runs, take nothing new. Once more: cancel. Once more: leave.
    Drain,
    /// Cancel what runs, at once.
    Cancel,
}

/// Something is to be done.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    Register,
    Beat {
        status: Status,
        jobs: Vec<JobId>,
        paused: Option<String>,
    },
    /// Record the job as taken, then run it.
    Start {
        key: Key,
        attempt: Attempt,
        offer: Box<Offer>,
    },
    /// See a job through that an earlier agent began.
    Adopt {
        key: Key,
        attempt: Attempt,
        offer: Box<Offer>,
    },
    /// Record the decline as the job's outcome.
    Decline {
        key: Key,
        attempt: Attempt,
        kind: String,
        decline: Decline,
    },
    /// Record the last attempt's failure as this attempt's outcome, marked as final.
    Repeat {
        key: Key,
        attempt: Attempt,
    },
    /// Record a job that was taken but never begun as cancelled.
    Abandon {
        key: Key,
    },
    Order {
        key: Key,
        order: Order,
    },
    Errand(Errand),
    Book {
        key: Key,
        booking: Booking,
    },
    /// Record that the backend had heard of the progress of a job that failed.
    NoteProgress {
        key: Key,
    },
    NoteWait {
        key: Key,
        waited: Duration,
    },
    /// Drop all that is kept of a job.
    Forget {
        key: Key,
    },
    Measure,
    StopMeasuring,
    Log(log::Level, String),
    Exit(Exit),
    /// Leave without waiting for anything.
    ExitNow(Exit),
}

/// Something for the courier to carry.
#[derive(Debug, PartialEq)]
pub(crate) enum Errand {
    Progress {
        key: Key,
        id: JobId,
        report: Box<Report>,
    },
    /// The job has its outcome: what progress still waits is not sent any more.
    DropProgress {
        key: Key,
    },
    Ask {
        key: Key,
        id: JobId,
    },
    /// Send the completion; `first` makes sure that some progress went before it.
    Send {
        key: Key,
        first: Option<Box<Report>>,
    },
}
